"""The life of a loop thread: epoll, accept, read, serve, write.

Rules: a loop owns its epoll, its connections, its pool and its counters; others reach it only
by atomics, by two mutexed mailboxes (accepted sockets, handed-over calls) and by its eventfd.
Steady state takes no lock and allocates nothing.

How it works: one iteration reads every ready socket once, feeds HTTP/2 (whole messages go to
the service), serves handed-over calls, flushes the service (the batch is whatever became ready),
and writes every connection that has something to say: frames gathered in one buffer, one send.
What the kernel does not take is kept, EPOLLOUT is awaited, nothing more is gathered for that
connection, and past a high-water mark it is not read either. Loop 0 accepts, and gives each
connection to the loop with the fewest. With `spin_ns` an idle loop polls that long before it
blocks.

A service may keep calls: its own sockets (`watcher_t`) are dispatched among the iteration's events,
and the loop blocks no longer than until the time that the service names (`wake_ns`), at which an
iteration runs although nothing arrived. A service that keeps calls and names no time is polled.

At the end every connection is closed, which cancels its calls; the service gets iterations at its
own pace until it holds none, for five seconds at most.

A connection that we end is shut down for writing and read until its end, for a second at most:
closing with unread bytes would make the kernel drop the GOAWAY that says why.

The time from the end of a wait to the next one is what a loop is busy; polling (`spin_ns`) is
waiting. It is counted with every wait, and beside it as an iteration's length where one ran.

What it does not do: timers of connections finer than its tick (a second; a tenth while draining or
lingering). A tick goes round the connections a few at a time, between the loop's other work.
"""

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset
from posix.time cimport timespec
from posix.unistd cimport close

from fastpath._types cimport socket_watch_t
from fastpath.c.linux cimport *
from fastpath.handover cimport (
    queue_abandon,
    queue_cancel,
    queue_clear,
    queue_close,
    queue_init,
    queue_serve,
)
from fastpath.http2 cimport (
    connection_close,
    connection_drain,
    connection_finished,
    connection_gather,
    connection_open,
    connection_receive,
    connection_t,
    connection_tick,
    doom,
    host_clear,
    host_init,
    mark_dirty,
)
from fastpath.poller cimport poller_clear, poller_init, poller_wait, poller_watch
from fastpath.pool cimport pool_allocate, pool_clear, pool_free, pool_init, pool_shrink
from fastpath.timings cimport observe_timing

cdef enum:
    ACCEPTS_PER_EVENT = 64
    HIGH_WATER_BYTES = 65536
    N_REFUSAL_BYTES = 46
    SHRINKS_PER_TICK = 2048      # cold blocks given back: 100 to 200 microseconds
    TICKS_WHEN_BUSY = 4          # connections whose time is looked at between two waits
    TICKS_WHEN_IDLE = 16

cdef int64_t TICK_NS = 1_000_000_000
cdef int64_t SHORT_TICK_NS = 100_000_000
cdef int64_t LINGER_NS = 1_000_000_000
cdef int64_t HANDSHAKE_NS = 10_000_000_000
cdef int64_t STALLED_NS = 60_000_000_000
cdef int64_t ABANDON_NS = 5_000_000_000

# Empty SETTINGS, then GOAWAY ENHANCE_YOUR_CALM with a reason of 20 bytes.
cdef const char* REFUSAL = (
    "\0\0\0\4\0\0\0\0\0" "\0\0\x1c\7\0\0\0\0\0" "\0\0\0\0" "\0\0\0\x0b" "too_many_connections"
)


cdef int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1_000_000_000 + now.tv_nsec


# ---------------------------------------------------------------- sockets


cdef int32_t watch(loop_t* loop, int fd, void* what, uint32_t events, int operation) noexcept nogil:
    return poller_watch(&loop.poller, fd, what, events, operation)


cdef int32_t watch_socket(
    void* loop, socket_watch_t* socket, uint32_t events, int32_t operation
) noexcept nogil:
    # watcher_t.watch: a service's own socket.
    socket.watched = WATCHED_SERVICE
    return watch(<loop_t*> loop, socket.fd, socket, events, operation)


