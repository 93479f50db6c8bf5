from libc.stdint cimport int32_t, uint8_t, uint32_t

from fastpath._types cimport (
    MAX_GROUPS,
    MISSING_ABSENT,
    MISSING_INFINITE,
    MISSING_NULL,
    MISSING_RANGE,
    MISSING_UNSEEN,
    N_MISSING,
    N_SOURCES,
    error_t,
)
from fastpath.schema cimport gather_t, schema_t
from fastpath.wire cimport request_t

cdef enum:
    VACANT = 0x80                # in `sources`, plus a missing_t: no source had a value yet


ctypedef struct resolved_t:
    float* row                   # [n_features], the caller's
    uint8_t* sources             # [n_features] source_t, the caller's
    uint32_t[N_SOURCES] n_by_source
    uint32_t[N_MISSING] n_missing
    int32_t degraded             # more fell back than the schema tolerates


# Values that fell back, by group of the feature ([0]: request) and table. Owned by the caller.
ctypedef struct fallbacks_t:
    uint32_t[MAX_GROUPS + 1] batch
    uint32_t[MAX_GROUPS + 1] default_value


# First pass: what the request holds, of either form. `gather` is the one of the request's layout
# (FORM_DENSE), else NULL. Features without a usable value are left VACANT. Returns 0, or -1 with
# `error` set (INVALID_ARGUMENT: wrong number of values, unknown or mistyped feature name, a value
# that the schema rejects; it names the feature).
cdef int32_t resolve_request(
    const schema_t* schema, const gather_t* gather, const request_t* request,
    resolved_t* out, error_t* error
) noexcept nogil
# Last pass: defaults for what is still VACANT, then the schema's limits. Adds to `fallbacks`.
# Returns 0, or -1 with `error` set (a missing required feature; too many fallbacks).
cdef int32_t resolve_rest(
    const schema_t* schema, resolved_t* out, fallbacks_t* fallbacks, error_t* error
) noexcept nogil
