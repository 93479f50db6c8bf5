"""The group of loop threads that serves the fast door: what the control plane holds.

Rules: one service object per loop. The order of a life is construct, `listen`, `start`, `drain` or
`stop`; a group that ended does not start again. Loop threads are Python threads that run one
function without the GIL and with every signal blocked; the main thread never runs a loop.

How it works: listening sockets are opened here and watched by loop 0 (see `reactor`); calls from
Python go through `handover`. Counters are read while the loops write them: aligned 64-bit words,
each exact, not one instant's picture. What connections leave behind goes back to the system
within seconds (`pool`, `trimmer`).
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport INT64_MAX, int32_t, int64_t
from libc.stdlib cimport calloc, free

from fastpath._types cimport (
    MAX_LOOPS,
    N_STATUSES,
    STATUS_DEADLINE_EXCEEDED,
    STATUS_OK,
    STATUS_RESOURCE_EXHAUSTED,
    STATUS_UNAVAILABLE,
)
from fastpath.c.linux cimport (
    ATOMIC_RELAXED,
    ATOMIC_RELEASE,
    atomic_load,
    atomic_store,
)
from fastpath.handover cimport (
    handover_new,
    handover_release,
    handover_t,
    handover_wait,
    queue_push,
)
from fastpath.reactor cimport (
    LOOP_DRAINING,
    LOOP_STOPPING,
    loop_clear,
    loop_discard_mail,
    loop_init,
    loop_listen,
    loop_run,
    loop_t,
    loop_wake,
    monotonic_ns,
)
from fastpath.service cimport Service
from fastpath.timings cimport read_timing

import os
import socket
import threading
import time
from pathlib import Path

from fastpath.errors import LoopError
from fastpath.listener import open_tcp, open_unix
from fastpath.trimmer import Trimmer

cdef int64_t SIGNAL_CHECK_NS = 100_000_000
# A year: beyond it a time-out is none, and the arithmetic cannot overflow.
cdef double MAX_TIMEOUT_S = 31_536_000.0


cdef class LoopGroup:
    """Loop threads that serve gRPC over HTTP/2 on shared listeners.

    Parameters
    ----------
    services : sequence of Service
        One per loop thread, 1 to 64. An object without state may be given several times.
    max_message_bytes : int
        Of a request; a larger one is RESOURCE_EXHAUSTED before it is buffered.
    spin_us : int
        How long an idle loop polls before it blocks: for loops with a core of their own.
    max_connections : int
        Over all loops. One more is told GOAWAY ENHANCE_YOUR_CALM and closed.
    max_streams : int
        Concurrent calls per connection, as told to the peer.
    max_header_bytes : int
        Of one request's header list.
    max_held_bytes : int
        Unfinished requests and unread answers that one connection may keep in memory;
        a loop may keep sixteen times as much over all its connections.

    Raises
    ------
    LoopError
        The kernel gave no epoll or eventfd.
    ValueError
        An argument is outside its range.
    """

    cdef loop_t** loops
    cdef int32_t n_loops
    cdef int64_t next_loop
    cdef object services
    cdef object sockets
    cdef object unix_paths
    cdef object threads
    cdef object lock
    cdef object trimmer
    cdef bint started
    cdef bint ended
    cdef size_t max_message_bytes

    def __cinit__(
        self, services, *, max_message_bytes=4 << 20, spin_us=0, max_connections=10_000,
        max_streams=1024, max_header_bytes=16 << 10, max_held_bytes=16 << 20,
    ) -> None:
        cdef int32_t i
        cdef loop_t* loop
        cdef Service service
        self.services = tuple(services)
        for name, value, low, high in (
            ("the number of services", len(self.services), 1, MAX_LOOPS),
            ("max_message_bytes", max_message_bytes, 1, 1 << 30),
            ("spin_us", spin_us, 0, 10_000_000),
            ("max_connections", max_connections, 1, 1 << 20),
            ("max_streams", max_streams, 1, 1 << 20),
            ("max_header_bytes", max_header_bytes, 1024, 60 << 10),
            ("max_held_bytes", max_held_bytes, 1 << 16, 1 << 32),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be {low} to {high}")
        self.sockets = []
        self.unix_paths = []
        self.threads = []
        self.lock = threading.Lock()
        self.max_message_bytes = max_message_bytes
        self.loops = <loop_t**> calloc(len(self.services), sizeof(loop_t*))
        if self.loops == NULL:
            raise MemoryError
        for i in range(len(self.services)):
            service = self.services[i]
            if service.table.on_call == NULL:
                raise ValueError("a bare Service serves nothing: give an object of a subclass")
            loop = <loop_t*> calloc(1, sizeof(loop_t))
            if loop == NULL:
                raise MemoryError
            self.loops[i] = loop
            self.n_loops = i + 1
            loop.index = i
            loop.n_loops = <int32_t> len(self.services)
            loop.loops = self.loops
            loop.host.service = service.table
            loop.host.max_streams = max_streams
            loop.host.limits.max_message_bytes = max_message_bytes
            loop.host.limits.max_header_bytes = max_header_bytes
            # One message of the greatest size must always fit.
            loop.host.limits.max_held_bytes = max(max_held_bytes, 2 * max_message_bytes)
            loop.host.limits.max_loop_held_bytes = 16 * loop.host.limits.max_held_bytes
            loop.max_connections = max_connections
            loop.spin_ns = <int64_t> spin_us * 1000
            if loop_init(loop) != 0:
                raise LoopError(
                    "the kernel gave no epoll or eventfd: raise the limit of open files"
                )

    def __dealloc__(self) -> None:
        # Threads hold a reference to the group: none runs any more.
        cdef int32_t i
        for i in range(self.n_loops):
            loop_clear(self.loops[i])
            free(self.loops[i])
        free(self.loops)

    def _watch(self, listener, is_tcp) -> None:
        if self.ended:
            listener.close()
            raise LoopError("this group has ended: make another one")
        if loop_listen(self.loops[0], listener.fileno(), is_tcp) != 0:
            listener.close()
            raise LoopError("too many listeners: one group has at most 16")
        self.sockets.append(listener)

    def listen(self, host: str, port: int) -> int:
        """Listen on a TCP address, exclusively.

        Parameters
        ----------
        host : str
            IPv4, IPv6 (brackets allowed) or a host name.
        port : int
            0 takes a free one.

        Returns
        -------
        int
            The port.

        Raises
        ------
        ListenError
            The address is taken or cannot be used; the message says what to do.
        """
        with self.lock:
            listener = open_tcp(host, port)
            self._watch(listener, True)
            return listener.getsockname()[1]

    def listen_unix(self, path: str | os.PathLike[str]) -> None:
        """Listen on a Unix socket; its file is removed when the group ends.

        Parameters
        ----------
        path : str or path-like
            A stale socket there is replaced.

        Raises
        ------
        ListenError
            Another server answers there, or the path cannot be used.
        """
        with self.lock:
            place = Path(path)
            listener = open_unix(place)
            self._watch(listener, False)
            self.unix_paths.append((place, place.stat().st_ino))

    def _run(self, index: int) -> None:
        cdef loop_t* loop = self.loops[index]
        with nogil:
            loop_run(loop)

    def start(self) -> None:
        """Start the loop threads.

        Raises
        ------
        LoopError
            The group was started before.
        """
        with self.lock:
            if self.started or self.ended:
                raise LoopError("a group starts once: make another one")
            self.started = True
            for index in range(self.n_loops):
                thread = threading.Thread(
                    target=self._run, args=(index,), name=f"scoregate-loop{index}", daemon=True
                )
                self.threads.append(thread)
                thread.start()
            self.trimmer = Trimmer(self._returned_bytes)
            self.trimmer.start()

    @property
    def thread_ids(self) -> list[int]:
        """The kernel's ids of the loop threads; empty before the start."""
        return [thread.native_id for thread in self.threads]

    def _returned_bytes(self) -> int:
        return sum(read(&self.loops[i].pool.n_returned_bytes) for i in range(self.n_loops))

    cdef void set_state(self, int64_t state) noexcept:
        cdef int32_t i
        for i in range(self.n_loops):
            atomic_store(&self.loops[i].state, state, ATOMIC_RELEASE)
            loop_wake(self.loops[i])

    def _close_listeners(self) -> None:
        # Refuse at once; the descriptors stay until no loop can name them.
        for listener in self.sockets:
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass                # not every system lets a listener be shut down
        for path, inode in self.unix_paths:
            try:
                if path.stat().st_ino == inode:
                    path.unlink()
            except OSError:
                pass                # somebody else has taken or removed it
        self.unix_paths = []

    def _join(self, deadline) -> bool:
        cdef int32_t i
        for thread in self.threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return False
        for i in range(self.n_loops):
            loop_discard_mail(self.loops[i])
        for listener in self.sockets:
            listener.close()
        self.sockets = []
        if self.trimmer is not None:
            self.trimmer.stop()
            self.trimmer = None  # it holds a reference to this group
        return True

    def drain(self, grace_s: float) -> bool:
        """Stop accepting, finish what is in flight, end.

        Every connection is told GOAWAY with the highest stream id, a PING makes the round trip,
        then GOAWAY names the true last stream; it closes when its calls are answered.

        Parameters
        ----------
        grace_s : float
            After this many seconds connections are closed whatever they hold.

        Returns
        -------
        bool
            True when everything finished within the grace.
        """
        with self.lock:
            self.ended = True
            self._close_listeners()
            self.set_state(LOOP_DRAINING)
            if self._join(time.monotonic() + max(0.0, grace_s)):
                return True
            self.set_state(LOOP_STOPPING)
            self._join(None)
            return False

    def stop(self) -> None:
        """Close everything now and join the threads. Harmless when repeated."""
        with self.lock:
            self.ended = True
            self._close_listeners()
            self.set_state(LOOP_STOPPING)
            self._join(None)

    def call(self, method: str, message: bytes, timeout_s: float | None) -> tuple[int, bytes, str]:
        """Make one call from Python, answered on a loop thread by the same service.

        Releases the GIL while it waits; any number of threads may call.

        Parameters
        ----------
        method : str
            The full method, such as "/scoregate.v1.Scoring/Score".
        message : bytes
            The request's message.
        timeout_s : float or None
            Seconds until DEADLINE_EXCEEDED; None waits for ever.

        Returns
        -------
        tuple of (int, bytes, str)
            gRPC status, the answer's message (empty with an error), the error's text.
        """
        cdef int64_t deadline_ns = INT64_MAX
        cdef int64_t until_ns
        cdef int32_t done = 0
        cdef int32_t status
        cdef handover_t* handover
        cdef loop_t* loop
        path = method.encode()
        if timeout_s is not None and not timeout_s >= MAX_TIMEOUT_S:
            if not timeout_s > 0:
                return STATUS_DEADLINE_EXCEEDED, b"", "the deadline passed before the call began"
            deadline_ns = monotonic_ns() + <int64_t> (<double> timeout_s * 1e9)
        if len(message) > self.max_message_bytes:
            return STATUS_RESOURCE_EXHAUSTED, b"", (
                f"the message has {len(message)} bytes, over the limit of "
                f"{self.max_message_bytes}: send a smaller one, or raise the server's message limit"
            )
        if not self.started or self.ended:
            return STATUS_UNAVAILABLE, b"", "the server is not serving: try another one"
        handover = handover_new(path, len(path), message, len(message), deadline_ns)
        if handover == NULL:
            return STATUS_RESOURCE_EXHAUSTED, b"", "out of memory: try again later"
        loop = self.loops[self.next_loop % self.n_loops]
        self.next_loop += 1
        status = queue_push(&loop.queue, handover)
        if status != STATUS_OK:
            handover_release(handover)
            handover_release(handover)
            if status == STATUS_UNAVAILABLE:
                return status, b"", "the server is stopping: try another one"
            return status, b"", "too many calls are waiting: try again later"
        loop_wake(loop)
        try:
            while not done:
                with nogil:
                    until_ns = min(deadline_ns, monotonic_ns() + SIGNAL_CHECK_NS)
                    done = handover_wait(handover, until_ns)
                if not done:
                    if monotonic_ns() >= deadline_ns:
                        return STATUS_DEADLINE_EXCEEDED, b"", (
                            "the deadline passed before the call was answered; allow more time"
                        )
                    PyErr_CheckSignals()
            text = handover.text[: handover.n_text].decode("utf-8", "replace")
            return handover.status, handover.body[: handover.n_body], text
        finally:
            handover_release(handover)

    def stats(self) -> list[dict[str, int]]:
        """Read every loop's counters, while they run.

        Returns
        -------
        list of dict
            Per loop: open_connections, accepted, refused, closed, calls, handed_over, iterations,
            busy_ns (time between one wait's end and the next one's beginning), bytes_in, bytes_out,
            resets, calmed, broken, http_answers, held_bytes, and status_0 to status_16, the network
            answers by gRPC status.
        """
        answer = []
        cdef int32_t i
        cdef int32_t j
        cdef loop_t* loop
        for i in range(self.n_loops):
            loop = self.loops[i]
            row = {
                "open_connections": read(&loop.n_open),
                "accepted": read(&loop.counters.accepted),
                "refused": read(&loop.counters.refused),
                "closed": read(&loop.counters.closed),
                "calls": read(&loop.counters.calls),
                "handed_over": read(&loop.counters.handed_over),
                "iterations": read(&loop.counters.iterations),
                "busy_ns": read(&loop.busy_ns),
                "bytes_in": read(&loop.counters.bytes_in),
                "bytes_out": read(&loop.counters.bytes_out),
                "resets": read(&loop.counters.resets),
                "calmed": read(&loop.counters.calmed),
                "broken": read(&loop.counters.broken),
                "http_answers": read(&loop.counters.http_answers),
                "held_bytes": read(<int64_t*> &loop.host.held.n_bytes),
            }
            for j in range(N_STATUSES):
                row[f"status_{j}"] = read(&loop.counters.statuses[j])
            answer.append(row)
        return answer

    def iterations(self) -> list[tuple[tuple[int, ...], int]]:
        """Read the histogram of every loop's iterations, while they run.

        Returns
        -------
        list of (tuple of int, int)
            Per loop: counts by `fastpath.timings.TIMING_BOUNDS_NS` and one more, not cumulative;
            and the sum in nanoseconds. An iteration is from the end of one wait to the next one.
        """
        cdef int32_t i
        return [read_timing(&self.loops[i].iterations) for i in range(self.n_loops)]


cdef int64_t read(const int64_t* counter) noexcept nogil:
    return atomic_load(counter, ATOMIC_RELAXED)
