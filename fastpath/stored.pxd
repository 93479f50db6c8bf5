from libc.stdint cimport int32_t, int64_t, uint8_t

from fastpath.features cimport resolved_t
from fastpath.record cimport record_layout_t
from fastpath.schema cimport group_t, schema_t
from fastpath.store cimport batch_t
from fastpath.wire cimport request_t


# One group of an arm's stored features, as its plan serves it. Owned by the plan.
ctypedef struct arm_group_t:
    const group_t* group
    int32_t n_layouts
    const record_layout_t* layouts   # that loaded schemas declare; the arm's own first
    const batch_t* batch             # NULL: no batch table


# How the records of one group were found. Ages are -1 where there is no record.
ctypedef struct group_read_t:
    uint8_t online               # outcome_t
    uint8_t batch                # outcome_t
    int64_t online_age_ms
    int64_t batch_age_ms


# Whether any feature of the group still lacks a value.
cdef bint lacks_any(const group_t* group, const uint8_t* sources) noexcept nogil
# Writes "group:id" for the request's entity of the group's type: `key` has MAX_KEY_BYTES. Returns
# its length, or 0: there is no such entity, or its id is empty or too long to be stored.
cdef size_t record_key_of(
    const group_t* group, const request_t* request, uint8_t* key
) noexcept nogil
# The pass over one record: fills vacant features of the group. `source` is SOURCE_ONLINE or
# SOURCE_BATCH. Returns an outcome_t: HIT where the record was fresh for a feature at least, else
# STALE, FOREIGN or MALFORMED. `age_ms` is set where the record could be read.
cdef int32_t take_record(
    const schema_t* schema, const arm_group_t* group, const uint8_t* data, size_t size,
    int32_t source, int64_t event_time_ms, resolved_t* out, int64_t* age_ms
) noexcept nogil
# Reads the group's batch table, where there is one, for what is still vacant.
cdef void take_batch(
    const schema_t* schema, const arm_group_t* group, int32_t thread, const uint8_t* key,
    size_t n_key, int64_t event_time_ms, resolved_t* out, group_read_t* read
) noexcept nogil
