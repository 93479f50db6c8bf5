"""From a request to the model's row: every feature from the first source that has a value.

Rules: the order is request, online record, batch record, then the schema's default. A value of the
request counts as missing when it is absent, null (NaN), infinite, outside its range (a boolean:
not 0 or 1) or unseen (a categorical: not a code, or a text outside the vocabulary); the kinds are
counted apart. Numbers become float32, rounded to nearest, before any rule is applied. A finite
number outside its range is clipped or refused instead where the schema says so. A required feature
that no source has is the caller's error, and so are a wrong number of values, a name that the
schema does not have, and a value of another kind than the feature's type.

A value *falls back* when it comes from a default, or from a batch record of a group that has online
records. The schema may bound how many, or which, may do so: past it the answer is marked degraded,
or refused.

How it works: each source is a pass over the row. A pass that cannot fill a feature leaves a mark in
`sources` (VACANT and why); the next pass looks at marked features only, the last one fills the
rest with defaults. The passes over records are in `stored`. A dense row of the schema's own
layout without a missing value, the common case, is checked by one vector comparison against
the bounds and copied.

Does not look at stores and does not choose the gather: that is the engine's.
"""

import numpy as np

from fastpath.errors import RequestError

from libc.math cimport isinf, isnan
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastpath._types cimport (
    ERROR_TEXT_BYTES,
    FEATURE_BOOLEAN,
    FEATURE_CATEGORICAL,
    FEATURE_NUMERIC,
    MAX_FEATURES,
    N_SOURCES,
    SOURCE_BATCH,
    SOURCE_DEFAULT,
    SOURCE_ONLINE,
    SOURCE_REQUEST,
    SOURCE_UNSEEN,
    STATUS_FAILED_PRECONDITION,
    STATUS_INVALID_ARGUMENT,
    error_t,
    span_t,
)
from fastpath.schema cimport (
    ON_RANGE_CLIP,
    ON_RANGE_REJECT,
    Gather,
    Schema,
    fallback_limits_t,
    feature_t,
    find_code,
    find_feature,
    gather_t,
    schema_t,
)
from fastpath.wire cimport (
    FORM_DENSE,
    KIND_FLAG,
    KIND_NULL,
    KIND_NUMBER,
    KIND_TEXT,
    decode_request,
    named_t,
    request_t,
)

__all__ = ["resolve_message"]

cdef enum:
    SHOWN_NAME_BYTES = 80        # of a name in an error text


# ------------------------------------------------------------------ errors

cdef int shown_bytes(span_t name) noexcept nogil:
    """Length of the part of a name that an error text has room for, cut between characters."""
    cdef size_t size = name.size
    if size <= SHOWN_NAME_BYTES:
        return <int> size
    size = SHOWN_NAME_BYTES
    while size > 0 and (name.data[size] & 0xC0) == 0x80:
        size -= 1
    return <int> size


cdef const char* type_name(uint8_t type) noexcept nogil:
    if type == FEATURE_NUMERIC:
        return "numeric"
    return "boolean" if type == FEATURE_BOOLEAN else "categorical"


cdef const char* expected_kind(uint8_t type) noexcept nogil:
    if type == FEATURE_NUMERIC:
        return "a number"
    return "a flag, or 0 or 1 as a number" if type == FEATURE_BOOLEAN else "a text"


cdef const char* kind_name(int32_t kind) noexcept nogil:
    if kind == KIND_NUMBER:
        return "a number"
    return "a flag" if kind == KIND_FLAG else "a text"


cdef const char* reason_name(int32_t reason) noexcept nogil:
    if reason == MISSING_ABSENT:
        return "is absent"
    if reason == MISSING_NULL:
        return "is null (NaN)"
    if reason == MISSING_INFINITE:
        return "is infinite"
    if reason == MISSING_RANGE:
        return "is outside its range"
    return "is not in its vocabulary"


cdef int32_t wrong_count(error_t* error, int32_t n_values, int32_t n_columns) noexcept nogil:
    error.status = STATUS_INVALID_ARGUMENT
    snprintf(
        error.text, ERROR_TEXT_BYTES,
        "DenseFeatures.values holds %d values, its layout has %d columns; send one value per "
        "column, NaN where there is none",
        <int> n_values, <int> n_columns,
    )
    return -1


