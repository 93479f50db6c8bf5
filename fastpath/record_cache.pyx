"""Online records that were read a moment ago: a cache with a time to live and bounded bytes.

Rules: one thread owns a cache; all memory is allocated once. A record is found by its whole key,
not by a hash of it. That the store has no record for a key is remembered like a record. Time is a
parameter.

How it works: entries of any size stand one behind the other in a ring; a new one is written over
the oldest ones (first in, first out: the time to live ends most of them anyway). An index of sets
of eight slots says where a key's entry stands; a full set gives up an expired entry, else the one
that expires first. An entry knows its slot, so what is overwritten leaves the index.

A record that was handed out stays until the iteration ends: what would have to overwrite it is not
kept.

What it does not do: it is not shared between threads, and does not hear of changes in the store: a
record may be as old as the time to live.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from fastpath._types cimport OUTCOME_ABSENT, OUTCOME_HIT, OUTCOME_NOT_READ, span_t
from fastpath.hashing cimport hash_bytes
from fastpath.metrics cimport add

from fastpath.errors import StoreError

cdef uint32_t NO_SLOT = 0xFFFFFFFF
cdef uint32_t NO_RECORD = 0xFFFFFFFF


cdef inline entry_t* _entry(cache_t* cache, uint32_t place) noexcept nogil:
    return <entry_t*> (cache.ring + 8 * (<uint64_t> place - 1))


cdef inline uint8_t* _key(entry_t* entry) noexcept nogil:
    return <uint8_t*> entry + sizeof(entry_t)


cdef void _unlink(cache_t* cache, entry_t* entry, int64_t now_ns) noexcept nogil:
    if entry.slot == NO_SLOT:
        return
    cache.slots[entry.slot].place = 0
    entry.slot = NO_SLOT
    if entry.expires_ns > now_ns:
        add(&cache.n_evictions, 1)


cdef uint64_t _find_slot(
    cache_t* cache, const uint8_t* key, size_t n_key, uint32_t hash, bint* found
) noexcept nogil:
    # The key's slot, or the slot that a new entry takes.
    cdef uint64_t first = (hash & (cache.n_slots // CACHE_WAYS - 1)) * CACHE_WAYS
    cdef uint64_t chosen = first
    cdef int64_t earliest_ns = -1
    cdef int64_t expires_ns
    cdef entry_t* entry
    cdef uint64_t i
    found[0] = False
    for i in range(first, first + CACHE_WAYS):
        expires_ns = 0
        if cache.slots[i].place != 0:
            entry = _entry(cache, cache.slots[i].place)
            if (cache.slots[i].hash == hash and entry.n_key == n_key
                    and memcmp(_key(entry), key, n_key) == 0):
                found[0] = True
                return i
            expires_ns = entry.expires_ns
        if earliest_ns < 0 or expires_ns < earliest_ns:
            earliest_ns = expires_ns
            chosen = i
    return chosen


cdef bint _drop_oldest(cache_t* cache, int64_t now_ns) noexcept nogil:
    # Whether there is more room now.
    cdef entry_t* entry
    if cache.ring_bytes - cache.tail < sizeof(entry_t):
        cache.n_used -= cache.ring_bytes - cache.tail
        cache.tail = 0
        return True
    entry = <entry_t*> (cache.ring + cache.tail)
    if entry.iteration == cache.iteration:
        return False
    _unlink(cache, entry, now_ns)
    cache.n_used -= entry.size
    cache.tail += entry.size
    if cache.tail == cache.ring_bytes:
        cache.tail = 0
    return True


cdef entry_t* _append(cache_t* cache, uint64_t size, int64_t now_ns) noexcept nogil:
    # Room for an entry in one piece, or NULL.
    cdef entry_t* entry
    cdef uint64_t left = cache.ring_bytes - cache.head
    cdef uint64_t skipped = left if left < size else 0
    if size > cache.ring_bytes // 2:
        return NULL
    while cache.ring_bytes - cache.n_used < size + skipped:
        if not _drop_oldest(cache, now_ns):
            return NULL
    if skipped:
        if skipped >= sizeof(entry_t):
            entry = <entry_t*> (cache.ring + cache.head)
            memset(entry, 0, sizeof(entry_t))
            entry.size = <uint32_t> skipped
            entry.slot = NO_SLOT
            entry.iteration = cache.iteration - 1
        cache.n_used += skipped
        cache.head = 0
    entry = <entry_t*> (cache.ring + cache.head)
    entry.size = <uint32_t> size
    cache.n_used += size
    cache.head += size
    if cache.head == cache.ring_bytes:
        cache.head = 0
    return entry


cdef int32_t cache_init(
    cache_t* cache, uint64_t n_bytes, int64_t ttl_ns, uint64_t seed
) noexcept nogil:
    cdef uint64_t n_slots = CACHE_WAYS
    while 2 * n_slots * sizeof(cache_slot_t) <= n_bytes // 8:
        n_slots *= 2
    cache.ttl_ns = ttl_ns
    cache.seed = seed
    cache.n_slots = n_slots
    cache.iteration = 1
    cache.ring_bytes = (n_bytes - n_slots * sizeof(cache_slot_t)) // 8 * 8
    cache.slots = <cache_slot_t*> calloc(n_slots, sizeof(cache_slot_t))
    cache.ring = <uint8_t*> malloc(cache.ring_bytes)
    return -1 if cache.slots == NULL or cache.ring == NULL else 0


cdef void cache_clear(cache_t* cache) noexcept nogil:
    free(cache.slots)
    free(cache.ring)
    cache.slots = NULL
    cache.ring = NULL
    cache.n_slots = 0


cdef int32_t cache_find(
    cache_t* cache, const uint8_t* key, size_t n_key, int64_t now_ns, span_t* out
) noexcept nogil:
    cdef bint found
    cdef uint64_t slot
    cdef entry_t* entry
    if cache.n_slots == 0:
        return OUTCOME_NOT_READ
    slot = _find_slot(cache, key, n_key, hash_bytes(key, n_key, cache.seed), &found)
    if found:
        entry = _entry(cache, cache.slots[slot].place)
        if entry.expires_ns > now_ns:
            add(&cache.n_hits, 1)
            if entry.n_record == NO_RECORD:
                return OUTCOME_ABSENT
            entry.iteration = cache.iteration
            out.data = _key(entry) + n_key
            out.size = entry.n_record
            return OUTCOME_HIT
    add(&cache.n_misses, 1)
    return OUTCOME_NOT_READ


cdef void cache_store(
    cache_t* cache, const uint8_t* key, size_t n_key, const uint8_t* record, size_t n_record,
    int64_t now_ns
) noexcept nogil:
    cdef bint found
    cdef uint64_t slot
    cdef uint32_t hash
    cdef entry_t* entry
    if cache.n_slots == 0:
        return
    if record == NULL:
        n_record = 0
    entry = _append(cache, (sizeof(entry_t) + n_key + n_record + 7) // 8 * 8, now_ns)
    if entry == NULL:
        return
    hash = hash_bytes(key, n_key, cache.seed)
    slot = _find_slot(cache, key, n_key, hash, &found)
    if cache.slots[slot].place != 0:
        if found:
            _entry(cache, cache.slots[slot].place).slot = NO_SLOT
        else:
            _unlink(cache, _entry(cache, cache.slots[slot].place), now_ns)
    cache.slots[slot].hash = hash
    cache.slots[slot].place = <uint32_t> ((<uint8_t*> entry - cache.ring) // 8 + 1)
    entry.expires_ns = now_ns + cache.ttl_ns
    entry.slot = <uint32_t> slot
    entry.n_key = <uint32_t> n_key
    entry.n_record = <uint32_t> n_record if record != NULL else NO_RECORD
    entry.iteration = cache.iteration - 1
    memcpy(_key(entry), key, n_key)
    if n_record > 0:
        memcpy(_key(entry) + n_key, record, n_record)


cdef void cache_leave(cache_t* cache) noexcept nogil:
    cache.iteration += 1


cdef class RecordCache:
    """A cache of its own, for tests.

    Parameters
    ----------
    n_bytes : int
        Of index and records together, 16 KiB to 16 GiB.
    ttl_ns : int
        How long an answer is kept, > 0.
    seed : int
        Of the hash.
    """

    cdef cache_t cache

    def __cinit__(self, int64_t n_bytes, int64_t ttl_ns, uint64_t seed=0):
        if not MIN_CACHE_BYTES <= n_bytes <= 1 << 34 or ttl_ns <= 0:
            raise StoreError(f"cache: {n_bytes} bytes or {ttl_ns} ns are out of range")
        if cache_init(&self.cache, n_bytes, ttl_ns, seed) != 0:
            raise MemoryError

    def __dealloc__(self):
        cache_clear(&self.cache)

    def find(self, bytes key not None, int64_t now_ns):
        """Return (known, record): (True, None) where the store is known to have none."""
        cdef span_t out
        cdef int32_t outcome = cache_find(&self.cache, key, len(key), now_ns, &out)
        if outcome == OUTCOME_HIT:
            return True, (<const char*> out.data)[:out.size]
        return outcome == OUTCOME_ABSENT, None

    def store(self, bytes key not None, bytes record, int64_t now_ns):
        """Keep a record, or None: the store has none."""
        cdef const uint8_t* data = NULL
        cdef size_t size = 0
        if record is not None:
            data = <const uint8_t*> <const char*> record
            size = len(record)
        cache_store(&self.cache, key, len(key), data, size, now_ns)

    def leave(self):
        """End the iteration: records that were handed out may be overwritten."""
        cache_leave(&self.cache)

    def stats(self):
        """Return hits, misses, evictions of fresh records, and the ring's bytes in use."""
        return {
            "hits": self.cache.n_hits,
            "misses": self.cache.n_misses,
            "evictions": self.cache.n_evictions,
            "bytes": self.cache.n_used,
        }
