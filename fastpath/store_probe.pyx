"""Drives one online store by hand, from one Python thread: for tests, tools and measurements.

Rules: the probe is the store's loop: it attaches the store when it is made and detaches it when it
is closed; one thread uses it. A store has one probe or one loop.

How it works: reads live in fixed slots. `turn` is one iteration as a loop makes it: wait, sockets,
flush, leave. `begin` asks within the iteration that the next turn ends.

What it does not do: it abandons no read by itself, except `get` and `measure` when their time is
over.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from posix.time cimport CLOCK_PROCESS_CPUTIME_ID

from fastpath._types cimport (
    OUTCOME_HIT,
    OUTCOME_PENDING,
    socket_watch_t,
    span_t,
    watcher_t,
)
from fastpath.c.clock cimport CLOCK_MONOTONIC, clock_gettime, timespec
from fastpath.poller cimport poller_clear, poller_init, poller_t, poller_wait, poller_watch
from fastpath.store cimport OnlineStore, read_t, store_t

from fastpath.errors import StoreError
from fastpath.store import OUTCOMES as _OUTCOMES

cdef enum:
    N_SLOTS = 8192
    SLOT_FREE = -1

cdef int64_t SECOND_NS = 1_000_000_000


cdef struct slot_t:
    read_t read
    int32_t outcome              # OUTCOME_PENDING while it waits; SLOT_FREE
    size_t size
    uint8_t* record              # a copy, where there is a record


ctypedef struct probe_t:
    store_t* store
    poller_t poller
    watcher_t watcher
    bint entered
    int64_t n_waiting
    int64_t n_surplus            # ends of reads that had ended, or were abandoned
    slot_t[N_SLOTS] slots


cdef int64_t _now_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t> now.tv_sec * SECOND_NS + now.tv_nsec


cdef int32_t _watch(
    void* loop, socket_watch_t* socket, uint32_t events, int32_t operation
) noexcept nogil:
    return poller_watch(&(<probe_t*> loop).poller, socket.fd, socket, events, operation)


cdef void _keep(slot_t* slot, int32_t outcome, const uint8_t* data, size_t size) noexcept nogil:
    slot.outcome = outcome
    if outcome != OUTCOME_HIT:
        return
    slot.record = <uint8_t*> malloc(max(size, <size_t> 1))
    slot.size = size if slot.record != NULL else 0
    memcpy(slot.record, data, slot.size)


cdef void _done(
    read_t* read, int32_t outcome, const uint8_t* record, size_t n_record, int64_t now_ns
) noexcept nogil:
    if (<slot_t*> read).outcome != OUTCOME_PENDING:
        (<probe_t*> read.owner).n_surplus += 1
        return
    (<probe_t*> read.owner).n_waiting -= 1
    _keep(<slot_t*> read, outcome, record, n_record)


cdef void _count(
    read_t* read, int32_t outcome, const uint8_t* record, size_t n_record, int64_t now_ns
) noexcept nogil:
    (<probe_t*> read.owner).n_waiting -= 1
    (<slot_t*> read).outcome = outcome


cdef void _enter(probe_t* probe) noexcept nogil:
    if not probe.entered and probe.store.enter != NULL:
        probe.store.enter(probe.store.impl)
    probe.entered = True


cdef void _leave(probe_t* probe) noexcept nogil:
    if probe.store.flush != NULL:
        probe.store.flush(probe.store.impl, _now_ns(CLOCK_MONOTONIC))
    if probe.store.leave != NULL:
        probe.store.leave(probe.store.impl)
    probe.entered = False


cdef void _turn(probe_t* probe, int64_t timeout_ns) noexcept nogil:
    # Ends the iteration under way, waits, and begins and ends the next one.
    cdef socket_watch_t* socket
    cdef int64_t now_ns
    cdef int32_t i
    if probe.entered:
        _leave(probe)
    if probe.store.wake_ns != NULL:
        now_ns = _now_ns(CLOCK_MONOTONIC)
        timeout_ns = min(timeout_ns, max(probe.store.wake_ns(probe.store.impl) - now_ns, 0))
    poller_wait(&probe.poller, timeout_ns)
    now_ns = _now_ns(CLOCK_MONOTONIC)
    _enter(probe)
    for i in range(probe.poller.n_events):
        socket = <socket_watch_t*> probe.poller.events[i].data.ptr
        if socket != NULL:
            socket.on_ready(socket.context, probe.poller.events[i].events, now_ns)
    probe.poller.n_events = 0
    _leave(probe)


cdef int64_t _run(
    probe_t* probe, const span_t* keys, int64_t n_keys, int64_t n_gets, int64_t n_together,
    int64_t timeout_ns
) noexcept nogil:
    # Asks n_together keys at a time; returns how many reads ended as hits.
    cdef int64_t n_hits = 0
    cdef int64_t asked = 0
    cdef int64_t i
    cdef int64_t now_ns
    cdef int64_t give_up_ns
    cdef slot_t* slot
    cdef span_t record
    while asked < n_gets:
        _enter(probe)
        now_ns = _now_ns(CLOCK_MONOTONIC)
        give_up_ns = now_ns + timeout_ns
        for i in range(n_together):
            slot = &probe.slots[i]
            slot.read.done = _count
            slot.outcome = probe.store.get(
                probe.store.impl, keys[(asked + i) % n_keys].data,
                keys[(asked + i) % n_keys].size, &slot.read, now_ns, &record
            )
            probe.n_waiting += slot.outcome == OUTCOME_PENDING
        asked += n_together
        if probe.n_waiting == 0:
            _leave(probe)
        while probe.n_waiting > 0 and now_ns < give_up_ns:
            _turn(probe, give_up_ns - now_ns)
            now_ns = _now_ns(CLOCK_MONOTONIC)
        for i in range(n_together):
            slot = &probe.slots[i]
            if slot.outcome == OUTCOME_PENDING:
                probe.store.abandon(probe.store.impl, &slot.read, True, now_ns)
                probe.n_waiting -= 1
            n_hits += slot.outcome == OUTCOME_HIT
            slot.outcome = SLOT_FREE
    return n_hits


cdef class StoreProbe:
    """A store's loop, turned by hand.

    Parameters
    ----------
    store : OnlineStore
        Attached to the calling thread until `close`.

    Raises
    ------
    OSError
        No epoll can be had.
    """

    cdef probe_t* probe
    cdef OnlineStore store
    cdef list _free
    cdef bint _attached

    def __cinit__(self, OnlineStore store not None):
        cdef int32_t i
        self.probe = <probe_t*> calloc(1, sizeof(probe_t))
        if self.probe == NULL:
            raise MemoryError
        self.store = store
        self.probe.store = &store.table
        self.probe.watcher.loop = self.probe
        self.probe.watcher.watch = _watch
        for i in range(N_SLOTS):
            self.probe.slots[i].outcome = SLOT_FREE
            self.probe.slots[i].read.owner = self.probe
        self._free = list(range(N_SLOTS))
        if poller_init(&self.probe.poller) != 0:
            raise OSError("epoll: no descriptor can be had")
        self._attached = True
        if store.table.attach != NULL:
            store.table.attach(store.table.impl, &self.probe.watcher, _now_ns(CLOCK_MONOTONIC))

    def __dealloc__(self):
        if self.probe == NULL:
            return
        self._detach()
        poller_clear(&self.probe.poller)
        for i in range(N_SLOTS):
            free(self.probe.slots[i].record)
        free(self.probe)

    cdef _detach(self):
        if not self._attached:
            return
        self._attached = False
        if self.probe.entered:
            _leave(self.probe)
        if self.store.table.detach != NULL:
            self.store.table.detach(self.store.table.impl)

    cdef slot_t* _slot(self, int64_t ticket) except NULL:
        if not 0 <= ticket < N_SLOTS or self.probe.slots[ticket].outcome == SLOT_FREE:
            raise StoreError(f"ticket: {ticket} is of no read that was begun")
        return &self.probe.slots[ticket]

    def begin(self, bytes key not None):
        """Ask for a record; return the read's ticket. The answer may be there at once."""
        cdef slot_t* slot
        cdef span_t record
        cdef int64_t now_ns = _now_ns(CLOCK_MONOTONIC)
        cdef int32_t outcome
        if not self._attached or not self._free:
            raise StoreError("begin: the probe is closed, or all its slots are taken")
        ticket = self._free.pop(0)
        slot = &self.probe.slots[ticket]
        slot.read.done = _done
        slot.read.started_ns = now_ns
        slot.read.deadline_ns = INT64_MAX
        slot.outcome = OUTCOME_PENDING
        _enter(self.probe)
        outcome = self.probe.store.get(
            self.probe.store.impl, key, len(key), &slot.read, now_ns, &record
        )
        if outcome == OUTCOME_PENDING:
            self.probe.n_waiting += 1
        else:
            _keep(slot, outcome, record.data, record.size)
        return ticket

    def take(self, int64_t ticket):
        """Return (outcome, record or None) and forget the ticket, or None while it waits."""
        cdef slot_t* slot = self._slot(ticket)
        if slot.outcome == OUTCOME_PENDING:
            return None
        outcome = _OUTCOMES[slot.outcome]
        record = None
        if slot.outcome == OUTCOME_HIT:
            record = (<const char*> slot.record)[:slot.size]
            free(slot.record)
            slot.record = NULL
        slot.outcome = SLOT_FREE
        self._free.append(ticket)
        return outcome, record

    def abandon(self, int64_t ticket, *, bint timed_out=True):
        """Give up a read that waits, and forget its ticket."""
        cdef slot_t* slot = self._slot(ticket)
        if slot.outcome != OUTCOME_PENDING:
            raise StoreError(f"ticket: {ticket} has ended already")
        self.probe.store.abandon(
            self.probe.store.impl, &slot.read, timed_out, _now_ns(CLOCK_MONOTONIC)
        )
        self.probe.n_waiting -= 1
        slot.outcome = SLOT_FREE
        self._free.append(ticket)

    def turn(self, double timeout_s=0.0):
        """Run one iteration: wait up to `timeout_s` for sockets or timers (without the GIL)."""
        cdef int64_t timeout_ns = <int64_t> (timeout_s * SECOND_NS)
        if not self._attached:
            raise StoreError("turn: the probe is closed")
        with nogil:
            _turn(self.probe, timeout_ns)

    def get(self, bytes key not None, *, double timeout_s=10.0):
        """Read one record: (outcome, record or None). "timeout" where none came in time."""
        ticket = self.begin(key)
        cdef int64_t give_up_ns = _now_ns(CLOCK_MONOTONIC) + <int64_t> (timeout_s * SECOND_NS)
        cdef int64_t left_ns
        while True:
            answer = self.take(ticket)
            if answer is not None:
                if self.probe.entered:
                    _leave(self.probe)
                return answer
            left_ns = give_up_ns - _now_ns(CLOCK_MONOTONIC)
            if left_ns <= 0:
                self.abandon(ticket)
                return "timeout", None
            self.turn(left_ns / SECOND_NS)

    def measure(self, keys, *, int64_t n_gets, int64_t n_together, double timeout_s=10.0):
        """Read many records, `n_together` per iteration, without the GIL.

        Parameters
        ----------
        keys : sequence of bytes
            Asked in turn.
        n_gets : int
            Rounded up to a multiple of `n_together`, which is at most 8192.

        Returns
        -------
        tuple of int
            Hits, wall nanoseconds and the process's CPU nanoseconds of the whole.
        """
        cdef int64_t n_keys = len(keys)
        cdef span_t* spans
        cdef int64_t n_hits, wall_ns, cpu_ns
        if not self._attached or not n_keys or len(self._free) != N_SLOTS:
            raise StoreError("measure: needs keys, and a probe without other reads")
        if not 1 <= n_together <= N_SLOTS:
            raise StoreError(f"n_together: {n_together} is not within 1..{N_SLOTS}")
        keys = [bytes(key) for key in keys]
        spans = <span_t*> calloc(n_keys, sizeof(span_t))
        if spans == NULL:
            raise MemoryError
        for i, key in enumerate(keys):
            spans[i].data = <const uint8_t*> <const char*> key
            spans[i].size = len(key)
        with nogil:
            cpu_ns = _now_ns(CLOCK_PROCESS_CPUTIME_ID)
            wall_ns = _now_ns(CLOCK_MONOTONIC)
            n_hits = _run(
                self.probe, spans, n_keys, n_gets, n_together, <int64_t> (timeout_s * SECOND_NS)
            )
            wall_ns = _now_ns(CLOCK_MONOTONIC) - wall_ns
            cpu_ns = _now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns
        free(spans)
        return n_hits, wall_ns, cpu_ns

    @property
    def n_surplus(self):
        """Ends that no read was waiting for: other than 0, the store breaks its contract."""
        return self.probe.n_surplus

    def close(self):
        """Detach the store: reads that wait end as unreachable."""
        self._detach()
