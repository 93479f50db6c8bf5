from fastpath._types cimport span_t
from fastpath.wire cimport entity_t, request_t


# The request's entity of a type and, unless `role` is empty, of a role; NULL: none has an id.
cdef const entity_t* choose_entity(
    const request_t* request, const span_t* type, const span_t* role
) noexcept nogil
