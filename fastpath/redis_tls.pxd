from libc.stdint cimport int32_t

from fastpath.c.openssl cimport SSL, SSL_CTX

cdef enum:
    TLS_DONE = 0
    TLS_BLOCKED = -1             # until the socket can be read
    TLS_BLOCKED_WRITE = -2       # until it can be written
    TLS_CLOSED = -3              # the peer has closed
    TLS_FAILED = -4


# What all connections to one endpoint share. Read only once made; its connections are one thread's.
cdef class TlsContext:
    cdef SSL_CTX* context
    cdef bytes server_name       # sent as SNI; empty: none is sent


# A session on a connected socket. NULL: no memory. `name` NULL: no SNI.
cdef SSL* tls_open(SSL_CTX* context, const char* name, int fd) noexcept nogil
cdef void tls_close(SSL* ssl) noexcept nogil
# Returns TLS_DONE when the handshake is over, else another code from above.
cdef int32_t tls_handshake(SSL* ssl) noexcept nogil
# Bytes read or written, > 0; else a code from above.
cdef int32_t tls_read(SSL* ssl, void* buffer, int32_t size) noexcept nogil
cdef int32_t tls_write(SSL* ssl, const void* buffer, int32_t size) noexcept nogil
# Why the last call failed: static text.
cdef const char* tls_reason(SSL* ssl) noexcept nogil
