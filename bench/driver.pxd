from libc.stdint cimport int32_t

from bench._types cimport load_t

cdef int32_t load_open(load_t* load) noexcept nogil
cdef void load_close(load_t* load) noexcept nogil
cdef void load_connect(load_t* load) noexcept nogil
cdef void load_run(load_t* load) noexcept nogil
