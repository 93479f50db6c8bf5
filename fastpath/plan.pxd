from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from fastpath._types cimport MAX_LOOPS, model_t, span_t
from fastpath.routing cimport bucket_table_t
from fastpath.schema cimport Schema, gather_t, schema_t
from fastpath.stored cimport arm_group_t

cdef enum:
    MAX_HELD = 8                 # plans that rows of one thread may wait in at the same time


# A layout that an arm cannot read, and why: "lacks the required feature ...".
ctypedef struct refusal_t:
    uint64_t fingerprint
    span_t text


# One version of a model in service. Owned by its Plan, immutable, as everything it points to.
ctypedef struct arm_t:
    model_t model
    const schema_t* schema
    int32_t n_gathers
    const gather_t* gathers      # one per layout that the model's clients may use
    int32_t n_refusals
    const refusal_t* refusals    # layouts of other versions that this arm cannot read
    int32_t n_groups
    const arm_group_t* groups    # of stored features, in the schema's order
    int32_t link                 # link_t
    int32_t score_kind           # score_kind_t
    double prior_shift           # log-odds
    int32_t n_thresholds
    const float* cuts            # [n_thresholds], ascending, raw-score space
    const span_t* decisions      # [n_thresholds + 1]; [0] is the default decision
    span_t encoded               # fields 13 to 18 of every answer
    span_t title                 # "fraud 3", for error texts
    double explore_share         # of the strictest decisions: answered with the default one
    uint64_t explore_limit       # the same, as `is_explored` takes it
    int32_t slot                 # of the metrics
    uint8_t index                # among the model's arms
    uint64_t generation          # of the plan


ctypedef struct override_t:
    span_t key
    uint64_t hash                # of the key, by the model's table
    int32_t arm


ctypedef struct plan_model_t:
    span_t name
    span_t routing_entity        # size 0: none
    int32_t n_arms
    const arm_t* arms
    const bucket_table_t* table
    int32_t n_overrides
    const override_t* overrides  # [n_overrides] routing keys pinned to an arm
    const uint32_t* override_table   # open addressing by hash: index + 1, or 0; 2^n places
    uint32_t override_mask
    uint32_t override_bits_mask
    const uint64_t* override_bits    # one of 2^n bits by hash: 0, nobody is pinned whose hash it is
    span_t description           # an encoded GetModelResponse


ctypedef struct plan_t:
    uint64_t generation
    int32_t n_models
    int32_t default_model
    const plan_model_t* models


# What a thread may be reading, on a cache line of its own.
cdef struct hazard_t:
    void* plan
    uint8_t[56] padding
    void* held[MAX_HELD]         # plans of rows that wait beyond the iteration; a line of its own


cdef struct board_t:
    void* published              # plan_t*, or NULL: nothing serves
    int32_t serving              # what the health service says
    uint8_t[52] padding
    hazard_t[MAX_LOOPS] hazards


cdef class Plan:
    cdef plan_t table
    cdef list _owners            # every Python object that owns memory behind `table`
    cdef readonly tuple models
    cdef readonly dict batch     # group -> BatchTable
    cdef dict _record_columns    # group -> list of record layouts that the plan's schemas declare
    cdef void* _own(self, size_t size_bytes) except NULL
    cdef span_t _span(self, bytes text) except *
    cdef int _compile_model(self, plan_model_t* out, model) except -1
    cdef int _compile_arm(self, arm_t* out, str name, arm, layouts) except -1
    cdef int _compile_overrides(self, plan_model_t* out, model) except -1
    cdef int _compile_gathers(self, arm_t* out, str where, Schema schema, layouts) except -1
    cdef int _compile_groups(self, arm_t* out, str where, Schema schema) except -1


cdef class PlanBoard:
    cdef board_t* board
    cdef object _lock            # publishers only; loops never take it
    cdef object _published
    cdef list _retired
    cdef bint _is_held(self, Plan plan)


# Start of an iteration: pins the published plan for this thread and returns it, or NULL.
cdef const plan_t* pin(board_t* board, int thread) noexcept nogil
# End of an iteration: the thread holds no pointer into any plan.
cdef void unpin(board_t* board, int thread) noexcept nogil
# Holding a plan past the iteration, for rows that wait. `find_hold` returns the place of this plan
# among the thread's held ones, or a free one, or -1: too many are held. The caller counts its
# rows: `hold` before the first, while the plan is pinned; `unhold` after the last.
cdef int32_t find_hold(const board_t* board, int thread, const plan_t* plan) noexcept nogil
cdef void hold(board_t* board, int thread, int32_t place, const plan_t* plan) noexcept nogil
cdef void unhold(board_t* board, int thread, int32_t place) noexcept nogil
# Arm that a routing key is pinned to, or -1. `hash` is `hash_of` the key by the model's table.
cdef inline int32_t find_override(
    const plan_model_t* model, const uint8_t* key, size_t size, uint64_t hash
) noexcept nogil:
    cdef uint32_t slot, bit
    cdef uint32_t entry
    cdef const override_t* candidate
    if model.n_overrides == 0:
        return -1
    bit = <uint32_t> (hash >> 32) & model.override_bits_mask
    if not (model.override_bits[bit >> 6] >> (bit & 63)) & 1:
        return -1
    # The hash that chose the bucket: nobody can fill a run of places without the salt.
    slot = <uint32_t> hash & model.override_mask
    entry = model.override_table[slot]
    while entry != 0:
        candidate = &model.overrides[entry - 1]
        if candidate.hash == hash and candidate.key.size == size:
            if memcmp(candidate.key.data, key, size) == 0:
                return candidate.arm
        slot = (slot + 1) & model.override_mask
        entry = model.override_table[slot]
    return -1
# Index of a model by name (empty: the default), or -1.
cdef int32_t find_model(const plan_t* plan, const uint8_t* name, size_t size) noexcept nogil
