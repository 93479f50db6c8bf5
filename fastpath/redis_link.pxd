from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from fastpath._types cimport socket_watch_t, watcher_t
from fastpath.c.openssl cimport SSL, SSL_CTX
from fastpath.redis_protocol cimport N_CAUSES, conversation_t

cdef enum:
    MAX_ADDRESSES = 8
    MAX_ADDRESS_BYTES = 128      # struct sockaddr_storage
    READ_BYTES = 65536
    REASON_BYTES = 200

cdef enum link_state_t:
    LINK_OFF = 0                 # not attached
    LINK_DOWN = 1                # until retry_ns
    LINK_CONNECTING = 2          # these three until deadline_ns
    LINK_SECURING = 3            # TLS handshake
    LINK_GREETING = 4            # Redis handshake
    LINK_READY = 5


ctypedef struct address_t:
    int32_t family
    uint32_t size
    uint8_t[MAX_ADDRESS_BYTES] bytes  # a sockaddr


# One endpoint and the connection to it. One thread owns it. The first block is filled before
# link_init.
ctypedef struct link_t:
    int32_t n_addresses
    address_t[MAX_ADDRESSES] addresses
    int64_t connect_timeout_ns
    int64_t stall_ns
    SSL_CTX* tls                 # NULL: cleartext
    const char* tls_name         # SNI, or NULL
    uint64_t seed
    conversation_t talk
    int32_t state                # link_state_t
    int32_t fd
    SSL* ssl
    const watcher_t* watcher
    socket_watch_t watch
    uint32_t events              # that are watched
    bint write_blocked           # `talk.output` waits for the socket
    int32_t address              # the next attempt's, or the connection's
    int32_t n_tried              # addresses, since the last connection or pause
    int64_t backoff_ns
    int64_t retry_ns
    int64_t deadline_ns
    int64_t progress_ns          # bytes last came, or were first owed
    bint is_first                # what was asked last is all that is owed, and was not sent
    uint64_t replies_before      # of earlier connections
    uint64_t n_connects
    uint64_t[N_CAUSES] connect_failures
    uint64_t[N_CAUSES] disconnects
    int32_t last_cause           # of the last failure; -1: none so far
    int32_t last_errno           # with CAUSE_SOCKET; 0: the server closed
    char[REASON_BYTES] last_reason
    uint8_t[READ_BYTES] buffer


# Zeroed memory on entry, but for the first block and the conversation's.
cdef void link_init(link_t* link) noexcept nogil
# Closes and frees; no callbacks.
cdef void link_clear(link_t* link) noexcept nogil
cdef void link_attach(link_t* link, const watcher_t* watcher, int64_t now_ns) noexcept nogil
# Closes: what is still asked is lost, by callback.
cdef void link_detach(link_t* link, int64_t now_ns) noexcept nogil
# Asks GET prefix+key. Returns its sequence number, or -1: not connected, or too many on their way.
cdef int64_t link_ask(
    link_t* link, const uint8_t* key, size_t n_key, void* token
) noexcept nogil
# Sends what was asked, connects, gives up: what is due.
cdef void link_flush(link_t* link, int64_t now_ns) noexcept nogil
# When link_flush is wanted although nothing arrives.
cdef int64_t link_wake_ns(link_t* link) noexcept nogil
