"""Sticky, weight-monotone routing.

Rules
-----
* `bucket = SipHash-2-4(key, text) mod 10,000`, where the hash's key is the first 16 bytes of
  SHA-256(salt) and `text` the routing key's UTF-8 bytes. Nothing else enters: the same key has the
  same bucket in every process, on every machine, after every restart.
* A table says which arm owns each bucket: one load per decision. Weights are basis points
  and add up to 10,000, so a weight is exactly a number of buckets.
* A change of weights moves the fewest buckets possible: an arm that shrinks gives up its
  highest-numbered buckets, an arm that grows takes only those. Raising 10 % to 20 % moves nobody
  back. A table therefore depends on its history, and is kept whole wherever it is kept.

SipHash is Aumasson and Bernstein's ("SipHash: a fast short-input PRF", 2012), 2 compression and 4
finalization rounds, 64-bit output. It is not here for secrecy but because callers choose the keys:
nobody can aim at an arm without the salt. Its 128-bit output, as the authors' own implementation
makes it, names request ids (`capture.hash_id`).
"""

import hashlib

from fastpath.errors import RoutingError

from libc.string cimport memcpy


cdef inline uint64_t _rotate(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


cdef inline void _round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[1] = _rotate(v[1], 13) ^ v[0]
    v[0] = _rotate(v[0], 32)
    v[2] += v[3]
    v[3] = _rotate(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = _rotate(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = _rotate(v[1], 17) ^ v[2]
    v[2] = _rotate(v[2], 32)


cdef inline uint64_t _little_endian(const uint8_t* data, size_t size) noexcept nogil:
    # Byte by byte, so that big-endian machines agree; compilers make one load of the 8-byte case.
    cdef uint64_t word = 0
    cdef size_t i
    for i in range(size):
        word |= (<uint64_t> data[i]) << (8 * i)
    return word


cdef inline void _absorb(uint64_t* v, const uint8_t* data, size_t size) noexcept nogil:
    # Compression: all words, the last one with the length in its highest byte.
    cdef uint64_t word
    cdef size_t i
    cdef size_t n_whole = size & ~(<size_t> 7)
    cdef size_t n_rest = size - n_whole
    for i in range(0, n_whole, 8):
        word = _little_endian(data + i, 8)
        v[3] ^= word
        _round(v)
        _round(v)
        v[0] ^= word
    word = (<uint64_t> size) << 56
    if n_rest != 0 and n_whole != 0:
        # The last eight bytes, without those that were hashed: one load instead of up to seven.
        word |= _little_endian(data + size - 8, 8) >> (8 * (8 - n_rest))
    else:
        word |= _little_endian(data, n_rest)
    v[3] ^= word
    _round(v)
    _round(v)
    v[0] ^= word


cdef inline uint64_t _finish(uint64_t* v) noexcept nogil:
    cdef int _final
    for _final in range(4):
        _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline void _begin(uint64_t* v, uint64_t key0, uint64_t key1) noexcept nogil:
    v[0] = <uint64_t> 0x736f6d6570736575 ^ key0
    v[1] = <uint64_t> 0x646f72616e646f6d ^ key1
    v[2] = <uint64_t> 0x6c7967656e657261 ^ key0
    v[3] = <uint64_t> 0x7465646279746573 ^ key1


cdef uint64_t siphash24(
    uint64_t key0, uint64_t key1, const uint8_t* data, size_t size
) noexcept nogil:
    cdef uint64_t[4] v
    _begin(v, key0, key1)
    _absorb(v, data, size)
    v[2] ^= 0xff
    return _finish(v)


cdef void siphash24_128(
    uint64_t key0, uint64_t key1, const uint8_t* data, size_t size, uint64_t* out
) noexcept nogil:
    cdef uint64_t[4] v
    _begin(v, key0, key1)
    v[1] ^= 0xee
    _absorb(v, data, size)
    v[2] ^= 0xee
    out[0] = _finish(v)
    v[1] ^= 0xdd
    out[1] = _finish(v)


def siphash(bytes key not None, bytes data not None, *, int n_bits=64):
    """Return SipHash-2-4 of `data` under a 16-byte `key`, as an unsigned integer.

    Parameters
    ----------
    key : bytes
        16 of them.
    data : bytes
    n_bits : {64, 128}
        Of the result; the lower half of 128 bits is not the hash of 64.

    Raises
    ------
    RoutingError
        The key has another length than 16 bytes, or there is no hash of so many bits.
    """
    cdef uint64_t[2] halves
    if len(key) != 16:
        raise RoutingError(f"a SipHash key has 16 bytes, not {len(key)}")
    if n_bits not in (64, 128):
        raise RoutingError(f"a SipHash has 64 or 128 bits, not {n_bits}")
    cdef const uint8_t* raw = key
    cdef uint64_t key0 = _little_endian(raw, 8)
    cdef uint64_t key1 = _little_endian(raw + 8, 8)
    cdef const uint8_t* text = <const uint8_t*> <const char*> data
    if n_bits == 64:
        return siphash24(key0, key1, text, len(data))
    siphash24_128(key0, key1, text, len(data), halves)
    return int(halves[0]) | int(halves[1]) << 64


def _check_weights(weights):
    """Basis points as a list of ints that add up to 10,000, or RoutingError."""
    checked = [int(weight) for weight in weights]
    if not 1 <= len(checked) <= 255:
        raise RoutingError(f"a model has 1 to 255 arms, not {len(checked)}")
    if any(weight < 0 for weight in checked):
        raise RoutingError(f"weights are basis points, 0 to {N_BUCKETS}; got {checked}")
    if sum(checked) != N_BUCKETS:
        raise RoutingError(f"weights must add up to {N_BUCKETS} basis points, not {sum(checked)}")
    return checked


cdef class BucketTable:
    """Which arm owns each of the 10,000 buckets. Immutable.

    Parameters
    ----------
    salt : bytes
        Per model; another salt is another, independent split.
    arms : bytes, length 10,000
        Index of the owning arm, per bucket.
    """

    def __cinit__(self, bytes salt not None, bytes arms not None):
        if len(arms) != N_BUCKETS:
            raise RoutingError(f"a table has {N_BUCKETS} buckets, not {len(arms)}")
        cdef bytes digest = hashlib.sha256(salt).digest()
        cdef const uint8_t* raw = digest
        cdef const uint8_t* owners = arms
        self.salt = salt
        self.table.key0 = _little_endian(raw, 8)
        self.table.key1 = _little_endian(raw + 8, 8)
        memcpy(self.table.arm, owners, N_BUCKETS)

    @classmethod
    def from_weights(cls, bytes salt not None, weights):
        """Make a first table, without history: arm 0 owns the lowest buckets, and so on.

        Parameters
        ----------
        weights : sequence of int
            Basis points per arm, adding up to 10,000.
        """
        arms = b"".join(bytes([arm]) * weight for arm, weight in enumerate(_check_weights(weights)))
        return cls(salt, arms)

    def rebalance(self, weights):
        """Return a table with other weights that moves the fewest buckets possible.

        Parameters
        ----------
        weights : sequence of int
            Basis points per arm; arms beyond those that own buckets now are newcomers.
        """
        cdef int[256] surplus
        cdef bytearray arms = bytearray(self.to_bytes())
        cdef uint8_t* owners = arms
        cdef int bucket, arm
        cdef int taker = 0
        want = _check_weights(weights)
        for arm in range(256):
            surplus[arm] = -want[arm] if arm < len(want) else 0
        for bucket in range(N_BUCKETS):
            surplus[owners[bucket]] += 1
        for bucket in range(N_BUCKETS - 1, -1, -1):
            if surplus[owners[bucket]] <= 0:
                continue
            surplus[owners[bucket]] -= 1
            # Weights add up, so while somebody has too many, somebody has too few.
            while surplus[taker] >= 0:
                taker += 1
            owners[bucket] = taker
            surplus[taker] += 1
        return BucketTable(self.salt, bytes(arms))

    def to_bytes(self):
        """Return the table: the owning arm of each bucket, 10,000 bytes."""
        return (<const uint8_t*> self.table.arm)[:N_BUCKETS]

    def weights(self, int n_arms):
        """Return the basis points that each of the first `n_arms` arms owns."""
        arms = self.to_bytes()
        return [arms.count(arm) for arm in range(n_arms)]

    @property
    def n_arms(self):
        """One more than the highest arm that owns a bucket."""
        return max(self.to_bytes()) + 1

    def bucket(self, key):
        """Return the bucket of a routing key (str as UTF-8, or bytes)."""
        cdef bytes raw = key.encode() if isinstance(key, str) else key
        return bucket_of(hash_of(&self.table, <const uint8_t*> raw, len(raw)))

    def arm(self, key):
        """Return the arm that a routing key is sent to."""
        return self.table.arm[self.bucket(key)]