cdef void update_events(loop_t* loop, peer_t* peer) noexcept nogil:
    cdef uint32_t events = 0
    if peer.n_pending < HIGH_WATER_BYTES:
        events |= EPOLLIN
    if peer.n_pending > 0:
        events |= EPOLLOUT
    if events != peer.events:
        peer.events = events
        watch(loop, peer.fd, peer, events, EPOLL_CTL_MOD)


cdef void free_peer(loop_t* loop, peer_t* peer) noexcept nogil:
    if peer.connection != NULL:
        connection_close(peer.connection)
    else:
        loop.n_lingering -= 1
    close(peer.fd)
    if peer.previous != NULL:
        peer.previous.next = peer.next
    else:
        loop.peers = peer.next
    if peer.next != NULL:
        peer.next.previous = peer.previous
    if loop.to_tick == peer:
        loop.to_tick = peer.next
    pool_free(&loop.pool, peer.pending)
    pool_free(&loop.pool, peer)
    loop.counters.closed += 1
    atomic_add(&loop.n_open, -1, ATOMIC_RELAXED)


cdef void end_peer(loop_t* loop, peer_t* peer) noexcept nogil:
    # Everything is written: say so, and read until the other side has understood.
    if not peer.has_spoken:
        free_peer(loop, peer)
        return
    connection_close(peer.connection)
    peer.connection = NULL
    loop.n_lingering += 1
    peer.progress_ns = loop.host.now_ns
    if shutdown(peer.fd, SHUT_WR) != 0:
        free_peer(loop, peer)


cdef void adopt(loop_t* loop, int fd, int32_t is_tcp) noexcept nogil:
    cdef int on = 1
    cdef peer_t* peer = <peer_t*> pool_allocate(&loop.pool, sizeof(peer_t))
    loop.counters.accepted += 1
    if peer != NULL:
        memset(peer, 0, sizeof(peer_t))
        peer.connection = connection_open(&loop.host, peer)
    if peer == NULL or peer.connection == NULL:
        pool_free(&loop.pool, peer)
        close(fd)
        loop.counters.closed += 1
        atomic_add(&loop.n_open, -1, ATOMIC_RELAXED)
        return
    if is_tcp:
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on))
    peer.watched = WATCHED_PEER
    peer.fd = fd
    peer.opened_ns = loop.host.now_ns
    peer.ticked_ns = loop.host.now_ns
    peer.events = EPOLLIN
    peer.next = loop.peers
    if peer.next != NULL:
        peer.next.previous = peer
    loop.peers = peer
    if watch(loop, fd, peer, EPOLLIN, EPOLL_CTL_ADD) != 0:
        free_peer(loop, peer)
    elif atomic_load(&loop.state, ATOMIC_RELAXED) != LOOP_RUNNING:
        connection_drain(peer.connection)


cdef void assign(loop_t* loop, int fd, int32_t is_tcp) noexcept nogil:
    # To the loop with the fewest connections; none at all when there are too many.
    cdef int64_t n_total = 0
    cdef int64_t n
    cdef int64_t fewest = -1
    cdef int32_t i
    cdef loop_t* chosen = loop
    for i in range(loop.n_loops):
        n = atomic_load(&loop.loops[i].n_open, ATOMIC_RELAXED)
        n_total += n
        if fewest < 0 or n < fewest:
            fewest = n
            chosen = loop.loops[i]
    if n_total >= loop.max_connections:
        send(fd, REFUSAL, N_REFUSAL_BYTES, MSG_NOSIGNAL | MSG_DONTWAIT)
        shutdown(fd, SHUT_WR)
        close(fd)
        loop.counters.refused += 1
        return
    if chosen == loop:
        atomic_add(&loop.n_open, 1, ATOMIC_RELAXED)
        adopt(loop, fd, is_tcp)
        return
    pthread_mutex_lock(&chosen.mailbox_mutex)
    if chosen.n_mail < MAILBOX:
        chosen.mail[chosen.n_mail] = fd if is_tcp else ~fd
        chosen.n_mail += 1
        atomic_add(&chosen.n_open, 1, ATOMIC_RELAXED)
        fd = -1
    pthread_mutex_unlock(&chosen.mailbox_mutex)
    if fd >= 0:
        close(fd)
        loop.counters.refused += 1
    loop_wake(chosen)


