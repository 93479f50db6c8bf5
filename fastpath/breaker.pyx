"""A circuit breaker: stops asking a store that mostly fails, and finds out when it is well again.

Rules: pure; time is a parameter and does not run backwards. One thread owns a breaker.

States: *closed*: every read is admitted, and its end is counted in a sliding window of
BREAKER_BUCKETS buckets. When the window holds enough reads and a large enough share of them
failed, it opens. *Open*: reads are refused, until the cool-off has passed; the next read finds it
*half-open*: that read is the probe, all others are refused until it has ended. A good probe closes
the breaker with an empty window and the first cool-off; a failed one opens it again for twice as
long, up to a maximum. Of each cool-off up to a quarter is taken off at random, so that many
servers do not probe at one moment.

A read's ticket is the epoch that it was admitted in. One that ends in another epoch says nothing
about the present state and is not counted.

What it does not do: it starts no probe by itself, and it does not know what a failure is.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from fastpath.jitter cimport next_uniform

from fastpath.redis_options import BreakerSpec

cdef double JITTER_SHARE = 0.25
cdef int64_t MILLISECOND_NS = 1_000_000


cdef void _roll(breaker_t* breaker, int64_t now_ns) noexcept nogil:
    cdef int64_t bucket = now_ns // breaker.bucket_ns
    cdef int64_t i
    cdef int64_t slot
    cdef int64_t first = max(breaker.bucket + 1, bucket - BREAKER_BUCKETS + 1)
    for i in range(first, bucket + 1):
        slot = i % BREAKER_BUCKETS
        breaker.n_reads -= breaker.reads[slot]
        breaker.n_failures -= breaker.failures[slot]
        breaker.reads[slot] = 0
        breaker.failures[slot] = 0
    breaker.bucket = max(breaker.bucket, bucket)


cdef void _open(breaker_t* breaker, int64_t now_ns) noexcept nogil:
    breaker.state = BREAKER_OPEN
    breaker.epoch += 1
    breaker.n_opened += 1
    breaker.retry_ns = now_ns + <int64_t> (
        breaker.cool_off_ns * (1.0 - JITTER_SHARE * next_uniform(&breaker.seed))
    )


cdef void _close(breaker_t* breaker) noexcept nogil:
    breaker.state = BREAKER_CLOSED
    breaker.epoch += 1
    breaker.cool_off_ns = breaker.first_cool_off_ns
    memset(breaker.reads, 0, sizeof(breaker.reads))
    memset(breaker.failures, 0, sizeof(breaker.failures))
    breaker.n_reads = 0
    breaker.n_failures = 0


cdef bint breaker_refuses(const breaker_t* breaker, int64_t now_ns) noexcept nogil:
    if breaker.state == BREAKER_OPEN:
        return now_ns < breaker.retry_ns
    return breaker.state == BREAKER_HALF_OPEN and breaker.probing


cdef int64_t breaker_admit(breaker_t* breaker, int64_t now_ns) noexcept nogil:
    if breaker.state == BREAKER_CLOSED:
        return breaker.epoch
    if breaker_refuses(breaker, now_ns):
        return 0
    if breaker.state == BREAKER_OPEN:
        breaker.state = BREAKER_HALF_OPEN
        breaker.epoch += 1
    breaker.probing = 1
    return breaker.epoch


cdef void breaker_settle(
    breaker_t* breaker, int64_t ticket, bint failed, int64_t now_ns
) noexcept nogil:
    if ticket != breaker.epoch or not breaker.enabled:
        return
    if breaker.state == BREAKER_HALF_OPEN:
        breaker.probing = 0
        if failed:
            breaker.cool_off_ns = min(2 * breaker.cool_off_ns, breaker.max_cool_off_ns)
            _open(breaker, now_ns)
        else:
            _close(breaker)
        return
    _roll(breaker, now_ns)
    breaker.reads[breaker.bucket % BREAKER_BUCKETS] += 1
    breaker.n_reads += 1
    if not failed:
        return
    breaker.failures[breaker.bucket % BREAKER_BUCKETS] += 1
    breaker.n_failures += 1
    if (breaker.n_reads >= breaker.min_reads
            and breaker.n_failures >= breaker.failure_share * breaker.n_reads):
        _open(breaker, now_ns)


cdef void breaker_release(breaker_t* breaker, int64_t ticket) noexcept nogil:
    if ticket == breaker.epoch and breaker.state == BREAKER_HALF_OPEN:
        breaker.probing = 0


cdef int breaker_configure(breaker_t* breaker, spec, uint64_t seed) except -1:
    spec.check()
    memset(breaker, 0, sizeof(breaker_t))
    breaker.enabled = spec.enabled
    breaker.bucket_ns = spec.window_ms * MILLISECOND_NS // BREAKER_BUCKETS
    breaker.min_reads = spec.min_reads
    breaker.failure_share = spec.failure_share
    breaker.first_cool_off_ns = spec.cool_off_ms * MILLISECOND_NS
    breaker.max_cool_off_ns = spec.max_cool_off_ms * MILLISECOND_NS
    breaker.cool_off_ns = breaker.first_cool_off_ns
    breaker.epoch = 1
    breaker.seed = seed
    return 0


cdef class Breaker:
    """A breaker of its own, for tests and tools.

    Parameters
    ----------
    spec : BreakerSpec
        Checked: StoreError where a field is out of its range.
    seed : int
        Of the jitter.
    """

    cdef breaker_t breaker

    def __cinit__(self, spec=BreakerSpec(), seed=0):
        breaker_configure(&self.breaker, spec, seed)

    def refuses(self, int64_t now_ns):
        """Return whether a read would be refused now; changes nothing."""
        return bool(breaker_refuses(&self.breaker, now_ns))

    def admit(self, int64_t now_ns):
        """Return the ticket of an admitted read, or 0."""
        return breaker_admit(&self.breaker, now_ns)

    def settle(self, int64_t ticket, bint failed, int64_t now_ns):
        """Say how an admitted read ended."""
        breaker_settle(&self.breaker, ticket, failed, now_ns)

    def release(self, int64_t ticket):
        """Give a ticket back whose read says nothing about the store."""
        breaker_release(&self.breaker, ticket)

    @property
    def state(self):
        """0 closed, 1 half-open, 2 open (until a read comes after the cool-off)."""
        return self.breaker.state

    @property
    def n_opened(self):
        """How often it opened."""
        return self.breaker.n_opened

    @property
    def retry_ns(self):
        """Time at which the present, or last, cool-off ends."""
        return self.breaker.retry_ns

    @property
    def window(self):
        """(reads, failures) counted in the window as of the last read."""
        return self.breaker.n_reads, self.breaker.n_failures
