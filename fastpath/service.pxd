from fastpath._types cimport service_t


cdef class Service:
    # Filled by the subclass's __cinit__; the loop copies it when it starts. The loop keeps a
    # reference to the Service, so `context` outlives the thread.
    cdef service_t table
