"""Random numbers that spread retries over time: splitmix64, inlined. Not for secrets.

Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
"""

from libc.stdint cimport uint64_t


# The next number in [0, 1). `state` is the caller's seed, moved on.
cdef inline double next_uniform(uint64_t* state) noexcept nogil:
    cdef uint64_t z
    state[0] += <uint64_t> 0x9E3779B97F4A7C15
    z = state[0]
    z = (z ^ (z >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t> 0x94D049BB133111EB
    z ^= z >> 31
    return <double> (z >> 11) * (1.0 / 9007199254740992.0)
