from libc.stdint cimport uint32_t, uint8_t

cdef enum:
    N_ARENA_CLASSES = 64         # steps of 64 bytes: up to 4 KiB

ctypedef struct arena_t:
    void* lists[N_ARENA_CLASSES]  # freed blocks by size, linked by their first word
    void* chunks                 # all chunks, linked by their first word
    uint8_t* next                # rest of the newest chunk
    uint8_t* end

cdef void arena_init(arena_t* arena) noexcept nogil
cdef void arena_clear(arena_t* arena) noexcept nogil
cdef void* arena_malloc(size_t size, void* arena) noexcept nogil
cdef void arena_free(void* block, void* arena) noexcept nogil
cdef void* arena_calloc(size_t n, size_t size, void* arena) noexcept nogil
cdef void* arena_realloc(void* block, size_t size, void* arena) noexcept nogil
