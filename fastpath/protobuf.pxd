"""Protobuf's wire format: the few primitives that `wire` reads and writes messages with.

Rules: readers take the cursor and the end, never look at `end` or beyond, and return the new
cursor, or NULL where the official runtime (upb) would refuse the bytes: a varint longer than ten
bytes (bits over 64 are dropped), a tag or a length longer than five, a tag over 32 bits, a
length over 31 bits or past the end, a wire type of 6 or 7, an unbalanced group, nesting deeper
than 100. Writers take the cursor and return the new one; the caller made room.

Everything is inlined: a request has some forty such reads. Words are copied, so alignment does not
matter, and little-endian, as every supported machine is.
"""

from libc.stddef cimport size_t
from libc.stdint cimport INT32_MAX, UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpath._types cimport span_t

cdef enum:
    MAX_DEPTH = 100              # upb's own limit on nested messages and groups
    MAX_VARINT_BYTES = 10

cdef enum wire_type_t:
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_BYTES = 2
    WIRE_GROUP = 3
    WIRE_END_GROUP = 4
    WIRE_FIXED32 = 5


# ----------------------------------------------------------------- reading

cdef inline const uint8_t* read_varint(
    const uint8_t* at, const uint8_t* end, uint64_t* out, int max_bytes
) noexcept nogil:
    cdef uint64_t value = 0
    cdef uint64_t byte
    cdef int i
    for i in range(max_bytes):
        if at >= end:
            return NULL
        byte = at[0]
        at += 1
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            out[0] = value
            return at
    return NULL


cdef inline const uint8_t* read_tag(
    const uint8_t* at, const uint8_t* end, uint32_t* out
) noexcept nogil:
    cdef uint64_t value = 0
    if at < end and at[0] < 0x80:
        out[0] = at[0]
        return at + 1
    at = read_varint(at, end, &value, 5)
    if at is NULL or value > UINT32_MAX:
        return NULL
    out[0] = <uint32_t> value
    return at


# A length and the bytes that it announces: `out` borrows them.
cdef inline const uint8_t* read_span(
    const uint8_t* at, const uint8_t* end, span_t* out
) noexcept nogil:
    cdef uint64_t size = 0
    if at < end and at[0] < 0x80:
        size = at[0]
        at += 1
    else:
        at = read_varint(at, end, &size, 5)
        if at is NULL or size > <uint64_t> INT32_MAX:
            return NULL
    if size > <uint64_t> (end - at):
        return NULL
    out.data = at
    out.size = <size_t> size
    return at + size


cdef inline const uint8_t* read_fixed64(
    const uint8_t* at, const uint8_t* end, void* out
) noexcept nogil:
    if end - at < 8:
        return NULL
    memcpy(out, at, 8)
    return at + 8


cdef inline const uint8_t* read_fixed32(
    const uint8_t* at, const uint8_t* end, void* out
) noexcept nogil:
    if end - at < 4:
        return NULL
    memcpy(out, at, 4)
    return at + 4


# Passes over one value whose tag was read. Of `depth` levels that may still be opened, a group
# takes one. Inside a group field numbers are not looked at, as in upb.
cdef inline const uint8_t* skip_value(
    const uint8_t* at, const uint8_t* end, uint32_t tag, int depth
) noexcept nogil:
    cdef uint32_t[MAX_DEPTH] closing
    cdef int n_open = 0
    cdef uint64_t ignored
    cdef span_t span
    cdef uint32_t kind
    while True:
        kind = tag & 7
        if kind == WIRE_VARINT:
            at = read_varint(at, end, &ignored, MAX_VARINT_BYTES)
        elif kind == WIRE_FIXED64:
            at = read_fixed64(at, end, &ignored)
        elif kind == WIRE_BYTES:
            at = read_span(at, end, &span)
        elif kind == WIRE_FIXED32:
            at = read_fixed32(at, end, &ignored)
        elif kind == WIRE_GROUP:
            if n_open >= depth:
                return NULL
            closing[n_open] = tag + 1
            n_open += 1
        elif kind == WIRE_END_GROUP:
            if n_open == 0 or tag != closing[n_open - 1]:
                return NULL
            n_open -= 1
        else:
            return NULL
        if at is NULL or n_open == 0:
            return at
        at = read_tag(at, end, &tag)
        if at is NULL:
            return NULL


