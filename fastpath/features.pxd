from libc.stdint cimport int32_t, uint8_t, uint32_t

from fastpath._types cimport N_SOURCES, error_t
from fastpath.schema cimport gather_t, schema_t
from fastpath.wire cimport request_t

# Why a value of the request was not used: index of resolved_t.missing.
cdef enum missing_t:
    MISSING_ABSENT = 0           # not in the request, or not in its layout
    MISSING_NULL = 1             # NaN in a dense row, a null in named features
    MISSING_INFINITE = 2
    MISSING_RANGE = 3            # outside the schema's range
    MISSING_UNSEEN = 4           # categorical: not in the vocabulary
    N_MISSING = 5


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
