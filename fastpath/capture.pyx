"""Rings of decisions: how what the loops decided reaches drift, outcomes and audit.

Rules
-----
* One ring per loop. The loop writes and never waits: a full ring drops the decision and counts it.
  Nothing is allocated and no lock is taken on its side.
* A decision is captured with the rate of its (model, version): gaps between captured ones are
  geometric, so that every decision has the same chance, whatever came before, at the cost of one
  decrement. A rate of 1 captures all, 0 none.
* An entry is whole or not there: its bytes are written before the ring's head moves (release), and
  read after it was seen (acquire).

How it works: entries of varying size lie in a ring of bytes, aligned to 8, never broken by its
end: what does not fit there begins at the start, after a gap that says how long it is. Head and
tail count bytes for ever; their difference is what is used. The writer looks at the reader's tail
only when it seems to have run out of room.

What it does not do: decide rates, and keep anything. That is the control plane's.
"""

import threading
from typing import NamedTuple

import numpy as np

from fastpath.errors import FastpathError

from fastpath.c.atomic cimport (
    __ATOMIC_ACQUIRE,
    __ATOMIC_RELAXED,
    __ATOMIC_RELEASE,
    load_u64,
    store_u64,
)
from fastpath.metrics cimport add
from fastpath.routing cimport siphash24_128

from libc.math cimport log, log1p
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign

# Any two constants: the hash joins decisions with outcomes, it hides nothing.
cdef uint64_t[2] ID_KEYS = [0x53636F7265676174, 0x652D726571756573]
# A gap between captured decisions is drawn again after this many, so that a new rate takes effect.
cdef int64_t LONGEST_SKIP = 1 << 20

cdef enum:
    DRAW = -1


class CapturedRows(NamedTuple):
    """Decisions of one (model, version) that were drained together: n of them, oldest first."""

    slot: int
    rows: np.ndarray                 # float32 [n, n_features], resolved
    sources: np.ndarray              # uint8 [n, n_features], scoregate.v1.FeatureSource
    raw: np.ndarray                  # float32 [n]
    event_time_ms: np.ndarray        # int64 [n]
    decided_time_ms: np.ndarray      # int64 [n]
    id_hash: np.ndarray              # uint64 [n, 2]
    generation: np.ndarray           # uint64 [n]
    bucket: np.ndarray               # uint32 [n]
    arm: np.ndarray                  # uint8 [n], index in the model of its generation
    decision: np.ndarray             # uint8 [n], index: 0 is the default decision
    degraded: np.ndarray             # bool [n]


