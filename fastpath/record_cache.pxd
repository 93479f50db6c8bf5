from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from fastpath._types cimport span_t

cdef enum:
    CACHE_WAYS = 8               # slots of a set: one cache line
    MIN_CACHE_BYTES = 16384


# One record in the ring, its key and bytes behind it. Multiples of 8 bytes.
ctypedef struct entry_t:
    int64_t expires_ns
    uint32_t size                # of all of it
    uint32_t slot                # that points here; NO_SLOT: replaced, or the ring's unused end
    uint32_t n_key
    uint32_t n_record            # NO_RECORD: the store has none for this key
    uint32_t iteration           # in which it was last handed out
    uint32_t unused


ctypedef struct cache_slot_t:
    uint32_t hash
    uint32_t place               # offset of the entry / 8 + 1; 0: empty


# One thread owns a cache. Zeroed: a cache that holds nothing and takes nothing.
ctypedef struct cache_t:
    int64_t ttl_ns
    uint64_t seed
    uint64_t n_slots             # a power of two
    cache_slot_t* slots
    uint8_t* ring
    uint64_t ring_bytes
    uint64_t head                # where the next entry goes
    uint64_t tail                # the oldest entry
    uint64_t n_used              # bytes from tail to head
    uint32_t iteration
    uint64_t n_hits
    uint64_t n_misses
    uint64_t n_evictions         # of records that were still fresh


# Zeroed memory on entry; n_bytes >= MIN_CACHE_BYTES. Returns 0, or -1: no memory.
cdef int32_t cache_init(
    cache_t* cache, uint64_t n_bytes, int64_t ttl_ns, uint64_t seed
) noexcept nogil
cdef void cache_clear(cache_t* cache) noexcept nogil
# OUTCOME_HIT, and `out` is valid until cache_leave; OUTCOME_ABSENT; or OUTCOME_NOT_READ: unknown.
cdef int32_t cache_find(
    cache_t* cache, const uint8_t* key, size_t n_key, int64_t now_ns, span_t* out
) noexcept nogil
# Keeps what the store answered. `record` NULL: it has none.
cdef void cache_store(
    cache_t* cache, const uint8_t* key, size_t n_key, const uint8_t* record, size_t n_record,
    int64_t now_ns
) noexcept nogil
# The end of an iteration.
cdef void cache_leave(cache_t* cache) noexcept nogil
