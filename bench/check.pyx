"""Whether an answer is the expected one: all of its bytes, or its raw score bit for bit.

How it works: CHECK_BYTES compares everything. CHECK_SCORE walks the top level of a protobuf
message for field 2 of type float (ScoreResponse.raw_score). Where it occurs twice the last one
counts; where it is missing it is 0, as proto3 defines.

What it does not do: it does not look into submessages, and knows no other field.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from bench._types cimport CHECK_BYTES, CHECK_SCORE, message_t

cdef enum:
    RAW_SCORE_TAG = 21           # field 2, fixed32


cdef size_t varint(const uint8_t* data, size_t n_data, uint64_t* value) noexcept nogil:
    # Returns how many bytes it took; 0 when damaged.
    cdef size_t i
    value[0] = 0
    for i in range(min(n_data, <size_t> 10)):
        value[0] |= <uint64_t> (data[i] & 127) << (7 * i)
        if data[i] < 128:
            return i + 1
    return 0


cdef int32_t raw_score_of(const uint8_t* data, size_t n_data, uint32_t* bits) noexcept nogil:
    # Returns -1 when the message is damaged.
    cdef size_t at = 0
    cdef size_t n
    cdef uint64_t tag
    cdef uint64_t size
    cdef uint64_t skipped
    bits[0] = 0
    while at < n_data:
        n = varint(data + at, n_data - at, &tag)
        if n == 0:
            return -1
        at += n
        if tag & 7 == 0:
            size = varint(data + at, n_data - at, &skipped)
            if size == 0:
                return -1
        elif tag & 7 == 1:
            size = 8
        elif tag & 7 == 5:
            size = 4
        elif tag & 7 == 2:
            n = varint(data + at, n_data - at, &size)
            if n == 0:
                return -1
            at += n
        else:
            return -1
        if size > n_data - at:
            return -1
        if tag == RAW_SCORE_TAG and size == 4:
            memcpy(bits, data + at, 4)
        at += <size_t> size
    return 0


cdef int32_t answer_is_right(
    const message_t* message, const uint8_t* data, size_t n_data
) noexcept nogil:
    cdef uint32_t bits
    if message.check == CHECK_BYTES:
        return n_data == message.n_expected and (
            n_data == 0 or memcmp(data, message.expected, n_data) == 0
        )
    if message.check == CHECK_SCORE:
        return raw_score_of(data, n_data, &bits) == 0 and bits == message.expected_raw
    return 1


def find_raw_score(bytes answer not None):
    """Return the bits of a ScoreResponse's raw score; None when the bytes are no protobuf."""
    cdef uint32_t bits = 0
    cdef const uint8_t* data = answer
    if raw_score_of(data, len(answer), &bits) != 0:
        return None
    return bits
