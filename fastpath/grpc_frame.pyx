"""The text and prefix forms of gRPC over HTTP/2: grpc-timeout, grpc-message, content type.

From the gRPC protocol description (PROTOCOL-HTTP2). Pure functions over borrowed bytes.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp


cdef int64_t parse_timeout(const uint8_t* text, size_t size) noexcept nogil:
    # TimeoutValue: 1 to 8 digits. TimeoutUnit: H M S m u n.
    cdef int64_t value = 0
    cdef int64_t unit_ns
    cdef size_t i
    cdef uint8_t unit
    if size < 2 or size > 9:
        return -1
    for i in range(size - 1):
        if text[i] < c"0" or text[i] > c"9":
            return -1
        value = value * 10 + (text[i] - c"0")
    unit = text[size - 1]
    if unit == c"H":
        unit_ns = 3_600_000_000_000
    elif unit == c"M":
        unit_ns = 60_000_000_000
    elif unit == c"S":
        unit_ns = 1_000_000_000
    elif unit == c"m":
        unit_ns = 1_000_000
    elif unit == c"u":
        unit_ns = 1_000
    elif unit == c"n":
        unit_ns = 1
    else:
        return -1
    if value > INT64_MAX // unit_ns:
        return INT64_MAX
    return value * unit_ns


cdef int is_grpc_content_type(const uint8_t* text, size_t size) noexcept nogil:
    # application/grpc, +proto, and either with parameters; media types are case-insensitive
    # (RFC 9110, 8.3.1).
    cdef const char* wanted = "application/grpc+proto"
    cdef size_t i
    cdef size_t end = 0
    cdef uint8_t byte
    if (size == 16 or size == 22) and memcmp(text, wanted, size) == 0:
        return 1                 # nearly always
    while end < size and text[end] != c";" and text[end] != c" ":
        end += 1
    if end != 16 and end != 22:
        return 0
    for i in range(end):
        byte = text[i]
        if c"A" <= byte <= c"Z":
            byte |= 0x20
        if byte != <uint8_t> wanted[i]:
            return 0
    return 1


cdef size_t percent_encode(const char* text, size_t size, uint8_t* out) noexcept nogil:
    # Unencoded: 0x20 to 0x7E without "%".
    cdef const char* digits = "0123456789ABCDEF"
    cdef size_t i
    cdef size_t n = 0
    cdef uint8_t byte
    for i in range(size):
        byte = <uint8_t> text[i]
        if byte >= 0x20 and byte <= 0x7E and byte != c"%":
            out[n] = byte
            n += 1
        else:
            out[n] = c"%"
            out[n + 1] = digits[byte >> 4]
            out[n + 2] = digits[byte & 15]
            n += 3
    return n


cdef uint32_t read_length(const uint8_t* prefix) noexcept nogil:
    return (
        <uint32_t> prefix[1] << 24 | <uint32_t> prefix[2] << 16
        | <uint32_t> prefix[3] << 8 | prefix[4]
    )


cdef void write_prefix(uint8_t* out, uint32_t length) noexcept nogil:
    out[0] = 0                   # never compressed
    out[1] = length >> 24
    out[2] = length >> 16 & 255
    out[3] = length >> 8 & 255
    out[4] = length & 255


def timeout_ns(value: bytes) -> int | None:
    """Read a ``grpc-timeout`` value.

    Parameters
    ----------
    value : bytes
        One to eight digits and a unit of H, M, S, m, u, n.

    Returns
    -------
    int or None
        Nanoseconds, at most 2**63 - 1; None where the value is malformed.
    """
    cdef const uint8_t* text = value
    cdef int64_t answer = parse_timeout(text, len(value))
    return None if answer < 0 else answer


def encode_message(text: bytes) -> bytes:
    """Percent-encode UTF-8 text as a ``grpc-message`` value.

    Parameters
    ----------
    text : bytes
        Any bytes.

    Returns
    -------
    bytes
        Printable ASCII.
    """
    cdef const char* source = text
    cdef size_t size = len(text)
    cdef uint8_t* out = <uint8_t*> malloc(3 * size + 1)
    if out == NULL:
        raise MemoryError
    try:
        return out[: percent_encode(source, size, out)]
    finally:
        free(out)


def accepts_content_type(value: bytes) -> bool:
    """Tell whether a ``content-type`` is one of gRPC with protobuf messages.

    Parameters
    ----------
    value : bytes
        The header's value.

    Returns
    -------
    bool
        True for application/grpc and application/grpc+proto, with or without parameters.
    """
    cdef const uint8_t* text = value
    return is_grpc_content_type(text, len(value)) != 0
