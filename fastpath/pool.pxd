from libc.stdint cimport uint32_t

cdef enum:
    N_CLASSES = 11               # blocks of 64 bytes, 128, ... 64 KiB, header included


# A free list per size class. One thread owns a pool.
ctypedef struct pool_t:
    void* free_blocks[N_CLASSES]  # singly linked through the first bytes of each block
    uint32_t n_free[N_CLASSES]
    size_t n_used                # blocks handed out and not yet given back, of any size


cdef void pool_init(pool_t* pool) noexcept nogil
# Frees every cached block; what is still handed out stays valid but must not be given back.
cdef void pool_clear(pool_t* pool) noexcept nogil
cdef void* pool_allocate(pool_t* pool, size_t size) noexcept nogil
cdef void pool_free(pool_t* pool, void* pointer) noexcept nogil
cdef void* pool_resize(pool_t* pool, void* pointer, size_t size) noexcept nogil
