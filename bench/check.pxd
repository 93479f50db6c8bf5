from libc.stdint cimport int32_t, uint8_t, uint32_t

from bench._types cimport message_t

cdef int32_t raw_score_of(const uint8_t* data, size_t n_data, uint32_t* bits) noexcept nogil
cdef int32_t answer_is_right(
    const message_t* message, const uint8_t* data, size_t n_data
) noexcept nogil
