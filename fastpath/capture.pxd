from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastpath.metrics cimport MAX_SLOTS

cdef enum:
    CAPTURE_VERSION = 1


# One decision, as it leaves the loop. Followed by n_features float32 values of the resolved row,
# n_features source_t bytes, and padding to 8 bytes.
ctypedef struct captured_t:
    uint32_t size_bytes          # of the whole entry; version 0: a gap up to the ring's end
    uint16_t version             # CAPTURE_VERSION
    uint16_t n_features
    uint64_t[2] id_hash          # SipHash-2-4 of the request id, under two keys
    int64_t event_time_ms        # of the request; its decision's where it has none
    int64_t decided_time_ms
    uint64_t generation
    float raw
    uint32_t bucket
    uint16_t slot                # of the metrics: model and version
    uint8_t arm                  # index in the model
    uint8_t decision             # index: 0 is the default one
    uint8_t degraded
    uint8_t unsticky
    uint8_t[2] padding


# The ring of one loop: one writer (the loop), one reader (whoever drains). Owned by a Capture.
cdef struct ring_t:
    # The reader's.
    uint64_t tail                # atomic; bytes read so far
    uint8_t[56] padding_a
    # The writer's.
    uint64_t head                # atomic; bytes written so far
    uint64_t seen_tail           # the writer's last look at `tail`
    uint64_t n_captured          # counter
    uint64_t n_dropped           # counter: the ring was full
    uint64_t random              # state of the skips' generator
    uint8_t[24] padding_b
    # Shared, read-mostly.
    uint64_t capacity            # bytes, a power of two
    uint8_t* data
    const double* rates          # [MAX_SLOTS] share of decisions to capture; the Capture's
    int64_t[MAX_SLOTS] skips     # the writer's; see is_sampled


cdef class Capture:
    cdef ring_t** rings          # [n_threads]
    cdef double* rates           # [MAX_SLOTS]
    cdef readonly int n_threads
    cdef readonly size_t capacity_bytes
    cdef object _lock            # readers only
    cdef ring_t* ring(self, int thread) except NULL


# Whether this decision of the slot is to be captured. One decrement, nearly always.
cdef bint is_sampled(ring_t* ring, int32_t slot) noexcept nogil
# Room for an entry of so many features, or NULL: the ring is full, and the drop was counted. Its
# size_bytes, version and n_features are set, the rest is the caller's to fill.
cdef captured_t* begin_entry(ring_t* ring, int32_t n_features) noexcept nogil
# Where the entry's values and sources go.
cdef float* entry_values(captured_t* entry) noexcept nogil
cdef uint8_t* entry_sources(captured_t* entry) noexcept nogil
# Makes the entry of the last `begin_entry` visible to the reader.
cdef void end_entry(ring_t* ring, captured_t* entry) noexcept nogil
# 128-bit hash of a request id.
cdef void hash_id(const uint8_t* id, size_t size, uint64_t* out) noexcept nogil
