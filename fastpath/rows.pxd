"""The engine's own memory: rows from their message to their answer. Declarations only."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from fastpath._types cimport MAX_GROUPS, MAX_KEY_BYTES, MAX_REQUEST_ID_BYTES, call_t
from fastpath.capture cimport ring_t
from fastpath.features cimport fallbacks_t, resolved_t
from fastpath.ledger cimport decisions_t
from fastpath.metrics cimport shard_t
from fastpath.plan cimport MAX_HELD, arm_t, board_t, plan_t
from fastpath.request_id cimport id_source_t
from fastpath.store cimport read_t, store_t
from fastpath.stored cimport group_read_t
from fastpath.wire cimport request_t

cdef enum:
    MAX_BATCH = 256              # rows that are scored together; a full batch is scored at once
    SLAB_VALUES = 65536          # feature values of the rows that do not wait
    MAX_WAITING = 4096           # rows that wait for a store, per loop; more do not wait
    # Of so many rows one is timed. A prime: it beats neither with batches nor with callers' cycles.
    TIMED_ROWS = 61


cdef struct waiting_t
cdef struct engine_t


# One row. Owned by the engine.
ctypedef struct row_t:
    call_t* call
    const arm_t* arm             # pinned until the iteration ends, or held while it waits
    resolved_t resolved          # its `row` and `sources`: in the slab, or a waiting row's own
    waiting_t* waiting           # NULL: the row did not wait
    int16_t has_reads            # `reads` and `event_time_ms` are filled
    int16_t unsticky             # 1: no routing key; the request id took its place
    int32_t is_timed             # its stages are
    int64_t event_time_ms        # of the request; now where it has none
    uint64_t routing_hash        # of the routing key
    uint32_t options             # option_t bits
    int32_t arm_pending          # 1 until its arm's batch was taken
    int64_t features_from_ns     # timed rows: when resolving began
    int64_t ready_ns             # start of the iteration that made it ready to be scored
    int64_t call_arrival_ns      # kept past the completion, which ends the call
    uint64_t parse_ns            # only where the request asked for timings
    uint64_t features_ns
    group_read_t[MAX_GROUPS] reads   # one per group of the arm
    int32_t n_request_id
    uint8_t[MAX_REQUEST_ID_BYTES] request_id


# One online read of a waiting row. `read` comes first: the store hands it back.
ctypedef struct waiting_read_t:
    read_t read
    waiting_t* waiting
    int32_t group
    int32_t is_pending
    uint32_t n_key
    uint8_t[MAX_KEY_BYTES] key   # for the batch table, if the online record does not come


# A row that waits for a store.
cdef struct waiting_t:
    row_t row
    engine_t* engine
    int32_t held                 # index in the thread's held plans
    int32_t n_pending            # reads under way
    int32_t heap_index           # where it stands in the heap of deadlines
    int64_t deadline_ns          # the earliest of its pending reads'
    int64_t since_ns
    waiting_t* next              # in the list of free, or of ready rows
    int32_t n_capacity           # values that `row.resolved` has room for
    waiting_read_t[MAX_GROUPS] reads


cdef struct engine_t:
    board_t* board
    const plan_t* plan           # pinned from enter to leave
    shard_t* shard
    store_t* store               # online records; NULL: none
    ring_t* ring                 # captured decisions; NULL: none are
    decisions_t* ledger          # decisions that wait for outcomes; NULL: none do
    int32_t thread
    int32_t n_rows               # in the batch
    int32_t n_fresh              # of `rows` in use
    int32_t n_values             # used of the slab
    int32_t has_fixed_clock      # tests: no clock is read
    uint32_t n_sync_reads        # one in SAMPLED_READS is timed
    uint32_t n_untimed           # calls until one is timed
    int32_t is_timed             # the call being taken is
    int64_t stage_ns             # of a timed one: when its last stage ended
    id_source_t ids
    uint8_t* out                 # one encoded answer
    size_t out_bytes
    # Rows that wait.
    waiting_t* free
    waiting_t* ready             # in the order in which they became so
    waiting_t** ready_end
    int32_t n_waiting
    int32_t n_made               # waiting rows that have memory
    int32_t[MAX_HELD] held_counts
    waiting_t* heap[MAX_WAITING]  # by deadline_ns, the earliest first
    request_t request            # scratch: the request being taken
    fallbacks_t fallbacks        # scratch, zero between rows
    row_t* batch[MAX_BATCH]
    row_t[MAX_BATCH] rows        # that do not wait
    const float* pointers[MAX_BATCH]
    float[MAX_BATCH] raw
    int32_t[MAX_BATCH] members
    float[SLAB_VALUES] slab
    uint8_t[SLAB_VALUES] source_slab