cdef void accept_some(loop_t* loop, listener_t* listener) noexcept nogil:
    cdef int32_t _i
    cdef int fd
    for _i in range(ACCEPTS_PER_EVENT):
        fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd >= 0:
            assign(loop, fd, listener.is_tcp)
        elif errno == EINTR or errno == ECONNABORTED:
            continue
        else:
            if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                # Let connections end first; the tick looks again.
                listener.is_watched = 0
                watch(loop, listener.fd, listener, 0, EPOLL_CTL_MOD)
            elif errno == EINVAL:
                # Shut down by the group, which has more to do before it tells us to drain.
                watch(loop, listener.fd, listener, 0, EPOLL_CTL_DEL)
            return


cdef void open_mail(loop_t* loop) noexcept nogil:
    cdef int[MAILBOX] mail
    cdef int32_t n
    cdef int32_t i
    pthread_mutex_lock(&loop.mailbox_mutex)
    n = loop.n_mail
    memcpy(mail, loop.mail, n * sizeof(int))
    loop.n_mail = 0
    pthread_mutex_unlock(&loop.mailbox_mutex)
    for i in range(n):
        adopt(loop, mail[i] if mail[i] >= 0 else ~mail[i], mail[i] >= 0)


# ---------------------------------------------------------------- reading and writing


cdef int32_t is_gone(ssize_t n) noexcept nogil:
    return n == 0 or (n < 0 and errno != EAGAIN and errno != EINTR)


cdef void read_peer(loop_t* loop, peer_t* peer) noexcept nogil:
    cdef ssize_t n = recv(peer.fd, loop.read_buffer, READ_BYTES, MSG_DONTWAIT)
    if n > 0:
        loop.counters.bytes_in += n
        if peer.connection != NULL:
            connection_receive(peer.connection, loop.read_buffer, <size_t> n)
    elif is_gone(n):
        free_peer(loop, peer)


cdef int32_t write_pending(loop_t* loop, peer_t* peer) noexcept nogil:
    # Returns -1 when the peer is gone, and was freed.
    cdef ssize_t n = send(
        peer.fd, peer.pending + peer.pending_sent, peer.n_pending, MSG_NOSIGNAL | MSG_DONTWAIT
    )
    if n < 0:
        if is_gone(n):
            free_peer(loop, peer)
            return -1
        return 0
    loop.counters.bytes_out += n
    peer.progress_ns = loop.host.now_ns
    peer.pending_sent += <size_t> n
    peer.n_pending -= <size_t> n
    if peer.n_pending == 0:
        pool_free(&loop.pool, peer.pending)
        peer.pending = NULL
        if peer.connection != NULL:
            mark_dirty(peer.connection)
    update_events(loop, peer)
    return 0


cdef void write_peer(loop_t* loop, peer_t* peer) noexcept nogil:
    cdef connection_t* connection = peer.connection
    cdef size_t n_ready
    cdef ssize_t n = 0
    cdef int32_t more
    if peer.n_pending > 0:
        return                   # gathered again when the kernel has taken it
    n_ready = connection_gather(connection, loop.write_buffer, WRITE_BYTES, &more)
    if n_ready > 0:
        n = send(peer.fd, loop.write_buffer, n_ready, MSG_NOSIGNAL | MSG_DONTWAIT)
        if n < 0:
            if is_gone(n):
                free_peer(loop, peer)
                return
            n = 0
        loop.counters.bytes_out += n
        peer.has_spoken = 1
    if <size_t> n < n_ready:
        peer.n_pending = n_ready - <size_t> n
        peer.pending_sent = 0
        peer.progress_ns = loop.host.now_ns
        peer.pending = <uint8_t*> pool_allocate(&loop.pool, peer.n_pending)
        if peer.pending == NULL:
            free_peer(loop, peer)
            return
        memcpy(peer.pending, loop.write_buffer + n, peer.n_pending)
        update_events(loop, peer)
    elif more:
        mark_dirty(connection)
    elif connection_finished(connection):
        end_peer(loop, peer)