cdef inline uint64_t _next_random(ring_t* ring) noexcept nogil:
    # splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014)
    cdef uint64_t z
    ring.random += <uint64_t> 0x9E3779B97F4A7C15
    z = ring.random
    z = (z ^ (z >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t> 0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline double _rate_of(const ring_t* ring, int32_t slot) noexcept nogil:
    cdef uint64_t bits = load_u64(<const uint64_t*> &ring.rates[slot], __ATOMIC_RELAXED)
    cdef double rate
    memcpy(&rate, &bits, 8)
    return rate


cdef int64_t _draw_skip(ring_t* ring, double rate) noexcept nogil:
    """Draw how many decisions pass before the next captured one: geometric with this rate.

    Returns -LONGEST_SKIP where they are at least so many: then so many pass, and a new gap is
    drawn, which is the same by the distribution's lack of memory.
    """
    cdef double uniform
    cdef double skip
    if rate >= 1.0:
        return 0
    # In (0, 1]: 53 random bits.
    uniform = (<double> ((_next_random(ring) >> 11) + 1)) * (1.0 / 9007199254740992.0)
    skip = log(uniform) / log1p(-rate)
    return -LONGEST_SKIP if skip >= <double> LONGEST_SKIP else <int64_t> skip


cdef bint is_sampled(ring_t* ring, int32_t slot) noexcept nogil:
    # skips: above 0, so many pass; 0, the next is captured; DRAW, a gap is drawn at the next;
    # below that, so many pass before one is drawn.
    cdef int64_t skip = ring.skips[slot]
    cdef double rate
    if skip > 0:
        ring.skips[slot] = skip - 1
        return False
    if skip < DRAW:
        ring.skips[slot] = skip + 1
        return False
    rate = _rate_of(ring, slot)
    if rate <= 0.0:
        ring.skips[slot] = DRAW
        return False
    if skip == DRAW:
        skip = _draw_skip(ring, rate)
        if skip != 0:
            ring.skips[slot] = skip - 1 if skip > 0 else skip
            return False
    ring.skips[slot] = _draw_skip(ring, rate)
    return True


cdef inline uint64_t _entry_bytes(int32_t n_features) noexcept nogil:
    return (sizeof(captured_t) + 5 * <uint64_t> n_features + 7) & ~(<uint64_t> 7)


cdef captured_t* begin_entry(ring_t* ring, int32_t n_features) noexcept nogil:
    cdef uint64_t size = _entry_bytes(n_features)
    cdef uint64_t at = ring.head & (ring.capacity - 1)
    cdef uint64_t gap = 0
    cdef captured_t* entry
    if at + size > ring.capacity:
        gap = ring.capacity - at
    if ring.capacity - (ring.head - ring.seen_tail) < gap + size:
        ring.seen_tail = load_u64(&ring.tail, __ATOMIC_ACQUIRE)
        if ring.capacity - (ring.head - ring.seen_tail) < gap + size:
            add(&ring.n_dropped, 1)
            return NULL
    if gap > 0:
        # A gap has at least 8 bytes, as everything is aligned to them: its size and version fit.
        entry = <captured_t*> (ring.data + at)
        entry.size_bytes = <uint32_t> gap
        entry.version = 0
        store_u64(&ring.head, ring.head + gap, __ATOMIC_RELEASE)
        at = 0
    entry = <captured_t*> (ring.data + at)
    entry.size_bytes = <uint32_t> size
    entry.version = CAPTURE_VERSION
    entry.n_features = <uint16_t> n_features
    return entry


cdef float* entry_values(captured_t* entry) noexcept nogil:
    return <float*> (<uint8_t*> entry + sizeof(captured_t))


cdef uint8_t* entry_sources(captured_t* entry) noexcept nogil:
    return <uint8_t*> entry + sizeof(captured_t) + 4 * <size_t> entry.n_features


cdef void end_entry(ring_t* ring, captured_t* entry) noexcept nogil:
    store_u64(&ring.head, ring.head + entry.size_bytes, __ATOMIC_RELEASE)
    add(&ring.n_captured, 1)


cdef void hash_id(const uint8_t* id, size_t size, uint64_t* out) noexcept nogil:
    siphash24_128(ID_KEYS[0], ID_KEYS[1], id, size, out)


def id_hash(str request_id not None):
    """Return the two 64-bit halves by which a decision is joined with its outcome."""
    cdef bytes text = request_id.encode()
    cdef uint64_t[2] halves
    hash_id(<const uint8_t*> <const char*> text, len(text), halves)
    return halves[0], halves[1]


cdef class Capture:
    """The rings of all loops, and the rates that they follow.

    Parameters
    ----------
    n_threads : int
        Loop threads; each writes the ring of its index.
    capacity_bytes : int
        Of each ring; rounded up to a power of two, 64 KiB at least.
    seed : int
        Of the gaps between captured decisions.
    """

    def __cinit__(self, int n_threads, *, capacity_bytes=4 << 20, seed=0):
        cdef void* memory = NULL
        cdef ring_t* ring
        cdef int i, j
        if n_threads < 1:
            raise FastpathError(f"capture needs at least one thread, not {n_threads}")
        if not 1 <= capacity_bytes <= 1 << 30:
            raise FastpathError(f"capacity_bytes is {capacity_bytes}; it must be 1 to {1 << 30}")
        self.n_threads = n_threads
        self.capacity_bytes = 1 << max(16, (capacity_bytes - 1).bit_length())
        self._lock = threading.Lock()
        if posix_memalign(&memory, 64, MAX_SLOTS * sizeof(double)) != 0:
            raise MemoryError()
        memset(memory, 0, MAX_SLOTS * sizeof(double))
        self.rates = <double*> memory
        if posix_memalign(&memory, 64, n_threads * sizeof(ring_t*)) != 0:
            raise MemoryError()
        memset(memory, 0, n_threads * sizeof(ring_t*))
        self.rings = <ring_t**> memory
        for i in range(n_threads):
            if posix_memalign(&memory, 64, sizeof(ring_t)) != 0:
                raise MemoryError()
            memset(memory, 0, sizeof(ring_t))
            ring = <ring_t*> memory
            self.rings[i] = ring
            if posix_memalign(&memory, 4096, self.capacity_bytes) != 0:
                raise MemoryError()
            # Now, so that no page is first touched, and by a loop, when rows reach it.
            memset(memory, 0, self.capacity_bytes)
            ring.data = <uint8_t*> memory
            ring.capacity = self.capacity_bytes
            ring.rates = self.rates
            ring.random = <uint64_t> (seed * 64 + i)
            for j in range(MAX_SLOTS):
                ring.skips[j] = DRAW

    def __dealloc__(self):
        cdef int i
        if self.rings is not NULL:
            for i in range(self.n_threads):
                if self.rings[i] is not NULL:
                    free(self.rings[i].data)
                    free(self.rings[i])
            free(self.rings)
        free(self.rates)

    cdef ring_t* ring(self, int thread) except NULL:
        if not 0 <= thread < self.n_threads:
            raise FastpathError(f"there are {self.n_threads} threads; {thread} is not one of them")
        return self.rings[thread]

    def set_rate(self, int slot, double rate):
        """Set the share of a slot's decisions that is captured from now on.

        Parameters
        ----------
        slot : int
            `Metrics.register`'s.
        rate : float
            0 to 1. Gaps that are under way, at most 2**20 decisions, end first.
        """
        cdef uint64_t bits
        if not 0 <= slot < MAX_SLOTS:
            raise FastpathError(f"slot {slot} is outside 0 to {MAX_SLOTS - 1}")
        if not 0.0 <= rate <= 1.0:
            raise FastpathError(f"a capture rate is 0 to 1, not {rate}")
        memcpy(&bits, &rate, 8)
        store_u64(<uint64_t*> &self.rates[slot], bits, __ATOMIC_RELAXED)

    def rate(self, int slot):
        """Return the rate of a slot."""
        if not 0 <= slot < MAX_SLOTS:
            raise FastpathError(f"slot {slot} is outside 0 to {MAX_SLOTS - 1}")
        return self.rates[slot]

    def drain(self):
        """Take everything that the loops have captured since the last time.

        Returns
        -------
        list of CapturedRows
            One per (slot, number of features), in no particular order. Copies: they are the
            caller's. The loops go on writing meanwhile, and never wait.
        """
        cdef int thread
        blocks = []
        with self._lock:
            for thread in range(self.n_threads):
                blocks.append(_take(self.rings[thread]))
        return _rows_of(b"".join(blocks))

    def stats(self):
        """Return, per loop: captured, dropped (decisions so far), fill (0 to 1, of the ring).

        Returns
        -------
        list of dict of str to int or float
        """
        cdef ring_t* ring
        cdef int thread
        rows = []
        for thread in range(self.n_threads):
            ring = self.rings[thread]
            used = load_u64(&ring.head, __ATOMIC_ACQUIRE) - load_u64(&ring.tail, __ATOMIC_ACQUIRE)
            rows.append({
                "captured": load_u64(&ring.n_captured, __ATOMIC_RELAXED),
                "dropped": load_u64(&ring.n_dropped, __ATOMIC_RELAXED),
                "fill": used / ring.capacity,
            })
        return rows


cdef bytes _take(ring_t* ring):
    """Copy a ring's entries out, gaps included, and give their room back."""
    cdef uint64_t head = load_u64(&ring.head, __ATOMIC_ACQUIRE)
    cdef uint64_t tail = ring.tail
    cdef uint64_t at = tail & (ring.capacity - 1)
    cdef uint64_t n_first = min(head - tail, ring.capacity - at)
    cdef bytes taken = (<const char*> ring.data + at)[:n_first]
    if n_first < head - tail:
        taken += (<const char*> ring.data)[: head - tail - n_first]
    store_u64(&ring.tail, head, __ATOMIC_RELEASE)
    return taken


HEAD_TYPE = np.dtype(
    {
        "names": [
            "size_bytes", "version", "n_features", "id_hash", "event_time_ms", "decided_time_ms",
            "generation", "raw", "bucket", "slot", "arm", "decision", "degraded", "unsticky",
        ],
        "formats": [
            "<u4", "<u2", "<u2", ("<u8", 2), "<i8", "<i8", "<u8", "<f4", "<u4", "<u2", "u1", "u1",
            "u1", "u1",
        ],
        "offsets": [0, 4, 6, 8, 24, 32, 40, 48, 52, 56, 58, 59, 60, 61],
        "itemsize": sizeof(captured_t),
    }
)


def _rows_of(bytes taken):
    """Sort entries by slot and width into arrays."""
    cdef const uint8_t* data = taken
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t end = len(taken)
    cdef const captured_t* entry
    places = {}
    while at < end:
        entry = <const captured_t*> (data + at)
        if entry.version != 0:
            places.setdefault((entry.slot, entry.n_features), []).append(at)
        at += entry.size_bytes
    whole = np.frombuffer(taken, np.uint8)
    return [
        _block(slot, n_features, whole, np.array(offsets, np.intp))
        for (slot, n_features), offsets in places.items()
    ]


def _block(slot, n_features, whole, offsets):
    size = _entry_bytes(n_features)
    # One gather per block: entries of one width have one size.
    entries = whole[offsets[:, None] + np.arange(size)]
    head = sizeof(captured_t)
    heads = np.ascontiguousarray(entries[:, :head]).view(HEAD_TYPE)[:, 0]
    values = np.ascontiguousarray(entries[:, head : head + 4 * n_features])
    return CapturedRows(
        slot=slot,
        rows=values.view(np.float32),
        sources=entries[:, head + 4 * n_features : head + 5 * n_features].copy(),
        raw=heads["raw"].copy(),
        event_time_ms=heads["event_time_ms"].copy(),
        decided_time_ms=heads["decided_time_ms"].copy(),
        id_hash=heads["id_hash"].copy(),
        generation=heads["generation"].copy(),
        bucket=heads["bucket"].copy(),
        arm=heads["arm"].copy(),
        decision=heads["decision"].copy(),
        degraded=heads["degraded"] != 0,
    )
