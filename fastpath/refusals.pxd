from fastpath._types cimport call_t
from fastpath.plan cimport arm_t
from fastpath.rows cimport engine_t


# NOT_FOUND: engine.request names a model that is not served.
cdef void refuse_model(engine_t* engine, call_t* call) noexcept nogil
# FAILED_PRECONDITION: the arm cannot read the layout of engine.request. Says both fingerprints and,
# as far as anybody knows, the difference.
cdef void refuse_layout(engine_t* engine, call_t* call, const arm_t* arm) noexcept nogil
