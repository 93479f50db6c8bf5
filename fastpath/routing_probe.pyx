"""Routes keys by a plan as the engine does, many at once and without requests: for tests, tools and
measurements.

What it does not do: decide what a request's key is, or serve.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from fastpath.plan cimport Plan, find_model, find_override, plan_model_t
from fastpath.routing cimport bucket_of, hash_of

from fastpath.errors import RoutingError


cdef void _route(
    const plan_model_t* model,
    const uint8_t* text,
    const int64_t* ends,
    int64_t n_keys,
    uint8_t* arms,
) noexcept nogil:
    cdef int64_t begin = 0
    cdef int64_t i
    cdef int32_t pinned
    cdef uint64_t hash
    for i in range(n_keys):
        hash = hash_of(model.table, text + begin, ends[i] - begin)
        pinned = find_override(model, text + begin, ends[i] - begin, hash)
        arms[i] = model.table.arm[bucket_of(hash)] if pinned < 0 else <uint8_t> pinned
        begin = ends[i]


def route_many(
    Plan plan not None, str model not None, bytes text not None, const int64_t[::1] ends not None
):
    """Return the arm of each of many routing keys. Releases the GIL.

    Parameters
    ----------
    plan : Plan
    model : str
        Which model's table and overrides; empty: the default one's.
    text : bytes
        The keys, one after the other.
    ends : int64, shape (n_keys,)
        Where each key ends in `text`: ascending, the last one at its end.

    Returns
    -------
    bytes, length n_keys
        Index of the arm, per key.

    Raises
    ------
    RoutingError
        The plan has no such model, or the ends do not fit the text.
    """
    cdef bytes name = model.encode()
    cdef int32_t index = find_model(&plan.table, <const uint8_t*> name, len(name))
    cdef int64_t n_keys = ends.shape[0]
    cdef int64_t size = len(text)
    cdef int64_t last = 0
    cdef int64_t i
    cdef bytes arms
    cdef uint8_t* out
    cdef const uint8_t* keys = text
    cdef const plan_model_t* found
    if index < 0:
        raise RoutingError(f"the plan has no model {model!r}")
    for i in range(n_keys):
        if not last <= ends[i] <= size:
            raise RoutingError(f"key {i} ends at {ends[i]}: not within {last} and {size}")
        last = ends[i]
    if last != size:
        raise RoutingError(f"the last key ends at {last}, the text at {size}")
    if n_keys == 0:
        return b""
    arms = PyBytes_FromStringAndSize(NULL, n_keys)
    out = <uint8_t*> PyBytes_AS_STRING(arms)
    found = &plan.table.models[index]
    with nogil:
        _route(found, keys, &ends[0], n_keys, out)
    return arms
