"""The ledger: what is remembered of decisions until their outcomes come, on its way out of a loop.

Rules
-----
* One ring per loop. The loop writes and never waits: a full ring drops the decision and counts it.
  Nothing is allocated and no lock is taken on its side.
* Whether a decision is recorded follows from its request id alone (and is so the same at every
  attempt, and for every arm), except that scores from a slot's `always_from` are always recorded.
  The probability is written beside it: whoever counts weighs by its inverse.
* A ring that fills thins itself, before it has to drop what matters: above half, one in eight of
  what would be recorded is, above three quarters one in 64; the probability says so. What is always
  recorded takes the room that this leaves.
* Whether a decision is explored (changed, so that an outcome can be seen that would never have
  been) follows from the request id, too, under another salt: neither tells of the other.

How it works: a ring of 64-byte structs; head and tail count decisions for ever, their difference
is what is used. The writer looks at the reader's tail only when it seems to have run out of room.
The 128-bit hash of the request id is uniform: its first half, mixed with a salt, is held against
a limit.

What it does not do: keep anything, and decide rates. That is the control plane's. Whole rows of
features, for drift, leave by `capture`.
"""

import threading

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

from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign

# Any two different constants: they set apart what is drawn from one hash.
cdef uint64_t RECORD_SALT = <uint64_t> 0x7265636F72642131
cdef uint64_t EXPLORE_SALT = <uint64_t> 0x6578706C6F726521
cdef uint64_t ALL = <uint64_t> 0xFFFFFFFFFFFFFFFF

cdef enum:
    # Powers of two that a ring thins by when it is more than half, more than three quarters full.
    THIN_HALF = 3
    THIN_LAST_QUARTER = 6

cdef extern from *:
    void prefetch_to_write "__builtin_prefetch"(const void* at, int to_write) noexcept nogil

# More would not be exploring: half of what is to be stopped would pass.
MAX_EXPLORE_SHARE = 0.5

DEGRADED = FLAG_DEGRADED
EXPLORED = FLAG_EXPLORED
UNSTICKY = FLAG_UNSTICKY

DECISION_TYPE = np.dtype(
    {
        "names": [
            "id_hash", "decided_time_ms", "entity_hash", "generation", "raw", "score",
            "sampling_probability", "propensity", "slot", "arm", "decision", "policy_decision",
            "flags",
        ],
        "formats": [
            ("<u8", 2), "<i8", "<u8", "<u8", "<f4", "<f4", "<f4", "<f4", "<u2", "u1", "u1", "u1",
            "u1",
        ],
        "offsets": [0, 16, 24, 32, 40, 44, 48, 52, 56, 58, 59, 60, 61],
        "itemsize": sizeof(decision_t),
    }
)


