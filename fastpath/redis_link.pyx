"""A connection to one Redis endpoint: the socket under a conversation, and its coming back.

Rules: one thread; sockets never block; time is a parameter. Only `link_flush`, `link_detach` and
the socket's own events lose a connection, so nobody is called back from within `link_ask`.

How it works: down -> connecting -> (TLS) -> greeting -> ready. Up to there the connect time-out
holds. When ready, GETs of an iteration leave in one write; what the kernel does not take waits for
EPOLLOUT. A connection that owes replies and sends nothing for `stall_ns` is discarded, so is one
that breaks the protocol: a new one is cheaper than not knowing.

After a failure the endpoint's next address is tried at once; after a round of them comes a pause:
at random between nothing and 20 ms, then 40, 80 ... up to 2 s ("full jitter"). A connection that
answered a GET starts the pauses anew.

What it does not do: it knows no keys, no time-outs of single reads, and resolves no names.
"""

from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, errno
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, strlen
from posix.unistd cimport close

from fastpath.c.linux cimport *
from fastpath.c.sockets cimport SO_ERROR, SOCK_STREAM, connect, getsockopt, socket
from fastpath.jitter cimport next_uniform
from fastpath.metrics cimport add
from fastpath.redis_protocol cimport *
from fastpath.redis_tls cimport *

cdef int64_t FIRST_BACKOFF_NS = 20_000_000
cdef int64_t LAST_BACKOFF_NS = 2_000_000_000
cdef int64_t SHORTEST_PAUSE_NS = 1_000_000


# ---------------------------------------------------------------- losing


cdef void _close(link_t* link) noexcept nogil:
    tls_close(link.ssl)
    link.ssl = NULL
    if link.fd >= 0:
        if link.events:
            link.watcher.watch(link.watcher.loop, &link.watch, 0, EPOLL_CTL_DEL)
        close(link.fd)
    link.fd = -1
    link.watch.fd = -1
    link.events = 0
    link.write_blocked = False


cdef void _explain(link_t* link, int32_t cause, int32_t code) noexcept nogil:
    cdef const char* reason = b""
    cdef size_t size = 0
    link.last_cause = cause
    link.last_errno = code
    if cause == CAUSE_TLS and link.ssl != NULL:
        reason = tls_reason(link.ssl)
        size = strlen(reason)
    elif link.talk.n_words > 0:
        reason = link.talk.words
        size = link.talk.n_words
    size = min(size, <size_t> REASON_BYTES - 1)
    memcpy(link.last_reason, reason, size)
    link.last_reason[size] = 0


cdef void _schedule(link_t* link, int64_t now_ns) noexcept nogil:
    cdef int64_t pause_ns
    link.retry_ns = now_ns
    if link.n_tried < link.n_addresses:
        return
    link.n_tried = 0
    link.backoff_ns = min(max(2 * link.backoff_ns, FIRST_BACKOFF_NS), LAST_BACKOFF_NS)
    pause_ns = <int64_t> (link.backoff_ns * next_uniform(&link.seed))
    link.retry_ns += max(pause_ns, SHORTEST_PAUSE_NS)


cdef void _lose(link_t* link, int32_t cause, int32_t code, int64_t now_ns) noexcept nogil:
    _explain(link, cause, code)
    if link.state == LINK_READY:
        add(&link.disconnects[cause], 1)
        if link.talk.n_replies > link.replies_before:
            link.backoff_ns = 0
        # The same address again, after a pause.
        link.n_tried = link.n_addresses
    else:
        add(&link.connect_failures[cause], 1)
        link.address = (link.address + 1) % link.n_addresses
        link.n_tried += 1
    link.state = LINK_DOWN
    _close(link)
    _schedule(link, now_ns)
    conversation_end(&link.talk, now_ns)


# ---------------------------------------------------------------- reading and writing


cdef void _watch(link_t* link) noexcept nogil:
    cdef uint32_t events = EPOLLIN
    if link.write_blocked:
        events |= EPOLLOUT
    if events != link.events:
        link.events = events
        link.watcher.watch(link.watcher.loop, &link.watch, events, EPOLL_CTL_MOD)


