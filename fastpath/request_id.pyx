"""Ids for requests that come without one: UUIDv7 (RFC 9562, section 5.7).

48 bits of Unix milliseconds and 74 random bits, so that ids sort by time and two servers
do not collide. The random bits are SplitMix64's (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", 2014), seeded per thread from the system: they make ids
different, not secret.
"""

from fastpath.c.clock cimport CLOCK_REALTIME, clock_gettime, timespec


cdef uint64_t _next(id_source_t* source) noexcept nogil:
    cdef uint64_t z
    source.state += <uint64_t> 0x9E3779B97F4A7C15
    z = source.state
    z = (z ^ (z >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t> 0x94D049BB133111EB
    return z ^ (z >> 31)


cdef int32_t make_request_id(id_source_t* source, uint8_t* out) noexcept nogil:
    cdef const char* digits = b"0123456789abcdef"
    cdef uint64_t high, low, word
    cdef timespec moment
    cdef int64_t wall_ms
    cdef int i
    cdef int32_t at = 0
    if source.fixed_wall_ns >= 0:
        wall_ms = source.fixed_wall_ns // 1_000_000
    else:
        clock_gettime(CLOCK_REALTIME, &moment)
        wall_ms = <int64_t> moment.tv_sec * 1000 + moment.tv_nsec // 1_000_000
    # Version 7 in bits 48 to 51, variant 10 in bits 64 and 65.
    high = ((<uint64_t> wall_ms) << 16) | 0x7000 | (_next(source) & 0x0FFF)
    low = (<uint64_t> 1 << 63) | (_next(source) >> 2)
    for i in range(32):
        if i == 8 or i == 12 or i == 16 or i == 20:
            out[at] = b"-"
            at += 1
        word = high if i < 16 else low
        out[at] = <uint8_t> digits[(word >> (60 - 4 * (i & 15))) & 15]
        at += 1
    return at


def new_request_id(seed, wall_ns=None):
    """Return the first id of a source with this seed, for tests and tools.

    Parameters
    ----------
    seed : int
        64 bits.
    wall_ns : int, optional
        Unix time in nanoseconds; the clock's by default.
    """
    cdef id_source_t source
    cdef uint8_t[36] text
    source.state = seed
    source.fixed_wall_ns = -1 if wall_ns is None else wall_ns
    return (<const char*> text)[:make_request_id(&source, text)].decode()
