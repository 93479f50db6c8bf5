from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastpath._types cimport MAX_ENTITIES, MAX_FEATURES, error_t, span_t
# Both directions of the wire are cimported from here.

cdef enum feature_form_t:
    FORM_NONE = 0
    FORM_DENSE = 1
    FORM_NAMED = 2

cdef enum value_kind_t:
    KIND_NULL = 0
    KIND_NUMBER = 1
    KIND_FLAG = 2
    KIND_TEXT = 3

cdef enum option_t:
    OPTION_PROVENANCE = 1
    OPTION_TIMINGS = 2
    OPTION_REASONS = 4


ctypedef struct entity_t:
    span_t role
    span_t type
    span_t id


ctypedef struct named_t:
    span_t name
    int32_t kind                 # value_kind_t
    double number                # KIND_NUMBER; KIND_FLAG: 0 or 1
    span_t text                  # KIND_TEXT


# One decoded ScoreRequest. Spans borrow the message's bytes. About 60 KiB: one per thread, reused.
ctypedef struct request_t:
    span_t request_id
    int64_t event_time_ms
    span_t routing_key
    span_t model
    uint32_t options             # option_t bits
    int32_t n_entities
    int32_t form                 # feature_form_t
    uint64_t layout              # FORM_DENSE
    int32_t n_values             # FORM_DENSE; may exceed MAX_FEATURES: the excess is counted only
    int32_t n_named              # FORM_NAMED, after duplicate keys were merged (the last wins)
    entity_t[MAX_ENTITIES] entities
    float[MAX_FEATURES] values
    named_t[MAX_FEATURES] named
    # Decoder's own: open addressing over the names of `named`, index + 1, or 0; at most half full.
    uint16_t[2 * MAX_FEATURES] named_table


# Decodes exactly what the official runtime accepts (any field order, split and unpacked repeated
# fields, merged sub-messages, unknown fields, invalid UTF-8 refused), within our own limits.
# Returns 0, or -1 with `error` set to INVALID_ARGUMENT. Never reads past `size`, never allocates.
# `out` needs no preparation and holds nothing of an earlier request afterwards.
cdef int32_t decode_request(
    const uint8_t* data, size_t size, request_t* out, error_t* error
) noexcept nogil
