from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    PREFIX_BYTES = 5             # of a gRPC message: compressed flag, big-endian length


# Nanoseconds of a grpc-timeout value, saturated at INT64_MAX; -1: malformed.
cdef int64_t parse_timeout(const uint8_t* text, size_t size) noexcept nogil
# 1: a content type whose messages are protobuf over gRPC.
cdef int is_grpc_content_type(const uint8_t* text, size_t size) noexcept nogil
# Percent-encodes a grpc-message: at most 3 * size bytes at `out`. Returns the length.
cdef size_t percent_encode(const char* text, size_t size, uint8_t* out) noexcept nogil
cdef uint32_t read_length(const uint8_t* prefix) noexcept nogil
cdef void write_prefix(uint8_t* out, uint32_t length) noexcept nogil