cdef int32_t unknown_layout(error_t* error, const request_t* request) noexcept nogil:
    error.status = STATUS_FAILED_PRECONDITION
    snprintf(
        error.text, ERROR_TEXT_BYTES,
        "layout 0x%016llx is not one that this model knows; call GetModel for its layouts",
        <unsigned long long> request.layout,
    )
    return -1


cdef int32_t unknown_feature(error_t* error, span_t name) noexcept nogil:
    error.status = STATUS_INVALID_ARGUMENT
    snprintf(
        error.text, ERROR_TEXT_BYTES,
        "feature \"%.*s\" is not in the model's schema; call GetModel for the names",
        shown_bytes(name), <const char*> name.data,
    )
    return -1


cdef int32_t mistyped(
    error_t* error, const feature_t* feature, int32_t kind
) noexcept nogil:
    error.status = STATUS_INVALID_ARGUMENT
    snprintf(
        error.text, ERROR_TEXT_BYTES,
        "feature \"%.*s\" is %s and takes %s, but the request holds %s",
        shown_bytes(feature.name), <const char*> feature.name.data,
        type_name(feature.type), expected_kind(feature.type), kind_name(kind),
    )
    return -1


cdef int32_t lacks_required(
    error_t* error, const feature_t* feature, int32_t reason
) noexcept nogil:
    error.status = STATUS_INVALID_ARGUMENT
    snprintf(
        error.text, ERROR_TEXT_BYTES,
        "feature \"%.*s\" is required, but its value %s; send a valid one",
        shown_bytes(feature.name), <const char*> feature.name.data, reason_name(reason),
    )
    return -1


# ------------------------------------------------------------------ passes

cdef inline bint is_whole(float value) noexcept nogil:
    """Whether a value has no fraction, for values within +-2**24."""
    return <float> <int32_t> value == value


cdef int32_t rejected(error_t* error, const feature_t* feature, float value) noexcept nogil:
    error.status = STATUS_INVALID_ARGUMENT
    snprintf(
        error.text, ERROR_TEXT_BYTES,
        "feature \"%.*s\" is %g, outside its range of %g to %g; send a value inside, or none",
        shown_bytes(feature.name), <const char*> feature.name.data, <double> value,
        <double> feature.minimum, <double> feature.maximum,
    )
    return -1


cdef inline int32_t take(
    const schema_t* schema, int32_t j, float value, resolved_t* out, error_t* error
) noexcept nogil:
    """Use one float32 value of the request for feature j, or mark why not; -1: refused."""
    cdef int32_t reason
    cdef uint8_t type = schema.features[j].type
    if value >= schema.lowest[j] and value <= schema.highest[j] and (
        type == FEATURE_NUMERIC or is_whole(value)
    ):
        out.row[j] = value
        out.sources[j] = SOURCE_REQUEST
        out.n_by_source[<int> SOURCE_REQUEST] += 1
        return 0
    if isnan(value):
        reason = MISSING_NULL
    elif isinf(value):
        reason = MISSING_INFINITE
    elif type == FEATURE_CATEGORICAL:
        reason = MISSING_UNSEEN
    elif schema.features[j].on_range == ON_RANGE_CLIP:
        out.row[j] = schema.lowest[j] if value < schema.lowest[j] else schema.highest[j]
        out.sources[j] = SOURCE_REQUEST
        out.n_by_source[<int> SOURCE_REQUEST] += 1
        out.n_missing[<int> MISSING_RANGE] += 1
        return 0
    elif schema.features[j].on_range == ON_RANGE_REJECT:
        return rejected(error, &schema.features[j], value)
    else:
        reason = MISSING_RANGE
    vacate(j, reason, out)
    return 0


cdef inline void vacate(int32_t j, int32_t reason, resolved_t* out) noexcept nogil:
    out.sources[j] = <uint8_t> (VACANT | reason)
    out.n_missing[reason] += 1


cdef inline bint is_complete(const schema_t* schema, const float* values) noexcept nogil:
    """Whether every value of a row in schema order is usable: no branches, so it vectorises."""
    cdef int32_t n_bad = 0
    cdef int32_t j
    cdef float value
    cdef const float* lowest = schema.lowest
    cdef const float* highest = schema.highest
    for j in range(schema.n_features):
        n_bad += 1 - (<int32_t> (values[j] >= lowest[j]) & <int32_t> (values[j] <= highest[j]))
    if n_bad != 0:
        return False
    for j in range(schema.n_discrete):
        value = values[schema.discrete[j]]
        n_bad += <int32_t> (not is_whole(value))
    return n_bad == 0


