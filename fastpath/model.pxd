from fastpath._types cimport model_t


cdef class Model:
    # Filled by the subclass's __cinit__/__init__. The plan keeps a reference to the Model, so
    # `table.impl` outlives every loop that scores with it.
    cdef model_t table
    cdef readonly int n_features
