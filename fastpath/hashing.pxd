"""The one hash of short byte strings, for the open-addressing tables of `schema` and `wire`.

Inlined wherever it is used: names are 5 to 30 bytes, so a call would cost as much as the hash.
Eight bytes at a time, folded by a multiplication; the same on every little-endian machine. Not
cryptographic: whoever hashes keys that a caller chooses passes a secret seed.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint32_t hash_bytes(
    const uint8_t* data, size_t size, uint64_t seed
) noexcept nogil:
    cdef uint64_t state = seed ^ (<uint64_t> size * <uint64_t> 0xA0761D6478BD642F)
    cdef uint64_t word
    while size >= 8:
        memcpy(&word, data, 8)
        state = (state ^ word) * <uint64_t> 0xE7037ED1A0B428DB
        state ^= state >> 32
        data += 8
        size -= 8
    word = 0
    # Byte by byte: reading a whole word would run past the end of the buffer.
    while size > 0:
        size -= 1
        word = (word << 8) | data[size]
    state = (state ^ word) * <uint64_t> 0xE7037ED1A0B428DB
    state ^= state >> 32
    state *= <uint64_t> 0x8EBC6AF09C88C6E3
    return <uint32_t> (state >> 32)
