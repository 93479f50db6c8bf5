"""A per-thread pool allocator: steady state calls neither malloc nor free.

Rules: one thread owns a pool and everything allocated from it. Every block starts with a
16-byte header that holds its size class, so that freeing needs no size. Sizes above the largest
class go to malloc and back.

How it works: size classes are powers of two from 64 bytes to 64 KiB. A freed block goes to the
front of its class's list, up to 4 MiB of cached blocks per class: a burst of
connections does not pin memory for ever. With the address sanitizer nothing is cached, so that
it sees every use after free.

The common case of both directions is inlined where it is used (see `pool.pxd`): an HTTP/2 call
makes a dozen blocks and gives them back.

What it does not do: it never returns a block of another class, splits, or merges.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset


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


cdef void* pool_allocate_new(pool_t* pool, size_t n_bytes) noexcept nogil:
    cdef uint32_t i = class_of(n_bytes)
    cdef uint8_t* block
    if n_bytes < HEADER_BYTES:
        return NULL              # the size and its header wrapped around
    if i >= N_CLASSES:
        i = LARGE
        block = <uint8_t*> malloc(n_bytes)
    else:
        block = <uint8_t*> malloc(<size_t> 1 << (i + SMALLEST_SHIFT))
    if block == NULL:
        return NULL
    (<uint32_t*> block)[0] = i
    pool.n_used += 1
    return block + HEADER_BYTES


cdef void pool_free_old(void* block) noexcept nogil:
    free(block)


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
