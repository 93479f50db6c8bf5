"""Memory for nghttp2's client sessions: after the first calls, no malloc.

Rules: one thread owns an arena and all its blocks. Clearing it frees everything at once, also what
was never given back.

How it works: blocks of up to 4 KiB are cut from chunks of 256 KiB, in steps of 64 bytes; a freed
one waits in the list of its size. Larger ones are malloc's own. Eight bytes before a
block hold its size. With the address sanitizer every block is malloc's, so that it sees each one.

What it does not do: it gives no chunk back before the end, and merges nothing.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    #define BENCH_ARENA_LARGEST 0
    #else
    #define BENCH_ARENA_LARGEST 4096
    #endif
    """
    const size_t LARGEST "BENCH_ARENA_LARGEST"

cdef enum:
    PREFIX = 16                  # keeps malloc's alignment
    STEP = 64
    CHUNK = 262144


cdef void arena_init(arena_t* arena) noexcept nogil:
    memset(arena, 0, sizeof(arena_t))


cdef void arena_clear(arena_t* arena) noexcept nogil:
    cdef void* chunk = arena.chunks
    cdef void* following
    while chunk != NULL:
        following = (<void**> chunk)[0]
        free(chunk)
        chunk = following
    arena_init(arena)


cdef uint8_t* cut(arena_t* arena, size_t n_bytes) noexcept nogil:
    cdef uint8_t* chunk
    if <size_t> (arena.end - arena.next) < n_bytes:
        # What is left of the old chunk, under 4 KiB, is lost until the end.
        chunk = <uint8_t*> malloc(CHUNK)
        if chunk == NULL:
            return NULL
        (<void**> chunk)[0] = arena.chunks
        arena.chunks = chunk
        arena.next = chunk + PREFIX
        arena.end = chunk + CHUNK
    chunk = arena.next
    arena.next += n_bytes
    return chunk


cdef void* arena_malloc(size_t size, void* owner) noexcept nogil:
    cdef arena_t* arena = <arena_t*> owner
    cdef size_t n_bytes = (size + PREFIX + STEP - 1) & ~<size_t> (STEP - 1)
    cdef size_t i = n_bytes // STEP - 1
    cdef uint8_t* block
    if n_bytes < size:
        return NULL
    if n_bytes > LARGEST:
        block = <uint8_t*> malloc(n_bytes)
    elif arena.lists[i] != NULL:
        block = <uint8_t*> arena.lists[i]
        arena.lists[i] = (<void**> block)[0]
    else:
        block = cut(arena, n_bytes)
    if block == NULL:
        return NULL
    (<uint64_t*> block)[0] = n_bytes
    return block + PREFIX


cdef void arena_free(void* pointer, void* owner) noexcept nogil:
    cdef arena_t* arena = <arena_t*> owner
    cdef uint8_t* block
    cdef size_t n_bytes
    if pointer == NULL:
        return
    block = <uint8_t*> pointer - PREFIX
    n_bytes = (<uint64_t*> block)[0]
    if n_bytes > LARGEST:
        free(block)
        return
    (<void**> block)[0] = arena.lists[n_bytes // STEP - 1]
    arena.lists[n_bytes // STEP - 1] = block


cdef void* arena_calloc(size_t n, size_t size, void* owner) noexcept nogil:
    cdef void* block
    if size != 0 and n > <size_t> -1 // size:
        return NULL
    block = arena_malloc(n * size, owner)
    if block != NULL:
        memset(block, 0, n * size)
    return block


cdef void* arena_realloc(void* pointer, size_t size, void* owner) noexcept nogil:
    cdef uint8_t* block
    cdef void* moved
    cdef size_t n_bytes
    if pointer == NULL:
        return arena_malloc(size, owner)
    block = <uint8_t*> pointer - PREFIX
    n_bytes = (<uint64_t*> block)[0]
    if size <= n_bytes - PREFIX:
        return pointer
    if n_bytes > LARGEST:
        n_bytes = (size + PREFIX + STEP - 1) & ~<size_t> (STEP - 1)
        block = <uint8_t*> realloc(block, n_bytes) if n_bytes > size else NULL
        if block == NULL:
            return NULL
        (<uint64_t*> block)[0] = n_bytes
        return block + PREFIX
    moved = arena_malloc(size, owner)
    if moved != NULL:
        memcpy(moved, pointer, n_bytes - PREFIX)
        arena_free(pointer, owner)
    return moved