cdef inline uint64_t _mix(uint64_t z) noexcept nogil:
    # The finaliser of splitmix64 (Steele, Lea, Flood, 2014): a bijection.
    z = (z ^ (z >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t> 0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline float _float_of(uint64_t bits) noexcept nogil:
    cdef uint32_t low = <uint32_t> bits
    cdef float value
    memcpy(&value, &low, 4)
    return value


cdef inline uint64_t _bits_of(float value) noexcept nogil:
    cdef uint32_t low
    memcpy(&low, &value, 4)
    return low


cdef int32_t _thinned(decisions_t* ring) noexcept nogil:
    # By which power of two a ring that is more than half full, as far as its writer knows, thins.
    cdef uint64_t used
    ring.seen_tail = load_u64(&ring.tail, __ATOMIC_ACQUIRE)
    used = ring.head - ring.seen_tail
    if used <= ring.capacity >> 1:
        return 0
    return THIN_HALF if used <= (ring.capacity >> 2) * 3 else THIN_LAST_QUARTER


cdef float recorded_with(
    decisions_t* ring, int32_t slot, const uint64_t* id_hash, float raw
) noexcept nogil:
    cdef const ledger_rate_t* rate = &ring.rates[slot]
    cdef uint64_t limit = load_u64(&rate.limit, __ATOMIC_RELAXED)
    cdef int32_t thinned = 0
    if ring.head - ring.seen_tail > ring.capacity >> 1:
        thinned = _thinned(ring)
    if limit == ALL and thinned == 0:
        return 1.0
    # Compared so that a NaN bound, "none", keeps nothing.
    if raw >= _float_of(load_u64(&rate.always_from_bits, __ATOMIC_RELAXED)):
        return 1.0
    if limit != 0 and _mix(id_hash[0] ^ RECORD_SALT) < limit >> thinned:
        return (
            _float_of(load_u64(&rate.probability_bits, __ATOMIC_RELAXED))
            / <float> (<uint64_t> 1 << thinned)
        )
    add(&ring.n_passed, 1)
    return 0.0


cdef decision_t* begin_decision(decisions_t* ring) noexcept nogil:
    if ring.head - ring.seen_tail >= ring.capacity:
        ring.seen_tail = load_u64(&ring.tail, __ATOMIC_ACQUIRE)
        if ring.head - ring.seen_tail >= ring.capacity:
            add(&ring.n_dropped, 1)
            return NULL
    return &ring.data[ring.head & (ring.capacity - 1)]


cdef void end_decision(decisions_t* ring) noexcept nogil:
    store_u64(&ring.head, ring.head + 1, __ATOMIC_RELEASE)
    add(&ring.n_recorded, 1)
    # A ring is larger than a cache, and the next decision a call away.
    prefetch_to_write(&ring.data[ring.head & (ring.capacity - 1)], 1)


cdef bint is_explored(const uint64_t* id_hash, uint64_t limit) noexcept nogil:
    return limit != 0 and _mix(id_hash[1] ^ EXPLORE_SALT) < limit


def share_limit(double share):
    """Return the limit that a uniform 64-bit number is below with this probability.

    Parameters
    ----------
    share : float
        0 to 1.
    """
    if not 0.0 <= share <= 1.0:
        raise FastpathError(f"a share is 0 to 1, not {share}")
    return int(ALL) if share >= 1.0 else int(share * 18446744073709551616.0)


def explored(id_hash, double share):
    """Return whether a request is explored, as the loops decide it.

    Parameters
    ----------
    id_hash : tuple of int
        `capture.id_hash` of the request id.
    share : float
        0 to 1.
    """
    cdef uint64_t[2] halves
    halves[0], halves[1] = id_hash
    return bool(is_explored(halves, share_limit(share)))


cdef class Ledger:
    """The rings of all loops, and what of each slot they record.

    Parameters
    ----------
    n_threads : int
        Loop threads; each writes the ring of its index.
    capacity : int
        Decisions that each ring holds; rounded up to a power of two, 1,024 at least.
    """

    def __cinit__(self, int n_threads, *, capacity=1 << 16):
        cdef void* memory = NULL
        cdef decisions_t* ring
        cdef int i
        if n_threads < 1:
            raise FastpathError(f"a ledger needs at least one thread, not {n_threads}")
        if not 1 <= capacity <= 1 << 24:
            raise FastpathError(f"capacity is {capacity}; it must be 1 to {1 << 24}")
        self.n_threads = n_threads
        self.capacity = 1 << max(10, (capacity - 1).bit_length())
        self._lock = threading.Lock()
        if posix_memalign(&memory, 64, MAX_SLOTS * sizeof(ledger_rate_t)) != 0:
            raise MemoryError()
        memset(memory, 0, MAX_SLOTS * sizeof(ledger_rate_t))
        self.rates = <ledger_rate_t*> memory
        for i in range(MAX_SLOTS):
            self.rates[i].always_from_bits = _bits_of(float("nan"))
        if posix_memalign(&memory, 64, n_threads * sizeof(decisions_t*)) != 0:
            raise MemoryError()
        memset(memory, 0, n_threads * sizeof(decisions_t*))
        self.rings = <decisions_t**> memory
        for i in range(n_threads):
            if posix_memalign(&memory, 64, sizeof(decisions_t)) != 0:
                raise MemoryError()
            memset(memory, 0, sizeof(decisions_t))
            ring = <decisions_t*> memory
            self.rings[i] = ring
            if posix_memalign(&memory, 4096, self.capacity * sizeof(decision_t)) != 0:
                raise MemoryError()
            # Now, so that no page is first touched, and by a loop, when decisions reach it.
            memset(memory, 0, self.capacity * sizeof(decision_t))
            ring.data = <decision_t*> memory
            ring.capacity = self.capacity
            ring.rates = self.rates

    def __dealloc__(self):
        cdef int i
        if self.rings is not NULL:
            for i in range(self.n_threads):
                if self.rings[i] is not NULL:
                    free(self.rings[i].data)
                    free(self.rings[i])
            free(self.rings)
        free(self.rates)

    cdef decisions_t* ring(self, int thread) except NULL:
        if not 0 <= thread < self.n_threads:
            raise FastpathError(f"there are {self.n_threads} threads; {thread} is not one of them")
        return self.rings[thread]

    def set_rate(self, int slot, double share, float always_from=float("nan")):
        """Set what of a slot's decisions is recorded from now on.

        Parameters
        ----------
        slot : int
            `Metrics.register`'s.
        share : float
            0 to 1: of the request ids. Set a slot's rate before it takes part, and the loops see
            share and probability together; a change while it does may put the old probability
            beside a few decisions of the new share.
        always_from : float
            Raw scores from this one on are recorded whatever their id; NaN: none is.
        """
        cdef uint64_t limit = share_limit(share)
        if not 0 <= slot < MAX_SLOTS:
            raise FastpathError(f"slot {slot} is outside 0 to {MAX_SLOTS - 1}")
        store_u64(
            &self.rates[slot].probability_bits, _bits_of(<float> share), __ATOMIC_RELAXED
        )
        store_u64(&self.rates[slot].always_from_bits, _bits_of(always_from), __ATOMIC_RELAXED)
        store_u64(&self.rates[slot].limit, limit, __ATOMIC_RELEASE)

    def drain(self, limit=None):
        """Take what the loops have recorded, oldest first of each, and give its room back.

        Parameters
        ----------
        limit : int, optional
            Decisions to take of each ring at the most; everything by default.

        Returns
        -------
        array of DECISION_TYPE, shape (n,)
            A copy: it is the caller's. The loops go on writing meanwhile, and never wait.
        """
        cdef uint64_t most = self.capacity if limit is None else limit
        cdef uint64_t n_taken, at = 0
        cdef unsigned char[::1] room
        cdef int thread
        with self._lock:
            waiting = [min(most, _waiting(self.rings[thread])) for thread in range(self.n_threads)]
            taken = np.empty(sum(waiting), DECISION_TYPE)
            if len(taken):
                room = taken.view(np.uint8)
                for thread in range(self.n_threads):
                    n_taken = waiting[thread]
                    if n_taken != 0:
                        _take(self.rings[thread], n_taken, <decision_t*> &room[at])
                    at += n_taken * sizeof(decision_t)
        return taken

    def stats(self):
        """Return, per loop: recorded, dropped, passed (not sampled), fill (0 to 1, of the ring).

        Returns
        -------
        list of dict of str to int or float
        """
        cdef decisions_t* ring
        cdef int thread
        rows = []
        for thread in range(self.n_threads):
            ring = self.rings[thread]
            used = load_u64(&ring.head, __ATOMIC_ACQUIRE) - load_u64(&ring.tail, __ATOMIC_ACQUIRE)
            rows.append({
                "recorded": load_u64(&ring.n_recorded, __ATOMIC_RELAXED),
                "dropped": load_u64(&ring.n_dropped, __ATOMIC_RELAXED),
                "passed": load_u64(&ring.n_passed, __ATOMIC_RELAXED),
                "fill": used / ring.capacity,
            })
        return rows


cdef uint64_t _waiting(const decisions_t* ring) noexcept nogil:
    return load_u64(&ring.head, __ATOMIC_ACQUIRE) - ring.tail


cdef void _take(decisions_t* ring, uint64_t n, decision_t* out) noexcept nogil:
    # Copy a ring's n oldest decisions out and give their room back.
    cdef uint64_t at = ring.tail & (ring.capacity - 1)
    cdef uint64_t n_first = min(n, ring.capacity - at)
    memcpy(out, ring.data + at, n_first * sizeof(decision_t))
    memcpy(out + n_first, ring.data, (n - n_first) * sizeof(decision_t))
    store_u64(&ring.tail, ring.tail + n, __ATOMIC_RELEASE)
