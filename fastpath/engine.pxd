from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from fastpath._types cimport MAX_REQUEST_ID_BYTES, N_SOURCES, call_t
from fastpath.metrics cimport Metrics, shard_t
from fastpath.plan cimport PlanBoard, arm_t, board_t, plan_t
from fastpath.request_id cimport id_source_t
from fastpath.wire cimport request_t

cdef enum:
    MAX_BATCH = 256              # rows between two flushes; a full batch is flushed at once
    SLAB_VALUES = 65536          # feature values between two flushes


# One row from its complete message to its answer. Owned by the engine.
ctypedef struct row_t:
    call_t* call
    const arm_t* arm             # pinned until the iteration ends
    float* values                # [n_features], in the slab
    uint8_t* sources             # [n_features]
    uint32_t[N_SOURCES] n_by_source
    uint32_t bucket
    int32_t unsticky
    uint32_t options             # option_t bits
    int32_t arm_pending          # 1 until its arm's batch was taken
    int64_t call_arrival_ns      # kept past the completion, which ends the call
    uint64_t parse_ns            # only where the request asked for timings
    uint64_t features_ns
    int32_t n_request_id
    uint8_t[MAX_REQUEST_ID_BYTES] request_id


cdef struct engine_t:
    board_t* board
    const plan_t* plan           # pinned from enter to leave
    shard_t* shard
    int32_t thread
    int32_t n_rows
    int32_t n_values             # used of the slab
    int32_t has_fixed_clock      # tests: no clock is read
    id_source_t ids
    uint8_t* out                 # one encoded answer
    size_t out_bytes
    request_t request            # scratch: the request being taken
    row_t[MAX_BATCH] rows
    float* pointers[MAX_BATCH]
    float[MAX_BATCH] raw
    int32_t[MAX_BATCH] members
    float[SLAB_VALUES] slab
    uint8_t[SLAB_VALUES] source_slab


cdef class Engine:
    cdef engine_t* engine
    cdef readonly PlanBoard board
    cdef readonly Metrics metrics
    cdef readonly int thread


cdef void engine_enter(engine_t* engine) noexcept nogil
cdef void engine_leave(engine_t* engine) noexcept nogil
cdef void engine_score(
    engine_t* engine, call_t* call, const uint8_t* message, size_t n_message, int64_t now_ns
) noexcept nogil
cdef void engine_flush(engine_t* engine, int64_t now_ns) noexcept nogil
# Ends a Score call without an answer, and counts it.
cdef void engine_fail(
    engine_t* engine, call_t* call, int32_t status, const char* text
) noexcept nogil