cdef int32_t from_dense(
    const schema_t* schema, const gather_t* gather, const request_t* request,
    resolved_t* out, error_t* error
) noexcept nogil:
    """Request pass over a dense row."""
    cdef const float* values = &request.values[0]
    cdef int32_t j
    cdef int32_t column
    if gather is NULL:
        return unknown_layout(error, request)
    if request.n_values != gather.n_columns:
        return wrong_count(error, request.n_values, gather.n_columns)
    if gather.identity and is_complete(schema, values):
        memcpy(out.row, values, schema.n_features * sizeof(float))
        memset(out.sources, SOURCE_REQUEST, schema.n_features)
        out.n_by_source[<int> SOURCE_REQUEST] = schema.n_features
        return 0
    for j in range(schema.n_features):
        column = gather.column[j]
        if column >= 0:
            if take(schema, j, values[column], out, error) != 0:
                return -1
        else:
            vacate(j, MISSING_ABSENT, out)
    return 0


cdef int32_t take_named(
    const schema_t* schema, int32_t j, const named_t* named, resolved_t* out, error_t* error
) noexcept nogil:
    """Use one named value for feature j, or mark why not; a value of another kind is an error."""
    cdef const feature_t* feature = &schema.features[j]
    cdef int32_t code
    if named.kind == KIND_NULL:
        vacate(j, MISSING_NULL, out)
        return 0
    if feature.type == FEATURE_CATEGORICAL:
        if named.kind != KIND_TEXT:
            return mistyped(error, feature, named.kind)
        code = find_code(feature, named.text.data, named.text.size)
        if code < 0:
            vacate(j, MISSING_UNSEEN, out)
            return 0
        return take(schema, j, <float> code, out, error)
    if named.kind == KIND_NUMBER or (
        named.kind == KIND_FLAG and feature.type == FEATURE_BOOLEAN
    ):
        return take(schema, j, <float> named.number, out, error)
    return mistyped(error, feature, named.kind)


cdef int32_t from_named(
    const schema_t* schema, const request_t* request, resolved_t* out, error_t* error
) noexcept nogil:
    """Request pass over named features; a request without features is one without names."""
    cdef const named_t* named
    cdef int32_t i
    cdef int32_t j
    memset(out.sources, VACANT | MISSING_ABSENT, schema.n_features)
    for i in range(request.n_named):
        named = &request.named[i]
        j = find_feature(schema, named.name.data, named.name.size)
        if j < 0:
            return unknown_feature(error, named.name)
        if take_named(schema, j, named, out, error) != 0:
            return -1
    out.n_missing[<int> MISSING_ABSENT] = schema.n_features - request.n_named
    return 0


cdef int32_t resolve_request(
    const schema_t* schema, const gather_t* gather, const request_t* request,
    resolved_t* out, error_t* error
) noexcept nogil:
    memset(out.n_by_source, 0, sizeof(out.n_by_source))
    memset(out.n_missing, 0, sizeof(out.n_missing))
    out.degraded = 0
    if request.form == FORM_DENSE:
        return from_dense(schema, gather, request, out, error)
    return from_named(schema, request, out, error)


cdef int32_t too_many(
    error_t* error, const schema_t* schema, const resolved_t* out, int32_t n_fallen, int32_t first
) noexcept nogil:
    error.status = STATUS_FAILED_PRECONDITION
    snprintf(
        error.text, ERROR_TEXT_BYTES,
        "%d features fell back, \"%.*s\" among them, and the model's schema refuses to score so; "
        "send them, or see the feature stores' state",
        <int> n_fallen, shown_bytes(schema.features[first].name),
        <const char*> schema.features[first].name.data,
    )
    return -1


cdef int32_t keep_limits(const schema_t* schema, resolved_t* out, error_t* error) noexcept nogil:
    """Mark the row as degraded, or refuse it, by what fell back."""
    cdef const fallback_limits_t* limits = &schema.limits
    cdef int32_t n_fallen = 0
    cdef int32_t first = -1
    cdef int32_t refused = 0
    cdef int32_t j
    for j in range(schema.n_features):
        if not is_fallback(schema, j, out.sources[j]):
            continue
        n_fallen += 1
        if first < 0 or (limits.rejects[j] and not refused):
            first = j
        refused |= limits.rejects[j]
        out.degraded |= limits.degrades[j]
    if refused or n_fallen > limits.reject_over:
        return too_many(error, schema, out, n_fallen, first)
    if n_fallen > limits.degrade_over:
        out.degraded = 1
    return 0


