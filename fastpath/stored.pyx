"""From stored records to the model's row: the passes between the request and the defaults.

Rules: a record fills features that the request left vacant, never others. Its values obey the
feature's rules as the request's do, except that a value outside a range that *rejects* is only
missing: the caller cannot mend a store; and a code outside a vocabulary leaves the feature marked
as unseen. Ages count from the request's event time; a record from
after that moment is as fresh as can be. An online record is judged feature by feature (time to
live), a batch record as a whole (maximal age). A record of a layout that no loaded schema
declares, or whose size does not fit its layout, is not read at all.

The key is the group's name, a colon, and the id of the request's entity of the group's type, and
of its role where it names one.

Does not read stores: the caller has the record's bytes.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from fastpath._types cimport (
    FEATURE_CATEGORICAL,
    FEATURE_NUMERIC,
    MAX_ENTITY_ID_BYTES,
    MISSING_UNSEEN,
    OUTCOME_FOREIGN,
    OUTCOME_HIT,
    OUTCOME_MALFORMED,
    OUTCOME_STALE,
    SOURCE_BATCH,
    SOURCE_ONLINE,
    span_t,
)
from fastpath.entities cimport choose_entity
from fastpath.features cimport VACANT, resolved_t
from fastpath.record cimport parse_record, record_layout_t, record_t
from fastpath.schema cimport ON_RANGE_CLIP, group_t, schema_t
from fastpath.wire cimport entity_t, request_t


cdef bint lacks_any(const group_t* group, const uint8_t* sources) noexcept nogil:
    cdef int32_t i
    for i in range(group.n_members):
        if sources[group.members[i]] & VACANT:
            return True
    return False


cdef size_t record_key_of(
    const group_t* group, const request_t* request, uint8_t* key
) noexcept nogil:
    cdef const entity_t* entity = choose_entity(request, &group.entity, &group.role)
    if entity is NULL or entity.id.size > MAX_ENTITY_ID_BYTES:
        return 0
    memcpy(key, group.name.data, group.name.size)
    key[group.name.size] = c":"
    memcpy(key + group.name.size + 1, entity.id.data, entity.id.size)
    return group.name.size + 1 + entity.id.size


cdef inline bint _usable(const schema_t* schema, int32_t j, float* value) noexcept nogil:
    # NaN and the infinities fail the first comparison and cannot be clipped.
    cdef float v = value[0]
    if v >= schema.lowest[j] and v <= schema.highest[j]:
        # Most schemas have numbers only: their features, a cache line each, are not looked at.
        return (
            schema.n_discrete == 0
            or schema.features[j].type == FEATURE_NUMERIC
            or <float> <int32_t> v == v
        )
    if schema.features[j].on_range != ON_RANGE_CLIP or v - v != 0:
        return False
    value[0] = schema.lowest[j] if v < schema.lowest[j] else schema.highest[j]
    return True


cdef int32_t _fill(
    const schema_t* schema, const group_t* group, const record_layout_t* layout,
    const uint8_t* values, int32_t source, int64_t age_ms, resolved_t* out
) noexcept nogil:
    """Take what is fresh and wanted; returns whether the record was fresh for any feature."""
    # Copies: a store through `sources` or `row` might, for all the compiler knows, change these.
    cdef const int32_t* members = group.members
    cdef const int64_t* ttl_ms = group.ttl_ms
    cdef const int32_t* columns = layout.column
    cdef float* row = out.row
    cdef uint8_t* sources = out.sources
    cdef int32_t n_members = group.n_members
    cdef uint32_t n_filled = 0
    cdef bint is_fresh = False
    cdef int32_t i, j
    cdef float value
    for i in range(n_members):
        if source == SOURCE_ONLINE and age_ms > ttl_ms[i]:
            continue
        is_fresh = True
        j = members[i]
        if columns[i] < 0 or not sources[j] & VACANT:
            continue
        memcpy(&value, values + 4 * columns[i], 4)
        if _usable(schema, j, &value):
            row[j] = value
            sources[j] = <uint8_t> source
            n_filled += 1
        elif schema.features[j].type == FEATURE_CATEGORICAL and value == value:
            sources[j] = VACANT | MISSING_UNSEEN
    out.n_by_source[source] += n_filled
    return is_fresh


cdef int32_t take_record(
    const schema_t* schema, const arm_group_t* group, const uint8_t* data, size_t size,
    int32_t source, int64_t event_time_ms, resolved_t* out, int64_t* age_ms
) noexcept nogil:
    cdef const group_t* declared = group.group
    cdef const record_layout_t* layout = NULL
    cdef record_t record
    cdef int32_t i
    cdef int64_t age
    if parse_record(data, size, &record) != 0:
        return OUTCOME_MALFORMED
    for i in range(group.n_layouts):
        if group.layouts[i].fingerprint == record.fingerprint:
            layout = &group.layouts[i]
            break
    if layout is NULL:
        return OUTCOME_FOREIGN
    if record.n_values != layout.n_columns:
        return OUTCOME_MALFORMED
    if record.event_time_ms >= event_time_ms:
        age = 0
    elif record.event_time_ms < 0 and event_time_ms > INT64_MAX + record.event_time_ms:
        age = INT64_MAX
    else:
        age = event_time_ms - record.event_time_ms
    age_ms[0] = age
    if source == SOURCE_BATCH and age > declared.batch_max_age_ms:
        return OUTCOME_STALE
    if _fill(schema, declared, layout, record.values, source, age, out):
        return OUTCOME_HIT
    return OUTCOME_STALE


cdef void take_batch(
    const schema_t* schema, const arm_group_t* group, int32_t thread, const uint8_t* key,
    size_t n_key, int64_t event_time_ms, resolved_t* out, group_read_t* read
) noexcept nogil:
    cdef span_t record
    if group.batch is NULL or not lacks_any(group.group, out.sources):
        return
    read.batch = <uint8_t> group.batch.get(group.batch.impl, thread, key, n_key, &record)
    if read.batch == OUTCOME_HIT:
        read.batch = <uint8_t> take_record(
            schema, group, record.data, record.size, SOURCE_BATCH, event_time_ms, out,
            &read.batch_age_ms,
        )
