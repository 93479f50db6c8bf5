"""One server connection without a socket or a clock: bytes in, bytes out.

Rules: the same code as behind a socket (`http2`), driven from Python. Time stands still until it is
told to move, so that deadlines, credits and drains can be tried exactly. There are no sockets for a
service to watch: its watcher refuses. Not for serving.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memset

from fastpath._types cimport N_STATUSES, socket_watch_t, watcher_t
from fastpath.http2 cimport (
    GATHER_ROOM_BYTES,
    connection_close,
    connection_drain,
    connection_finished,
    connection_gather,
    connection_open,
    connection_receive,
    connection_t,
    connection_tick,
    counters_t,
    host_clear,
    host_init,
    host_t,
)
from fastpath.pool cimport pool_clear, pool_init, pool_t
from fastpath.service cimport Service

cdef enum:
    BUFFER_BYTES = 65536 + GATHER_ROOM_BYTES
    MAX_LAST_ITERATIONS = 100_000


cdef int32_t refuse_socket(
    void* loop, socket_watch_t* socket, uint32_t events, int32_t operation
) noexcept nogil:
    return -1


cdef class ServerSession:
    """The server's side of one HTTP/2 connection.

    Parameters
    ----------
    service : Service
        Answers the calls.
    max_message_bytes, max_streams, max_header_bytes, max_held_bytes : int
        As in ``fastpath.loop.LoopGroup``.

    Raises
    ------
    MemoryError
        There is no memory for a session.
    """

    cdef host_t host
    cdef pool_t pool
    cdef counters_t counters
    cdef connection_t* connection
    cdef Service service
    cdef watcher_t watcher
    cdef uint8_t[BUFFER_BYTES] buffer

    def __cinit__(
        self, Service service not None, *, max_message_bytes=4 << 20, max_streams=1024,
        max_header_bytes=16 << 10, max_held_bytes=16 << 20,
    ) -> None:
        if service.table.on_call == NULL:
            raise ValueError("a bare Service serves nothing: give an object of a subclass")
        self.service = service
        memset(&self.host, 0, sizeof(self.host))
        memset(&self.counters, 0, sizeof(self.counters))
        pool_init(&self.pool)
        self.host.pool = &self.pool
        self.host.counters = &self.counters
        self.host.service = service.table
        self.host.max_streams = max_streams
        self.host.limits.max_message_bytes = max_message_bytes
        self.host.limits.max_header_bytes = max_header_bytes
        self.host.limits.max_held_bytes = max_held_bytes
        self.host.limits.max_loop_held_bytes = 16 * <size_t> max_held_bytes
        self.host.now_ns = 1
        if host_init(&self.host) != 0:
            raise MemoryError
        self.connection = connection_open(&self.host, NULL)
        if self.connection == NULL:
            raise MemoryError
        self.watcher.loop = NULL
        self.watcher.watch = refuse_socket
        if self.host.service.attach != NULL:
            self.host.service.attach(self.host.service.context, &self.watcher, self.host.now_ns)

    def __dealloc__(self) -> None:
        if self.connection != NULL:
            connection_close(self.connection)
            self.let_go()
            if self.host.service.detach != NULL:
                self.host.service.detach(self.host.service.context)
        host_clear(&self.host)
        pool_clear(&self.pool)

    cdef void iterate(self) noexcept nogil:
        self.host.service.enter(self.host.service.context)
        self.host.service.flush(self.host.service.context, self.host.now_ns)
        self.host.service.leave(self.host.service.context)

    cdef void let_go(self) noexcept nogil:
        # The service's calls are cancelled; time runs until it has completed them.
        cdef int32_t n = 0
        cdef int64_t wake_ns
        while self.host.n_in_service > 0 and n < MAX_LAST_ITERATIONS:
            self.iterate()
            n += 1
            if self.host.service.wake_ns != NULL:
                wake_ns = self.host.service.wake_ns(self.host.service.context)
                if wake_ns == INT64_MAX:
                    return
                self.host.now_ns = max(self.host.now_ns, wake_ns)

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer, as one iteration of a loop does.

        Parameters
        ----------
        data : bytes
            Any part of the stream. What follows the end of the connection is ignored.
        """
        cdef const uint8_t* start = data
        self.host.service.enter(self.host.service.context)
        connection_receive(self.connection, start, len(data))
        self.host.service.flush(self.host.service.context, self.host.now_ns)
        self.host.service.leave(self.host.service.context)

    def send(self) -> bytes:
        """Give everything that is to be written now.

        Returns
        -------
        bytes
            Whole frames.
        """
        cdef int32_t more = 1
        cdef size_t n
        parts = []
        while more:
            n = connection_gather(self.connection, self.buffer, BUFFER_BYTES, &more)
            parts.append((<const uint8_t*> self.buffer)[:n])
        return b"".join(parts)

    def advance(self, seconds: float) -> None:
        """Let time pass, and the connection and the service notice it.

        Parameters
        ----------
        seconds : float
            Not negative.
        """
        cdef int64_t elapsed_ns = <int64_t> (<double> seconds * 1e9)
        if elapsed_ns < 0 or elapsed_ns > INT64_MAX - self.host.now_ns:
            raise ValueError(f"time does not move by {seconds} seconds here")
        self.host.now_ns += elapsed_ns
        connection_tick(self.connection, elapsed_ns)
        self.iterate()

    def drain(self) -> None:
        """Begin to end the connection without losing a call."""
        connection_drain(self.connection)

    @property
    def finished(self) -> bool:
        """Whether nothing will be read or written any more, once `send` was sent."""
        return connection_finished(self.connection) != 0

    @property
    def n_in_service(self) -> int:
        """Calls that the service holds."""
        return self.host.n_in_service

    @property
    def held_bytes(self) -> int:
        """Heap bytes held for unfinished requests and unread answers."""
        return self.connection.held.n_bytes

    @property
    def n_blocks(self) -> int:
        """Blocks of the pool in use: flat over calls, or something leaks."""
        return self.pool.n_used

    @property
    def statuses(self) -> list[int]:
        """Answers so far by gRPC status, 0 to 16."""
        return [self.counters.statuses[i] for i in range(<int> N_STATUSES)]