cdef void _write(link_t* link, int64_t now_ns) noexcept nogil:
    cdef conversation_t* talk = &link.talk
    cdef ssize_t n
    cdef int32_t code
    link.write_blocked = False
    while talk.n_sent < talk.n_output:
        if link.ssl != NULL:
            n = tls_write(
                link.ssl, talk.output + talk.n_sent, <int32_t> (talk.n_output - talk.n_sent)
            )
            if n == TLS_BLOCKED or n == TLS_BLOCKED_WRITE:
                # Blocked for reading: any event of the socket tries again.
                link.write_blocked = True
                break
            if n <= 0:
                _lose(link, CAUSE_SOCKET if n == TLS_CLOSED else CAUSE_TLS, 0, now_ns)
                return
        else:
            n = send(
                link.fd, talk.output + talk.n_sent, talk.n_output - talk.n_sent,
                MSG_NOSIGNAL | MSG_DONTWAIT,
            )
            code = errno
            if n < 0 and code == EINTR:
                continue
            if n < 0 and code == EAGAIN:
                link.write_blocked = True
                break
            if n < 0:
                _lose(link, CAUSE_SOCKET, code, now_ns)
                return
        talk.n_sent += <size_t> n
    _watch(link)


cdef void _greeted(link_t* link) noexcept nogil:
    link.state = LINK_READY
    link.n_tried = 0
    link.replies_before = link.talk.n_replies
    add(&link.n_connects, 1)


cdef void _read(link_t* link, int64_t now_ns) noexcept nogil:
    cdef ssize_t n
    cdef int32_t code
    while True:
        if link.ssl != NULL:
            n = tls_read(link.ssl, link.buffer, READ_BYTES)
            if n == TLS_BLOCKED or n == TLS_BLOCKED_WRITE:
                return
            if n <= 0:
                _lose(link, CAUSE_SOCKET if n == TLS_CLOSED else CAUSE_TLS, 0, now_ns)
                return
        else:
            n = recv(link.fd, link.buffer, READ_BYTES, MSG_DONTWAIT)
            code = errno
            if n < 0 and (code == EAGAIN or code == EINTR):
                return
            if n <= 0:
                _lose(link, CAUSE_SOCKET, code if n < 0 else 0, now_ns)
                return
        link.progress_ns = now_ns
        if conversation_feed(&link.talk, link.buffer, <size_t> n, now_ns) != 0:
            _lose(link, link.talk.cause, 0, now_ns)
            return
        if link.state == LINK_GREETING and conversation_ready(&link.talk):
            _greeted(link)
        if link.ssl == NULL and n < READ_BYTES:
            return               # an event tells of more


# ---------------------------------------------------------------- connecting


cdef void _greet(link_t* link, int64_t now_ns) noexcept nogil:
    link.state = LINK_GREETING
    if conversation_begin(&link.talk) != 0:
        _lose(link, CAUSE_MEMORY, 0, now_ns)
        return
    _write(link, now_ns)


cdef void _secure(link_t* link, int64_t now_ns) noexcept nogil:
    cdef int32_t done = tls_handshake(link.ssl)
    if done == TLS_DONE:
        _greet(link, now_ns)
    elif done == TLS_BLOCKED or done == TLS_BLOCKED_WRITE:
        link.write_blocked = done == TLS_BLOCKED_WRITE
        _watch(link)
    else:
        _lose(link, CAUSE_TLS, 0, now_ns)


cdef void _connected(link_t* link, int64_t now_ns) noexcept nogil:
    link.write_blocked = False
    if link.tls == NULL:
        _greet(link, now_ns)
        return
    link.state = LINK_SECURING
    link.ssl = tls_open(link.tls, link.tls_name, link.fd)
    if link.ssl == NULL:
        _lose(link, CAUSE_MEMORY, 0, now_ns)
    else:
        _secure(link, now_ns)


