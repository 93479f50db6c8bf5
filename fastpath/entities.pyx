"""Which of a request's entities is meant: for routing, and for reading stored features.

Rules: an entity without an id is nobody. Where several fit, it is the smallest by role, then id,
both compared as bytes: a total order, so that the order in which a caller lists them does not
matter.
"""

from libc.stdint cimport int32_t
from libc.string cimport memcmp

from fastpath._types cimport span_t
from fastpath.wire cimport entity_t, request_t


cdef int _compare(const span_t* a, const span_t* b) noexcept nogil:
    cdef int order = memcmp(a.data, b.data, a.size if a.size < b.size else b.size)
    if order == 0 and a.size != b.size:
        return -1 if a.size < b.size else 1
    return order


cdef bint _precedes(const entity_t* a, const entity_t* b) noexcept nogil:
    cdef int order = _compare(&a.role, &b.role)
    return order < 0 if order != 0 else _compare(&a.id, &b.id) < 0


cdef inline bint _equal(const span_t* a, const span_t* b) noexcept nogil:
    return a.size == b.size and memcmp(a.data, b.data, a.size) == 0


cdef const entity_t* choose_entity(
    const request_t* request, const span_t* type, const span_t* role
) noexcept nogil:
    cdef const entity_t* chosen = NULL
    cdef const entity_t* entity
    cdef int32_t i
    for i in range(request.n_entities):
        entity = &request.entities[i]
        if entity.id.size == 0 or not _equal(&entity.type, type):
            continue
        if role.size != 0 and not _equal(&entity.role, role):
            continue
        if chosen is NULL or _precedes(entity, chosen):
            chosen = entity
    return chosen
