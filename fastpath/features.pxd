from libc.stdint cimport int32_t, uint8_t, uint32_t

from fastpath._types cimport (
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


ctypedef struct resolved_t:
    float* row                   # [n_features], the caller's
    uint8_t* sources             # [n_features] source_t, the caller's
    uint32_t[N_SOURCES] n_by_source
    uint32_t[N_MISSING] n_missing


# Fills out.row and out.sources for the arm's schema from a request of either form. `gather` is
# the one of the request's layout (FORM_DENSE), else NULL. Returns 0, or -1 with `error` set
# (INVALID_ARGUMENT: wrong number of values, unknown or mistyped feature name, missing required
# feature; it names the feature).
cdef int32_t resolve(
    const schema_t* schema, const gather_t* gather, const request_t* request,
    resolved_t* out, error_t* error
) noexcept nogil
