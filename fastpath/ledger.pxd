from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastpath.metrics cimport MAX_SLOTS

cdef enum:
    # Of decision_t.flags; the same numbers are DEGRADED ... in Python.
    FLAG_DEGRADED = 1
    FLAG_EXPLORED = 2            # the decision was changed to gather labels
    FLAG_UNSTICKY = 4            # no routing key: `entity_hash` says nothing


# What is remembered of one decision until its outcome comes: 64 bytes, one cache line.
ctypedef struct decision_t:
    uint64_t[2] id_hash          # of the request id: capture.hash_id
    int64_t decided_time_ms
    uint64_t entity_hash         # of the routing key
    uint64_t generation
    float raw
    float score
    float sampling_probability   # with which this decision was recorded
    float propensity             # with which it was taken
    uint16_t slot                # of the metrics: model and version
    uint8_t arm                  # index in the model
    uint8_t decision             # index that was answered: 0 is the default one
    uint8_t policy_decision      # index that the thresholds say
    uint8_t flags
    uint8_t[2] padding


# What of a slot is recorded. Written by the control plane, read by the loops.
ctypedef struct ledger_rate_t:
    uint64_t limit               # atomic; recorded where mix(id) < limit; ALL: always
    uint64_t probability_bits    # atomic; the same as a float's bits
    uint64_t always_from_bits    # atomic; raw scores from this one (float's bits) always are


# One loop's ring: one writer (the loop), one reader.
cdef struct decisions_t:
    # The reader's.
    uint64_t tail                # atomic; decisions read so far
    uint8_t[56] padding_a
    # The writer's.
    uint64_t head                # atomic; decisions written so far
    uint64_t seen_tail
    uint64_t n_recorded          # counter
    uint64_t n_dropped           # counter: the ring was full
    uint64_t n_passed            # counter: not sampled
    uint8_t[24] padding_b
    # Shared, read-mostly.
    uint64_t capacity            # decisions, a power of two
    decision_t* data
    const ledger_rate_t* rates   # [MAX_SLOTS]


cdef class Ledger:
    cdef decisions_t** rings     # [n_threads]
    cdef ledger_rate_t* rates    # [MAX_SLOTS]
    cdef readonly int n_threads
    cdef readonly size_t capacity
    cdef object _lock            # readers only
    cdef decisions_t* ring(self, int thread) except NULL


# Whether a decision is recorded, and with which probability it would have been: 0, it is not.
# A ring that is more than half full thins.
cdef float recorded_with(
    decisions_t* ring, int32_t slot, const uint64_t* id_hash, float raw
) noexcept nogil
# Room for one, or NULL: the ring is full, and the drop was counted.
cdef decision_t* begin_decision(decisions_t* ring) noexcept nogil
# Makes the one of the last `begin_decision` visible to the reader.
cdef void end_decision(decisions_t* ring) noexcept nogil
# Whether a request's decision is changed to gather labels: the same for its every attempt, and
# independent of whether it is recorded.
cdef bint is_explored(const uint64_t* id_hash, uint64_t limit) noexcept nogil
