from libc.stdint cimport int64_t, uint8_t, uint32_t

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
    N_CLASSES = 11               # blocks of 64 bytes, 128, ... 64 KiB, and SLACK_BYTES each
    HEADER_BYTES = 16            # keeps the alignment that malloc promises
    # Callers ask for powers of two, or for a little more (nghttp2's frame buffer, one per
    # connection: 16,394 bytes): neither that nor the header may double a block.
    SLACK_BYTES = 32
    SMALLEST_SHIFT = 6           # 64 bytes
    CACHE_BLOCKS = 4096          # per class, as CACHE_BYTES; whichever is less
    LARGE = 255                  # class of a block that is malloc's own


# A free list per size class. One thread owns a pool.
ctypedef struct pool_t:
    void* free_blocks[N_CLASSES]  # singly linked through the first bytes of each block
    uint32_t n_free[N_CLASSES]
    uint32_t n_least[N_CLASSES]  # the fewest that were free since the last pool_shrink
    int64_t n_returned_bytes     # ever given back to malloc; read by other threads
    size_t n_used                # blocks handed out and not yet given back, of any size


cdef void pool_init(pool_t* pool) noexcept nogil
# Frees every cached block; what is still handed out stays valid but must not be given back.
cdef void pool_clear(pool_t* pool) noexcept nogil
# Gives back to malloc a part of the cached blocks that were not needed since the last call, at most
# max_blocks. For a steady clock of about a second.
cdef void pool_shrink(pool_t* pool, uint32_t max_blocks) noexcept nogil
cdef void* pool_resize(pool_t* pool, void* pointer, size_t size) noexcept nogil
# Only for the two below.
cdef void* pool_allocate_new(pool_t* pool, size_t n_bytes) noexcept nogil
cdef void pool_free_old(pool_t* pool, void* block) noexcept nogil


# Smallest class that holds n_bytes (header included); N_CLASSES or more: none does.
cdef inline uint32_t class_of(size_t n_bytes) noexcept nogil:
    if n_bytes <= 64 + SLACK_BYTES:
        return 0
    return 64 - count_leading_zeros(n_bytes - SLACK_BYTES - 1) - SMALLEST_SHIFT


# NULL: no memory.
cdef inline void* pool_allocate(pool_t* pool, size_t size) noexcept nogil:
    cdef size_t n_bytes = size + HEADER_BYTES
    cdef uint32_t i = class_of(n_bytes)
    cdef uint8_t* block
    if i < N_CLASSES and n_bytes >= HEADER_BYTES:
        block = <uint8_t*> pool.free_blocks[i]
        if block != NULL:
            pool.free_blocks[i] = (<void**> block)[0]
            pool.n_free[i] -= 1
            pool.n_least[i] = min(pool.n_least[i], pool.n_free[i])
            pool.n_used += 1
            (<uint32_t*> block)[0] = i
            return block + HEADER_BYTES
    return pool_allocate_new(pool, n_bytes)


# NULL is allowed.
cdef inline void pool_free(pool_t* pool, void* pointer) noexcept nogil:
    cdef uint8_t* block
    cdef uint32_t i
    if pointer == NULL:
        return
    block = <uint8_t*> pointer - HEADER_BYTES
    i = (<uint32_t*> block)[0]
    pool.n_used -= 1
    if i == LARGE or pool.n_free[i] >= min(
        <uint32_t> CACHE_BLOCKS, CACHE_BYTES >> (i + SMALLEST_SHIFT)
    ):
        pool_free_old(pool, block)
        return
    (<void**> block)[0] = pool.free_blocks[i]
    pool.free_blocks[i] = block
    pool.n_free[i] += 1