cdef void _connect(link_t* link, int64_t now_ns) noexcept nogil:
    cdef const address_t* address = &link.addresses[link.address]
    cdef int on = 1
    cdef int done
    cdef int32_t code
    link.state = LINK_CONNECTING
    link.deadline_ns = now_ns + link.connect_timeout_ns
    link.fd = socket(address.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if link.fd < 0:
        _lose(link, CAUSE_SOCKET, errno, now_ns)
        return
    if address.family != AF_UNIX:
        setsockopt(link.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        setsockopt(link.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on))
    done = connect(link.fd, <const sockaddr*> address.bytes, address.size)
    code = errno
    if done != 0 and code != EINPROGRESS:
        _lose(link, CAUSE_SOCKET, code, now_ns)
        return
    link.watch.fd = link.fd
    if link.watcher.watch(link.watcher.loop, &link.watch, EPOLLOUT, EPOLL_CTL_ADD) != 0:
        _lose(link, CAUSE_SOCKET, errno, now_ns)
        return
    link.events = EPOLLOUT
    link.write_blocked = True
    if done == 0:
        _connected(link, now_ns)


cdef void _on_ready(void* context, uint32_t events, int64_t now_ns) noexcept nogil:
    cdef link_t* link = <link_t*> context
    cdef int code = 0
    cdef socklen_t size = sizeof(code)
    if link.state == LINK_CONNECTING and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
        getsockopt(link.fd, SOL_SOCKET, SO_ERROR, &code, &size)
        if code != 0:
            _lose(link, CAUSE_SOCKET, code, now_ns)
        else:
            _connected(link, now_ns)
    elif link.state == LINK_SECURING:
        _secure(link, now_ns)
    elif link.state >= LINK_GREETING:
        _read(link, now_ns)
        if link.state >= LINK_GREETING and link.write_blocked:
            _write(link, now_ns)


# ---------------------------------------------------------------- the link


cdef void link_init(link_t* link) noexcept nogil:
    link.state = LINK_OFF
    link.fd = -1
    link.watch.fd = -1
    link.watch.context = link
    link.watch.on_ready = _on_ready
    link.last_cause = -1
    conversation_init(&link.talk)


cdef void link_clear(link_t* link) noexcept nogil:
    link.state = LINK_OFF
    tls_close(link.ssl)
    link.ssl = NULL
    if link.fd >= 0:
        close(link.fd)
        link.fd = -1
    conversation_clear(&link.talk)


cdef void link_attach(link_t* link, const watcher_t* watcher, int64_t now_ns) noexcept nogil:
    link.watcher = watcher
    link.state = LINK_DOWN
    link.n_tried = 0
    link.backoff_ns = 0
    link.retry_ns = now_ns
    link_flush(link, now_ns)


cdef void link_detach(link_t* link, int64_t now_ns) noexcept nogil:
    link.state = LINK_OFF
    _close(link)
    conversation_end(&link.talk, now_ns)


cdef int64_t link_ask(
    link_t* link, const uint8_t* key, size_t n_key, void* token
) noexcept nogil:
    if link.state != LINK_READY:
        return -1
    if conversation_owed(&link.talk) == 0:
        link.is_first = True     # the server's time begins when it is sent
    return conversation_ask(&link.talk, key, n_key, token)


cdef void link_flush(link_t* link, int64_t now_ns) noexcept nogil:
    if link.state == LINK_READY:
        if link.is_first:
            link.is_first = False
            link.progress_ns = now_ns
        if (conversation_owed(&link.talk) > 0
                and now_ns - link.progress_ns >= link.stall_ns):
            _lose(link, CAUSE_TIMEOUT, 0, now_ns)
        elif link.talk.n_sent < link.talk.n_output and not link.write_blocked:
            _write(link, now_ns)
    elif link.state == LINK_DOWN:
        if now_ns >= link.retry_ns:
            _connect(link, now_ns)
    elif link.state != LINK_OFF and now_ns >= link.deadline_ns:
        _lose(link, CAUSE_TIMEOUT, 0, now_ns)


cdef int64_t link_wake_ns(link_t* link) noexcept nogil:
    if link.state == LINK_READY:
        if conversation_owed(&link.talk) == 0:
            return INT64_MAX
        if link.talk.n_sent < link.talk.n_output and not link.write_blocked:
            return 0             # asked after the flush
        return link.progress_ns + link.stall_ns
    if link.state == LINK_DOWN:
        return link.retry_ns
    return INT64_MAX if link.state == LINK_OFF else link.deadline_ns
