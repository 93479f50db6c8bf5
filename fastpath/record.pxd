from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from fastpath.schema cimport Schema


# How an arm reads records of one layout of one of its groups. Owned by a RecordGather.
ctypedef struct record_layout_t:
    uint64_t fingerprint
    int32_t n_columns            # a record has RECORD_HEADER_BYTES + 4 * n_columns bytes
    const int32_t* column        # [group.n_members]: column of the member, or -1: it lacks it


# Header of a record. Records may start at any address: nothing is read through a cast.
ctypedef struct record_t:
    uint64_t fingerprint
    int64_t event_time_ms
    const uint8_t* values        # n_values little-endian float32, unaligned
    int32_t n_values


cdef class RecordGather:
    cdef record_layout_t table
    cdef readonly Schema schema
    cdef readonly int group      # index in schema.groups
    cdef readonly tuple columns  # (name, type) of every column of the layout
    cdef int32_t* column


# Splits a record. Returns 0, or -1: shorter than a header, or its values are not whole.
cdef int32_t parse_record(const uint8_t* data, size_t size, record_t* out) noexcept nogil