cdef void write_all(loop_t* loop) noexcept nogil:
    # Connections that still have frames left mark themselves again, for the next iteration.
    cdef connection_t* connection = loop.host.dirty
    cdef connection_t* next
    loop.host.dirty = NULL
    while connection != NULL:
        next = connection.next_dirty
        connection.is_dirty = 0
        write_peer(loop, <peer_t*> connection.peer)
        connection = next


# ---------------------------------------------------------------- time and state


cdef void tick(loop_t* loop) noexcept nogil:
    # Begins a round over all connections, unless the last one is still under way.
    cdef int32_t i
    loop.last_tick_ns = loop.host.now_ns
    pool_shrink(&loop.pool, SHRINKS_PER_TICK)
    if loop.to_tick == NULL:
        loop.to_tick = loop.peers
    for i in range(loop.n_listeners):
        if not loop.listeners[i].is_watched:
            loop.listeners[i].is_watched = 1
            watch(loop, loop.listeners[i].fd, &loop.listeners[i], EPOLLIN, EPOLL_CTL_MOD)


cdef void tick_some(loop_t* loop, int32_t n_peers) noexcept nogil:
    # A few of the round: an idle connection's state is cold, about a microsecond each, and
    # thousands of them in one go would be a stall of milliseconds every second.
    cdef int64_t now_ns = loop.host.now_ns
    cdef int64_t elapsed_ns
    cdef peer_t* peer
    while loop.to_tick != NULL and n_peers > 0:
        peer = loop.to_tick
        loop.to_tick = peer.next
        n_peers -= 1
        elapsed_ns = now_ns - peer.ticked_ns
        peer.ticked_ns = now_ns
        if peer.connection == NULL:
            if now_ns - peer.progress_ns > LINGER_NS:
                free_peer(loop, peer)
        elif peer.n_pending > 0 and now_ns - peer.progress_ns > STALLED_NS:
            free_peer(loop, peer)
        else:
            connection_tick(peer.connection, elapsed_ns)
            if not peer.connection.ready and now_ns - peer.opened_ns > HANDSHAKE_NS:
                doom(peer.connection)


cdef void start_drain(loop_t* loop) noexcept nogil:
    cdef peer_t* peer = loop.peers
    stop_accepting(loop)
    while peer != NULL:
        if peer.connection != NULL:
            connection_drain(peer.connection)
        peer = peer.next


cdef void count_time(loop_t* loop) noexcept nogil:
    cdef int64_t spent_ns = loop.host.now_ns - loop.woke_ns
    atomic_store(&loop.busy_ns, loop.busy_ns + spent_ns, ATOMIC_RELAXED)
    if loop.has_iterated:
        loop.has_iterated = 0
        observe_timing(&loop.iterations, spent_ns, 1)


cdef int32_t wait(loop_t* loop, int64_t until_ns) noexcept nogil:
    # Ready events. Blocks until until_ns or the service's own time, when there is nothing to do
    # and spinning has found nothing.
    cdef int64_t since_ns
    cdef int n = 0
    # Also for what follows: a tick may be late by an iteration, a service's timer not.
    loop.host.now_ns = monotonic_ns()
    count_time(loop)
    if loop.host.service.wake_ns != NULL:
        loop.wake_ns = max(<int64_t> 0, loop.host.service.wake_ns(loop.host.service.context))
    else:
        # Names no time for what it holds: asked again at once.
        loop.wake_ns = 0 if loop.host.n_in_service > 0 else INT64_MAX
    until_ns = min(until_ns, loop.wake_ns)
    if loop.host.dirty != NULL or loop.to_tick != NULL:
        until_ns = 0
    elif loop.spin_ns > 0:
        since_ns = loop.host.now_ns
        while n == 0 and loop.host.now_ns - since_ns < loop.spin_ns and (
            loop.host.now_ns < until_ns
        ):
            n = poller_wait(&loop.poller, 0)
            loop.host.now_ns = monotonic_ns()
    if n == 0:
        n = poller_wait(&loop.poller, until_ns - loop.host.now_ns)
        loop.host.now_ns = monotonic_ns()
    loop.woke_ns = loop.host.now_ns
    return n