cdef inline bint is_fallback(const schema_t* schema, int32_t j, uint8_t source) noexcept nogil:
    cdef int32_t group
    if source == SOURCE_DEFAULT or source == SOURCE_UNSEEN:
        return True
    if source != SOURCE_BATCH:
        return False
    # A group without online records has its batch records for its first choice.
    group = schema.features[j].group
    return group < 0 or schema.groups[group].has_online != 0


cdef int32_t resolve_rest(
    const schema_t* schema, resolved_t* out, fallbacks_t* fallbacks, error_t* error
) noexcept nogil:
    cdef int32_t j
    if (<int32_t> out.n_by_source[<int> SOURCE_REQUEST]
            + <int32_t> out.n_by_source[<int> SOURCE_ONLINE] == schema.n_features):
        return 0                 # everything came from its first choice
    for j in range(schema.n_features):
        if out.sources[j] & VACANT:
            if schema.features[j].required:
                return lacks_required(error, &schema.features[j], out.sources[j] & ~VACANT)
            out.row[j] = schema.features[j].default_value
            out.sources[j] = (
                SOURCE_UNSEEN if out.sources[j] == (VACANT | MISSING_UNSEEN) else SOURCE_DEFAULT
            )
            out.n_by_source[<int> SOURCE_DEFAULT] += 1
            fallbacks.default_value[schema.features[j].group + 1] += 1
        elif out.sources[j] == SOURCE_BATCH and is_fallback(schema, j, SOURCE_BATCH):
            fallbacks.batch[schema.features[j].group + 1] += 1
    if schema.has_limits:
        return keep_limits(schema, out, error)
    return 0


# ------------------------------------------------------- for tests and tools

def resolve_message(Schema schema not None, Gather gather, bytes message not None):
    """Decode and resolve a request without stores, with the serving path's own functions.

    Parameters
    ----------
    schema : Schema
    gather : Gather or None
        Of the request's layout onto this schema; None for named features.
    message : bytes
        A serialized scoregate.v1.ScoreRequest.

    Returns
    -------
    dict
        `row`: numpy.ndarray of float32, shape (n_features,); `sources`: bytes, per feature one
        scoregate.v1.FeatureSource, or 5: a default for a category outside the vocabulary;
        `n_by_source`: list of int by source; `n_missing`: dict from absent, null, infinite, range
        and unseen to int; `degraded`: bool.

    Raises
    ------
    RequestError
        With the text that a caller of the server would get.
    ValueError
        The gather is of another schema.
    """
    cdef error_t error
    cdef resolved_t resolved
    cdef fallbacks_t fallbacks
    cdef uint8_t[MAX_FEATURES] sources
    cdef float[::1] row
    cdef int32_t code
    cdef request_t* request
    if gather is not None and gather.schema is not schema:
        raise ValueError("the gather was compiled for another schema")
    values = np.empty(schema.table.n_features, dtype=np.float32)
    row = values
    resolved.row = &row[0]
    resolved.sources = sources
    request = <request_t*> calloc(1, sizeof(request_t))
    if request is NULL:
        raise MemoryError
    try:
        code = decode_request(
            <const uint8_t*> <const char*> message, len(message), request, &error
        )
        if code == 0:
            code = resolve_request(
                &schema.table, NULL if gather is None else &gather.table, request,
                &resolved, &error,
            )
        if code == 0:
            memset(&fallbacks, 0, sizeof(fallbacks))
            code = resolve_rest(&schema.table, &resolved, &fallbacks, &error)
    finally:
        free(request)
    if code != 0:
        raise RequestError(error.text.decode(errors="replace"))
    names = ("absent", "null", "infinite", "range", "unseen")
    return {
        "row": values,
        "sources": (<const char*> sources)[:schema.table.n_features],
        "n_by_source": [resolved.n_by_source[i] for i in range(<int> N_SOURCES)],
        "degraded": bool(resolved.degraded),
        "n_missing": {names[i]: resolved.n_missing[i] for i in range(<int> N_MISSING)},
    }
