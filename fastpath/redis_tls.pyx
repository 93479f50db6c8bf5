"""TLS for a store's connections, by OpenSSL on the socket itself.

Rules: TLS 1.2 or newer. The server's certificate is verified, chain and name, unless the options
say otherwise. Files are read when the context is made: a new certificate needs a new store.

OpenSSL writes to the socket by write(2), which may raise SIGPIPE: loop threads block all signals,
and Python ignores this one.

What it does not do: renegotiation by us, session resumption, revocation lists.
"""

from libc.stdint cimport int32_t

from fastpath.c.openssl cimport *

from fastpath.errors import StoreError
from fastpath.redis_options import is_numeric


cdef int32_t _code(SSL* ssl, int result) noexcept nogil:
    cdef int error = SSL_get_error(ssl, result)
    if error == SSL_ERROR_WANT_READ:
        return TLS_BLOCKED
    if error == SSL_ERROR_WANT_WRITE:
        return TLS_BLOCKED_WRITE
    if error == SSL_ERROR_ZERO_RETURN or error == SSL_ERROR_SYSCALL:
        return TLS_CLOSED
    return TLS_FAILED


cdef SSL* tls_open(SSL_CTX* context, const char* name, int fd) noexcept nogil:
    cdef SSL* ssl = SSL_new(context)
    if ssl == NULL:
        return NULL
    if SSL_set_fd(ssl, fd) != 1 or (name != NULL and SSL_set_tlsext_host_name(ssl, name) != 1):
        SSL_free(ssl)
        return NULL
    return ssl


cdef void tls_close(SSL* ssl) noexcept nogil:
    # Without close_notify: nothing that we asked is still wanted.
    if ssl != NULL:
        SSL_free(ssl)


cdef int32_t tls_handshake(SSL* ssl) noexcept nogil:
    cdef int result
    ERR_clear_error()
    result = SSL_connect(ssl)
    return TLS_DONE if result == 1 else _code(ssl, result)


cdef int32_t tls_read(SSL* ssl, void* buffer, int32_t size) noexcept nogil:
    cdef int n
    ERR_clear_error()
    n = SSL_read(ssl, buffer, size)
    return n if n > 0 else _code(ssl, n)


cdef int32_t tls_write(SSL* ssl, const void* buffer, int32_t size) noexcept nogil:
    cdef int n
    ERR_clear_error()
    n = SSL_write(ssl, buffer, size)
    return n if n > 0 else _code(ssl, n)


cdef const char* tls_reason(SSL* ssl) noexcept nogil:
    cdef const char* text
    cdef long verified = SSL_get_verify_result(ssl)
    if verified != X509_V_OK:
        return X509_verify_cert_error_string(verified)
    text = ERR_reason_error_string(ERR_peek_error())
    if text == NULL:
        return b"the connection was lost"
    return text


cdef _reason():
    cdef const char* text = ERR_reason_error_string(ERR_peek_error())
    return text.decode(errors="replace") if text != NULL else "unknown error"


cdef int _load(SSL_CTX* context, options) except -1:
    key_file = options.key_file or options.certificate_file
    if options.key_file and not options.certificate_file:
        raise StoreError("tls key_file: needs certificate_file beside it")
    for name in ("ca_file", "certificate_file", "key_file"):
        path = getattr(options, name)
        if path:
            try:
                open(path, "rb").close()
            except OSError as error:
                raise StoreError(f"tls {name} {path}: {error.strerror}") from None
    ERR_clear_error()
    if not options.ca_file:
        SSL_CTX_set_default_verify_paths(context)
    elif SSL_CTX_load_verify_file(context, options.ca_file.encode()) != 1:
        raise StoreError(f"tls ca_file {options.ca_file}: {_reason()}: need PEM certificates")
    if not options.certificate_file:
        return 0
    if SSL_CTX_use_certificate_chain_file(
        context, options.certificate_file.encode()
    ) != 1:
        raise StoreError(
            f"tls certificate_file {options.certificate_file}: {_reason()}: "
            "need PEM certificates"
        )
    if SSL_CTX_use_PrivateKey_file(context, key_file.encode(), SSL_FILETYPE_PEM) != 1:
        raise StoreError(
            f"tls key_file {key_file}: {_reason()}: need the certificate's PEM key, unencrypted"
        )
    if SSL_CTX_check_private_key(context) != 1:
        raise StoreError(f"tls key_file {key_file}: is not the certificate's key")
    return 0


cdef int _expect(TlsContext tls, options, str name) except -1:
    cdef X509_VERIFY_PARAM* param = SSL_CTX_get0_param(tls.context)
    cdef bytes encoded = name.encode()
    cdef bint numeric = is_numeric(name)
    tls.server_name = b"" if numeric else encoded
    if not options.verify:
        SSL_CTX_set_verify(tls.context, SSL_VERIFY_NONE, NULL)
        return 0
    if not name:
        raise StoreError("tls server_name: needed to verify the server of a Unix socket")
    SSL_CTX_set_verify(tls.context, SSL_VERIFY_PEER, NULL)
    if numeric:
        if X509_VERIFY_PARAM_set1_ip_asc(param, encoded) != 1:
            raise StoreError(f"tls server_name {name}: not an address that can be verified")
    elif X509_VERIFY_PARAM_set1_host(param, encoded, len(encoded)) != 1:
        raise StoreError(f"tls server_name {name}: not a name that can be verified")
    return 0


cdef class TlsContext:
    """The certificates and rules of one endpoint's connections.

    Parameters
    ----------
    options : RedisTls
    host : str
        Of the address: what the certificate must hold where the options name nothing.

    Raises
    ------
    StoreError
        A file that cannot be read or does not fit; no name to verify.
    """

    def __cinit__(self, options, str host):
        self.context = SSL_CTX_new(TLS_client_method())
        if self.context == NULL:
            raise MemoryError
        SSL_CTX_set_min_proto_version(self.context, TLS1_2_VERSION)
        # A reply says itself where it ends: a close without close_notify truncates none.
        SSL_CTX_set_options(self.context, SSL_OP_IGNORE_UNEXPECTED_EOF)
        SSL_CTX_set_mode(
            self.context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        )
        _load(self.context, options)
        _expect(self, options, options.server_name or host)

    def __dealloc__(self):
        if self.context != NULL:
            SSL_CTX_free(self.context)
