"""A per-thread pool allocator: steady state calls neither malloc nor free.

Rules: one thread owns a pool and everything allocated from it. Every block starts with a
16-byte header that holds its size class, so that freeing needs no size. Sizes above the largest
class go to malloc and back.

How it works: size classes are powers of two from 64 bytes to 64 KiB. A freed block goes to the
front of its class's list, up to 4 MiB of cached blocks per class: a burst of
connections does not pin memory for ever. With the address sanitizer nothing is cached, so that
it sees every use after free.

What it does not do: it never returns a block of another class, splits, or merges.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    #define SCOREGATE_POOL_CACHE_BYTES 0
    #else
    #define SCOREGATE_POOL_CACHE_BYTES (4u << 20)
    #endif
    """
    const uint32_t CACHE_BYTES "SCOREGATE_POOL_CACHE_BYTES"

cdef extern from * nogil:
    int count_leading_zeros "__builtin_clzl"(unsigned long value)

cdef enum:
    HEADER_BYTES = 16            # keeps the alignment that malloc promises
    SMALLEST_SHIFT = 6           # 64 bytes
    LARGE = 255                  # class of a block that is malloc's own


cdef inline uint32_t class_of(size_t n_bytes) noexcept nogil:
    # Smallest class that holds n_bytes (header included); N_CLASSES or more: none does.
    if n_bytes <= 64:
        return 0
    return 64 - count_leading_zeros(n_bytes - 1) - SMALLEST_SHIFT


cdef void pool_init(pool_t* pool) noexcept nogil:
    memset(pool, 0, sizeof(pool_t))


cdef void pool_clear(pool_t* pool) noexcept nogil:
    cdef int i
    cdef void* block
    for i in range(N_CLASSES):
        while pool.free_blocks[i] != NULL:
            block = pool.free_blocks[i]
            pool.free_blocks[i] = (<void**> block)[0]
            free(block)
        pool.n_free[i] = 0


cdef void* pool_allocate(pool_t* pool, size_t size) noexcept nogil:
    cdef size_t n_bytes = size + HEADER_BYTES
    cdef uint32_t i
    cdef uint8_t* block
    if n_bytes < size:
        return NULL
    i = class_of(n_bytes)
    if i >= N_CLASSES:
        block = <uint8_t*> malloc(n_bytes)
        if block == NULL:
            return NULL
        (<uint32_t*> block)[0] = LARGE
    else:
        block = <uint8_t*> pool.free_blocks[i]
        if block != NULL:
            pool.free_blocks[i] = (<void**> block)[0]
            pool.n_free[i] -= 1
        else:
            block = <uint8_t*> malloc(<size_t> 1 << (i + SMALLEST_SHIFT))
            if block == NULL:
                return NULL
        (<uint32_t*> block)[0] = i
    pool.n_used += 1
    return block + HEADER_BYTES


cdef void pool_free(pool_t* pool, void* pointer) noexcept nogil:
    cdef uint8_t* block
    cdef uint32_t i
    if pointer == NULL:
        return
    block = <uint8_t*> pointer - HEADER_BYTES
    i = (<uint32_t*> block)[0]
    pool.n_used -= 1
    if i == LARGE or pool.n_free[i] >= (CACHE_BYTES >> (i + SMALLEST_SHIFT)):
        free(block)
        return
    (<void**> block)[0] = pool.free_blocks[i]
    pool.free_blocks[i] = block
    pool.n_free[i] += 1


cdef void* pool_resize(pool_t* pool, void* pointer, size_t size) noexcept nogil:
    cdef uint8_t* block
    cdef void* moved
    cdef uint32_t i
    cdef size_t room
    if pointer == NULL:
        return pool_allocate(pool, size)
    block = <uint8_t*> pointer - HEADER_BYTES
    i = (<uint32_t*> block)[0]
    if i == LARGE:
        if size + HEADER_BYTES < size:
            return NULL
        # A shrunk block stays malloc's: the header says so.
        block = <uint8_t*> realloc(block, size + HEADER_BYTES)
        return NULL if block == NULL else block + HEADER_BYTES
    room = (<size_t> 1 << (i + SMALLEST_SHIFT)) - HEADER_BYTES
    if size <= room:
        return pointer
    moved = pool_allocate(pool, size)
    if moved == NULL:
        return NULL
    memcpy(moved, pointer, room)
    pool_free(pool, pointer)
    return moved
