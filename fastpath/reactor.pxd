from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from fastpath._types cimport watcher_t
from fastpath.c.linux cimport pthread_mutex_t
from fastpath.handover cimport queue_t
from fastpath.http2 cimport GATHER_ROOM_BYTES, connection_t, counters_t, host_t
from fastpath.poller cimport poller_t
from fastpath.pool cimport pool_t
from fastpath.timings cimport timing_t

cdef enum:
    READ_BYTES = 65536           # per connection and iteration, so that none starves the others
    WRITE_BYTES = 262144 + GATHER_ROOM_BYTES
    MAILBOX = 1024               # accepted sockets on their way to another loop
    MAX_LISTENERS = 16

cdef enum loop_state_t:
    LOOP_RUNNING = 0
    LOOP_DRAINING = 1
    LOOP_STOPPING = 2

# What an epoll event points to; the first field of each of them.
cdef enum watched_t:
    WATCHED_WAKE = 0
    WATCHED_LISTENER = 1
    WATCHED_PEER = 2
    WATCHED_SERVICE = 3          # a socket_watch_t, the service's own


ctypedef struct listener_t:
    int32_t watched
    int fd                       # the LoopGroup's; closed after the loops have joined
    int32_t is_tcp
    int32_t is_watched


# One socket.
ctypedef struct peer_t:
    int32_t watched
    int fd
    connection_t* connection     # NULL: lingering until the other side closes
    peer_t* next
    peer_t* previous
    uint32_t events              # what epoll watches
    uint8_t* pending             # gathered but not accepted by the kernel
    size_t n_pending
    size_t pending_sent
    int32_t has_spoken           # the kernel took bytes of ours
    int64_t opened_ns
    int64_t progress_ns          # the kernel last took pending bytes, or the linger began
    int64_t ticked_ns            # when its time was last looked at


ctypedef struct loop_t:
    int32_t index
    int32_t n_loops
    loop_t** loops               # of the group; the group owns the array
    host_t host
    pool_t pool
    counters_t counters
    int64_t state                # atomic; loop_state_t
    int64_t n_open               # atomic; connections assigned to this loop
    int64_t wake_pending         # atomic; the eventfd was written and not yet read
    int64_t max_connections      # of the group
    int64_t spin_ns
    poller_t poller
    watcher_t watcher            # what the service watches its sockets with
    int64_t wake_ns              # when the service wants an iteration; asked at the last wait
    int wake_fd
    int32_t wake_watched
    int32_t n_listeners          # loop 0
    listener_t[MAX_LISTENERS] listeners
    pthread_mutex_t mailbox_mutex
    int32_t n_mail
    int[MAILBOX] mail            # file descriptor, or ~descriptor for a Unix socket
    queue_t queue
    peer_t* peers
    peer_t* to_tick              # next to look at in the round under way; NULL: none is
    int32_t n_lingering
    int64_t last_tick_ns
    int64_t woke_ns              # when the last wait ended
    int32_t has_iterated         # since then
    int64_t busy_ns              # counter: from a wait's end to the next one's beginning
    timing_t iterations          # those times, where something was to be done
    uint8_t[READ_BYTES] read_buffer
    uint8_t[WRITE_BYTES] write_buffer


cdef int64_t monotonic_ns() noexcept nogil
# Opens epoll and eventfd. Returns 0, or -1. Zeroed memory on entry; host.limits,
# host.service, max_streams, max_connections, spin_ns, index, n_loops and loops already filled.
cdef int32_t loop_init(loop_t* loop) noexcept nogil
# After the thread has joined.
cdef void loop_clear(loop_t* loop) noexcept nogil
# Any thread.
cdef void loop_wake(loop_t* loop) noexcept nogil
# Closes accepted sockets that reached a loop after its end. After every thread has joined.
cdef void loop_discard_mail(loop_t* loop) noexcept nogil
# Loop 0, any thread, before LOOP_DRAINING. Returns 0, or -1.
cdef int32_t loop_listen(loop_t* loop, int fd, int32_t is_tcp) noexcept nogil
# The life of a loop thread: returns when it is drained or stopped.
cdef void loop_run(loop_t* loop) noexcept nogil