cdef void handle(loop_t* loop, epoll_event* event) noexcept nogil:
    cdef uint64_t ignored
    cdef peer_t* peer
    cdef socket_watch_t* socket
    cdef int32_t watched
    if event.data.ptr == NULL:
        return                   # no longer watched since the wait
    watched = (<int32_t*> event.data.ptr)[0]
    if watched == WATCHED_PEER:
        peer = <peer_t*> event.data.ptr
        if event.events & EPOLLOUT and peer.n_pending > 0:
            if write_pending(loop, peer) != 0:
                return
        if event.events & (EPOLLIN | EPOLLERR | EPOLLHUP):
            read_peer(loop, peer)
    elif watched == WATCHED_SERVICE:
        socket = <socket_watch_t*> event.data.ptr
        socket.on_ready(socket.context, event.events, loop.host.now_ns)
    elif watched == WATCHED_WAKE:
        eventfd_read(loop.wake_fd, &ignored)
        # Before the mailboxes are looked at: a push after that look finds the flag clear, and
        # writes again.
        atomic_exchange(&loop.wake_pending, 0, ATOMIC_ACQ_REL)
        open_mail(loop)
        queue_serve(
            &loop.queue, &loop.host.service, &loop.counters, &loop.host.n_in_service,
            loop.host.now_ns
        )
    else:
        accept_some(loop, <listener_t*> event.data.ptr)


cdef void iterate(loop_t* loop, int32_t n) noexcept nogil:
    # With the n events of the last wait.
    cdef int32_t i
    loop.counters.iterations += 1
    loop.has_iterated = 1
    loop.host.service.enter(loop.host.service.context)
    for i in range(n):
        handle(loop, &loop.poller.events[i])
    # Anew: a deadline may have passed while the iteration's messages were read.
    loop.host.now_ns = monotonic_ns()
    loop.host.service.flush(loop.host.service.context, loop.host.now_ns)
    loop.host.service.leave(loop.host.service.context)
    write_all(loop)


cdef void stop_accepting(loop_t* loop) noexcept nogil:
    cdef int32_t i
    for i in range(loop.n_listeners):
        watch(loop, loop.listeners[i].fd, &loop.listeners[i], 0, EPOLL_CTL_DEL)
    loop.n_listeners = 0


cdef void finish(loop_t* loop) noexcept nogil:
    # Ends every connection; then lets the service complete what it holds, now cancelled.
    cdef int64_t give_up_ns = monotonic_ns() + ABANDON_NS
    cdef int32_t n = 0
    stop_accepting(loop)
    queue_close(&loop.queue)
    queue_cancel(&loop.queue)
    open_mail(loop)
    while loop.peers != NULL:
        free_peer(loop, loop.peers)
    loop.host.now_ns = monotonic_ns()
    while loop.host.n_in_service > 0 and loop.host.now_ns < give_up_ns:
        # At once: the service learns what was cancelled. Then at its own pace.
        iterate(loop, n)
        while loop.peers != NULL:
            free_peer(loop, loop.peers)  # came by mail
        if loop.host.n_in_service > 0:
            n = wait(loop, min(give_up_ns, loop.host.now_ns + SHORT_TICK_NS))
    queue_abandon(&loop.queue)


