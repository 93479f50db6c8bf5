from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastpath._types cimport N_BUCKETS


# An immutable routing table: which arm owns each bucket.
ctypedef struct bucket_table_t:
    uint64_t key0                # SipHash key: first 16 bytes of SHA-256(salt), little-endian
    uint64_t key1
    uint8_t[N_BUCKETS] arm       # index of the arm in its model


cdef class BucketTable:
    cdef bucket_table_t table
    cdef readonly bytes salt


cdef uint64_t siphash24(
    uint64_t key0, uint64_t key1, const uint8_t* data, size_t size
) noexcept nogil


# The same rounds with 128 bits of output: out[0] is the lower half. One pass over the data.
cdef void siphash24_128(
    uint64_t key0, uint64_t key1, const uint8_t* data, size_t size, uint64_t* out
) noexcept nogil


# Hash of a routing key: deterministic across processes, machines, byte orders and restarts.
cdef inline uint64_t hash_of(
    const bucket_table_t* table, const uint8_t* key, size_t size
) noexcept nogil:
    return siphash24(table.key0, table.key1, key, size)


cdef inline uint32_t bucket_of(uint64_t hash) noexcept nogil:
    return <uint32_t> (hash % N_BUCKETS)
