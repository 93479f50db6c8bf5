from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from fastpath._types cimport span_t


# One feature of a compiled schema. Owned by the schema_t; immutable after construction.
ctypedef struct feature_t:
    span_t name
    uint8_t type                 # feature_type_t
    uint8_t required             # missing: INVALID_ARGUMENT instead of the default
    uint8_t on_range             # on_range_t: what a value outside its range becomes
    int8_t group                 # index of the group that stores it, or -1: request only
    float default_value          # NaN is allowed: passed to the model
    float minimum                # -inf where there is none; a value below counts as missing
    float maximum                # +inf where there is none; a value above counts as missing
    int32_t n_vocabulary         # categorical: codes are 0 .. n_vocabulary - 1
    span_t* vocabulary
    uint32_t* vocabulary_table   # open addressing: code + 1, or 0; size is a power of two
    uint32_t vocabulary_mask


# What a finite value outside its range becomes. Of a stored record, REJECT is MISSING: the caller
# cannot mend the store.
cdef enum on_range_t:
    ON_RANGE_MISSING = 0
    ON_RANGE_CLIP = 1
    ON_RANGE_REJECT = 2          # of a request: INVALID_ARGUMENT


# A group of stored features. Owned by the schema_t.
ctypedef struct group_t:
    span_t name
    span_t entity                # entity type of the request whose id is the key
    span_t role                  # of that entity; size 0: any, the smallest (role, id)
    uint64_t fingerprint         # of the records that this schema declares
    int32_t has_online
    int32_t has_batch
    int64_t batch_max_age_ms     # INT64_MAX: none
    int64_t budget_ns            # for one online read
    int32_t n_members
    const int32_t* members       # [n_members] feature indices, ascending
    const int64_t* ttl_ms        # [n_members] of the online record; INT64_MAX: none


# How many and which features may fall back before an answer is degraded, or refused.
ctypedef struct fallback_limits_t:
    int32_t degrade_over         # more fallbacks than this degrade; MAX_FEATURES: never
    int32_t reject_over
    const uint8_t* degrades      # [n_features] 1: this feature alone degrades
    const uint8_t* rejects       # [n_features]


ctypedef struct schema_t:
    int32_t n_features
    feature_t* features          # in model order
    uint64_t fingerprint         # of this schema's own layout
    uint32_t* name_table         # open addressing: feature index + 1, or 0
    uint32_t name_mask
    # The rules of all features side by side, so that a whole row is checked in one vector pass.
    # A usable value v has lowest[j] <= v <= highest[j]: both are finite (boolean: 0 and 1,
    # categorical: first and last code), so NaN and the infinities fail the same comparison.
    float* lowest                # [n_features]
    float* highest               # [n_features]
    int32_t n_discrete           # boolean and categorical features: must also be whole numbers
    int32_t* discrete            # [n_discrete] their indices, ascending
    int32_t n_groups
    group_t* groups              # [n_groups]
    fallback_limits_t limits
    int32_t has_limits           # 0: no fallback degrades or refuses
    int32_t has_rules            # 0: no feature clips or rejects


# How an arm reads the rows of one layout. Owned by whoever compiled it (a Gather).
ctypedef struct gather_t:
    uint64_t fingerprint
    int32_t n_columns            # values that a dense request of this layout must hold
    int32_t identity             # columns are the schema's own features, in order
    const int32_t* column        # [n_features]: column of feature j, or -1: the layout lacks it


cdef class Schema:
    cdef schema_t table
    cdef readonly tuple specs    # the FeatureSpec of every feature
    cdef readonly tuple groups   # the GroupSpec of every group
    cdef readonly object limits  # a FallbackLimits
    cdef tuple texts             # the bytes that the spans of `table` borrow


cdef class Gather:
    cdef gather_t table
    cdef readonly Schema schema
    cdef readonly tuple columns  # (name, type) of every column of the layout
    cdef int32_t* column         # table.column, writable


# Index of a feature by name, or -1. `name` need not end in NUL.
cdef int32_t find_feature(const schema_t* schema, const uint8_t* name, size_t size) noexcept nogil
# Code of a categorical value, or -1: unseen.
cdef int32_t find_code(const feature_t* feature, const uint8_t* text, size_t size) noexcept nogil