cdef void loop_run(loop_t* loop) noexcept nogil:
    cdef sigset_t every
    cdef char[16] name
    cdef int64_t state
    cdef int64_t tick_ns
    cdef int32_t is_draining = 0
    cdef int32_t n
    # Signals are the main thread's, which may have to be woken by them.
    sigfillset(&every)
    pthread_sigmask(SIG_SETMASK, &every, NULL)
    # The kernel keeps 15 characters.
    snprintf(
        name, sizeof(name), "scoregate-loop%d" if loop.index < 10 else "scoregate-lp%d", loop.index
    )
    pthread_setname_np(pthread_self(), name)
    loop.host.now_ns = monotonic_ns()
    loop.last_tick_ns = loop.host.now_ns
    loop.woke_ns = loop.host.now_ns
    if loop.host.service.attach != NULL:
        loop.host.service.attach(loop.host.service.context, &loop.watcher, loop.host.now_ns)
    while True:
        state = atomic_load(&loop.state, ATOMIC_ACQUIRE)
        if state == LOOP_STOPPING:
            break
        if state == LOOP_DRAINING:
            if not is_draining:
                is_draining = 1
                start_drain(loop)
            if loop.peers == NULL and atomic_load(&loop.n_open, ATOMIC_ACQUIRE) == 0:
                if loop.host.n_in_service == 0:
                    break
        tick_ns = SHORT_TICK_NS if is_draining or loop.n_lingering > 0 else TICK_NS
        n = wait(loop, loop.last_tick_ns + tick_ns)
        if n > 0 or loop.host.dirty != NULL or loop.host.now_ns >= loop.wake_ns:
            iterate(loop, n)
        if loop.host.now_ns - loop.last_tick_ns >= tick_ns:
            tick(loop)
        if loop.to_tick != NULL:
            tick_some(loop, TICKS_WHEN_BUSY if n > 0 else TICKS_WHEN_IDLE)
    finish(loop)
    if loop.host.service.detach != NULL:
        loop.host.service.detach(loop.host.service.context)


# ---------------------------------------------------------------- for the group


cdef int32_t loop_init(loop_t* loop) noexcept nogil:
    loop.poller.epoll_fd = -1
    loop.wake_fd = -1
    loop.watcher.loop = loop
    loop.watcher.watch = watch_socket
    pool_init(&loop.pool)
    loop.host.pool = &loop.pool
    loop.host.counters = &loop.counters
    pthread_mutex_init(&loop.mailbox_mutex, NULL)
    queue_init(&loop.queue)
    if host_init(&loop.host) != 0:
        return -1
    loop.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if poller_init(&loop.poller) != 0 or loop.wake_fd < 0:
        return -1
    loop.wake_watched = WATCHED_WAKE
    return watch(loop, loop.wake_fd, &loop.wake_watched, EPOLLIN, EPOLL_CTL_ADD)


cdef void loop_discard_mail(loop_t* loop) noexcept nogil:
    cdef int32_t i
    for i in range(loop.n_mail):
        close(loop.mail[i] if loop.mail[i] >= 0 else ~loop.mail[i])
        atomic_add(&loop.n_open, -1, ATOMIC_RELAXED)
    loop.n_mail = 0


cdef void loop_clear(loop_t* loop) noexcept nogil:
    queue_clear(&loop.queue)
    pthread_mutex_destroy(&loop.mailbox_mutex)
    poller_clear(&loop.poller)
    if loop.wake_fd >= 0:
        close(loop.wake_fd)
    host_clear(&loop.host)
    pool_clear(&loop.pool)


cdef void loop_wake(loop_t* loop) noexcept nogil:
    if atomic_exchange(&loop.wake_pending, 1, ATOMIC_ACQ_REL) == 0:
        eventfd_write(loop.wake_fd, 1)


cdef int32_t loop_listen(loop_t* loop, int fd, int32_t is_tcp) noexcept nogil:
    cdef listener_t* listener
    if loop.n_listeners == MAX_LISTENERS:
        return -1
    listener = &loop.listeners[loop.n_listeners]
    listener.watched = WATCHED_LISTENER
    listener.fd = fd
    listener.is_tcp = is_tcp
    listener.is_watched = 1
    loop.n_listeners += 1
    return watch(loop, fd, listener, EPOLLIN, EPOLL_CTL_ADD)