# Nearly every text, and nearly every text is short: the last bytes are looked at as one word that
# overlaps the one before, not in a loop.
cdef inline bint is_ascii(span_t text) noexcept nogil:
    cdef uint64_t seen = 0
    cdef uint64_t word
    cdef uint32_t first
    cdef uint32_t last
    cdef size_t i = 0
    if text.size >= 8:
        while i + 8 <= text.size:
            memcpy(&word, text.data + i, 8)
            seen |= word
            i += 8
        memcpy(&word, text.data + text.size - 8, 8)
        seen |= word
    elif text.size >= 4:
        memcpy(&first, text.data, 4)
        memcpy(&last, text.data + text.size - 4, 4)
        seen = first | last
    else:
        while i < text.size:
            seen |= text.data[i]
            i += 1
    return (seen & <uint64_t> 0x8080808080808080) == 0


# Unicode's well-formed UTF-8 (table 3-7 of the standard): no surrogates, no overlong forms.
cdef inline bint is_utf8(span_t text) noexcept nogil:
    cdef const uint8_t* at = text.data
    cdef const uint8_t* end = text.data + text.size
    cdef uint64_t word
    cdef uint8_t lead
    cdef uint8_t low
    cdef uint8_t high
    cdef int n_more
    if is_ascii(text):
        return True
    while at < end:
        while end - at >= 8:
            memcpy(&word, at, 8)
            if word & <uint64_t> 0x8080808080808080:
                break
            at += 8
        if at == end:
            break
        lead = at[0]
        at += 1
        if lead < 0x80:
            continue
        low = 0x80
        high = 0xBF
        if lead < 0xC2:
            return False
        if lead < 0xE0:
            n_more = 1
        elif lead < 0xF0:
            n_more = 2
            if lead == 0xE0:
                low = 0xA0
            elif lead == 0xED:
                high = 0x9F
        elif lead < 0xF5:
            n_more = 3
            if lead == 0xF0:
                low = 0x90
            elif lead == 0xF4:
                high = 0x8F
        else:
            return False
        while n_more > 0:
            if at == end or at[0] < low or at[0] > high:
                return False
            low = 0x80
            high = 0xBF
            at += 1
            n_more -= 1
    return True


# ----------------------------------------------------------------- writing

cdef inline uint8_t* put_varint(uint8_t* at, uint64_t value) noexcept nogil:
    while value >= 0x80:
        at[0] = <uint8_t> (value | 0x80)
        at += 1
        value >>= 7
    at[0] = <uint8_t> value
    return at + 1


# A tag below 128 is one byte; field numbers from 16 on take two.
cdef inline uint8_t* put_tag(uint8_t* at, uint32_t field, uint32_t kind) noexcept nogil:
    return put_varint(at, (field << 3) | kind)


cdef inline uint8_t* put_uint(uint8_t* at, uint32_t field, uint64_t value) noexcept nogil:
    if value == 0:
        return at
    return put_varint(put_tag(at, field, WIRE_VARINT), value)


# Of a field with presence: written though it is 0.
cdef inline uint8_t* put_present(uint8_t* at, uint32_t field, uint64_t value) noexcept nogil:
    return put_varint(put_tag(at, field, WIRE_VARINT), value)


# Written unless all bits are zero: -0.0 is not the default.
cdef inline uint8_t* put_double(uint8_t* at, uint32_t field, double value) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    if bits == 0:
        return at
    at = put_tag(at, field, WIRE_FIXED64)
    memcpy(at, &bits, 8)
    return at + 8


# A float whose presence the caller decided.
cdef inline uint8_t* put_float(uint8_t* at, uint32_t field, float value) noexcept nogil:
    at = put_tag(at, field, WIRE_FIXED32)
    memcpy(at, &value, 4)
    return at + 4


cdef inline uint8_t* put_bytes(
    uint8_t* at, uint32_t field, const uint8_t* data, size_t size
) noexcept nogil:
    if size == 0:
        return at
    at = put_varint(put_tag(at, field, WIRE_BYTES), size)
    memcpy(at, data, size)
    return at + size
