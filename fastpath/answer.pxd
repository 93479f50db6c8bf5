from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from fastpath._types cimport span_t
from fastpath.stored cimport arm_group_t, group_read_t


# What changes from answer to answer. Spans borrow; the arm's constant part is encoded once
# per plan (see encode_arm) and appended as bytes.
ctypedef struct response_t:
    span_t request_id
    float raw_score
    double score
    span_t decision
    int32_t has_threshold
    float threshold
    uint32_t bucket
    int32_t unsticky
    int32_t degraded
    int32_t cached
    int32_t explored
    double decision_propensity
    uint32_t n_request
    uint32_t n_online
    uint32_t n_batch
    uint32_t n_default
    span_t arm                   # fields 13 .. 18, already encoded
    const uint8_t* provenance    # NULL: not asked for; else n_provenance source_t bytes
    int32_t n_provenance
    int32_t n_reads              # 0: not asked for
    const arm_group_t* groups    # [n_reads]
    const group_read_t* reads    # [n_reads]
    int32_t has_timings
    uint64_t parse_ns
    uint64_t features_ns
    uint64_t score_ns
    uint64_t total_ns


# Bytes that encode_response may write at most for this answer.
cdef size_t response_bound(const response_t* response) noexcept nogil

# Writes the answer at `out`, which has response_bound() bytes. Returns the length. The bytes are
# those of the official runtime's deterministic serialization.
cdef size_t encode_response(const response_t* response, uint8_t* out) noexcept nogil
