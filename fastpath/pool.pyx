"""A per-thread pool allocator: steady state calls neither malloc nor free.

Rules: one thread owns a pool and everything allocated from it. Every block starts with a
16-byte header that holds its size class, so that freeing needs no size. Sizes above the largest
class go to malloc and back.

How it works: size classes are powers of two from 64 bytes to 64 KiB, and a little slack. A freed
block goes to the front of its class's list, up to 4 MiB or 4,096 cached blocks per class. About
once a second the owner calls `pool_shrink`: of the blocks that lay idle all that time it gives
half back to malloc, down to a floor that covers the fluctuations of a steady load. So a burst of
connections does not pin memory for ever, and a second's lull costs little. With the address
sanitizer nothing is cached, so that it sees every use after free.

The common case of both directions is inlined where it is used (see `pool.pxd`): an HTTP/2 call
makes a dozen blocks and gives them back.

What it does not do: it never returns a block of another class, splits, or merges. What malloc has
back goes to the system by `trimmer`.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from fastpath.c.linux cimport ATOMIC_RELAXED, atomic_store

cdef enum:
    FLOOR_BYTES = 1 << 18        # per class, what pool_shrink leaves cached
    FLOOR_BLOCKS = 256           # and no more of the small: each may hold a whole page
    FEW_BLOCKS = 128             # not worth halving again


cdef inline size_t block_bytes(uint32_t i) noexcept nogil:
    return (<size_t> 1 << (i + SMALLEST_SHIFT)) + SLACK_BYTES


cdef inline void return_block(pool_t* pool, void* block, size_t n_bytes) noexcept nogil:
    free(block)
    atomic_store(
        &pool.n_returned_bytes, pool.n_returned_bytes + <int64_t> n_bytes, ATOMIC_RELAXED
    )


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
        block = <uint8_t*> malloc(block_bytes(i))
    if block == NULL:
        return NULL
    (<uint32_t*> block)[0] = i
    pool.n_used += 1
    return block + HEADER_BYTES


cdef void pool_free_old(pool_t* pool, void* block) noexcept nogil:
    # A block of malloc's own is large enough that malloc decides by itself what to keep of it.
    cdef uint32_t i = (<uint32_t*> block)[0]
    return_block(pool, block, 0 if i == LARGE else block_bytes(i))


cdef void pool_shrink(pool_t* pool, uint32_t max_blocks) noexcept nogil:
    cdef uint32_t i = N_CLASSES
    cdef uint32_t n_floor
    cdef uint32_t n
    cdef void* block
    while i > 0:
        i -= 1                   # the largest first
        n_floor = min(<uint32_t> FLOOR_BLOCKS, <uint32_t> FLOOR_BYTES >> (i + SMALLEST_SHIFT))
        if pool.n_least[i] > n_floor:
            n = pool.n_least[i] - n_floor
            if n > FEW_BLOCKS:
                n = max(<uint32_t> FEW_BLOCKS, n // 2)
            n = min(n, max_blocks)
            max_blocks -= n
            pool.n_free[i] -= n
            while n > 0:
                block = pool.free_blocks[i]
                pool.free_blocks[i] = (<void**> block)[0]
                return_block(pool, block, block_bytes(i))
                n -= 1
        pool.n_least[i] = pool.n_free[i]


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
    room = block_bytes(i) - HEADER_BYTES
    if size <= room:
        return pointer
    moved = pool_allocate(pool, size)
    if moved == NULL:
        return NULL
    memcpy(moved, pointer, room)
    pool_free(pool, pointer)
    return moved
