"""From protobuf bytes to requests: scoregate.v1.ScoreRequest. The way back is `answer`.

Rules: `decode_request` accepts what the official runtime (upb) accepts and understands it the same
way: fields in any order, the last of a scalar wins, sub-messages that come twice merge,
`values` packed, split or unpacked, a oneof keeps its last member, of equal map keys the last
wins, a field of an unexpected wire type is an unknown field, unknown fields are passed over, and
strings are UTF-8. One rule may surprise: a map entry that holds an unknown field is itself an
unknown field, so its feature is absent. Beyond protobuf there are limits of ours: entities,
named features, and the lengths of request id and routing key; they hold for the message as a
whole, after merging.

How it works: one pass, no allocation, no copies but of the packed floats; strings are borrowed
from the message. Names of named features go through a hash table in request_t, seeded per process
because callers choose them. The `def` functions are for tests and tools.
"""

import os

from fastpath.errors import RequestError

from libc.limits cimport INT_MAX
from libc.stddef cimport size_t
from libc.stdint cimport (
    int32_t,
    int64_t,
    uint8_t,
    uint16_t,
    uint32_t,
    uint64_t,
)
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from fastpath._types cimport (
    ERROR_TEXT_BYTES,
    MAX_REQUEST_ID_BYTES,
    MAX_ROUTING_KEY_BYTES,
    STATUS_INVALID_ARGUMENT,
    STATUS_OK,
)
from fastpath.hashing cimport hash_bytes
from fastpath.protobuf cimport (
    MAX_DEPTH,
    MAX_VARINT_BYTES,
    is_utf8,
    read_fixed64,
    read_span,
    read_tag,
    read_varint,
    skip_value,
)

__all__ = ["decode"]

# Levels that may still be opened inside a message nested this deep.
cdef enum:
    DEPTH_REQUEST = MAX_DEPTH
    DEPTH_FIELD = MAX_DEPTH - 1      # Entity, ScoreOptions, DenseFeatures, NamedFeatures
    DEPTH_ENTRY = MAX_DEPTH - 2      # of NamedFeatures.values
    DEPTH_VALUE = MAX_DEPTH - 3      # FeatureValue

cdef uint64_t name_seed = int.from_bytes(os.urandom(8), "little")


# One decoding. Lives on the stack of decode_request.
ctypedef struct parser_t:
    const uint8_t* start
    request_t* request
    error_t* error
    int32_t n_entities           # all that came, kept or not
    int32_t too_many_named


cdef const uint8_t* malformed(
    parser_t* parser, const uint8_t* at, const char* message
) noexcept nogil:
    """Say where; the innermost message speaks. Returns NULL for the caller to return."""
    if parser.error.status == STATUS_OK:
        parser.error.status = STATUS_INVALID_ARGUMENT
        snprintf(
            parser.error.text, ERROR_TEXT_BYTES,
            "the message is not a scoregate.v1.ScoreRequest: the field of %s at byte %zu is "
            "corrupt; send what generated protobuf code serializes",
            message, <size_t> (at - parser.start),
        )
    return NULL


cdef const uint8_t* not_utf8(
    parser_t* parser, const uint8_t* at, const char* field
) noexcept nogil:
    if parser.error.status == STATUS_OK:
        parser.error.status = STATUS_INVALID_ARGUMENT
        snprintf(
            parser.error.text, ERROR_TEXT_BYTES,
            "%s (field at byte %zu) is not valid UTF-8; encode strings as UTF-8",
            field, <size_t> (at - parser.start),
        )
    return NULL


cdef int32_t too_long(
    error_t* error, const char* field, size_t n_bytes, int limit
) noexcept nogil:
    error.status = STATUS_INVALID_ARGUMENT
    snprintf(
        error.text, ERROR_TEXT_BYTES,
        "ScoreRequest.%s has %zu bytes, at most %d are allowed; send a shorter one",
        field, n_bytes, limit,
    )
    return -1


cdef int32_t too_many(error_t* error, const char* what, int limit) noexcept nogil:
    error.status = STATUS_INVALID_ARGUMENT
    snprintf(
        error.text, ERROR_TEXT_BYTES,
        "%s holds more than %d, which is the most that one request may have; send fewer",
        what, limit,
    )
    return -1


cdef inline const uint8_t* read_bool(
    const uint8_t* at, const uint8_t* end, int32_t* out
) noexcept nogil:
    cdef uint64_t value = 0
    at = read_varint(at, end, &value, MAX_VARINT_BYTES)
    out[0] = value != 0
    return at


cdef inline const uint8_t* read_text(
    parser_t* parser, const uint8_t* at, const uint8_t* end, span_t* out, const char* field
) noexcept nogil:
    """Read a string; NULL without an error set where the wire data is corrupt."""
    cdef const uint8_t* after = read_span(at, end, out)
    if after is NULL or is_utf8(out[0]):
        return after
    return not_utf8(parser, at - 1, field)


# ---------------------------------------------------------------- decoding

cdef const uint8_t* decode_entity(parser_t* parser, span_t body) noexcept nogil:
    """Append one entity. Returns NULL with the error set, else a cursor of no use."""
    cdef const uint8_t* at = body.data
    cdef const uint8_t* end = body.data + body.size
    cdef const uint8_t* field
    cdef uint32_t tag
    cdef entity_t entity
    memset(&entity, 0, sizeof(entity_t))
    while at < end:
        field = at
        at = read_tag(at, end, &tag)
        if at is NULL or tag < 8:
            return malformed(parser, field, "Entity")
        if tag == 0x0A:
            at = read_text(parser, at, end, &entity.role, "Entity.role")
        elif tag == 0x12:
            at = read_text(parser, at, end, &entity.type, "Entity.type")
        elif tag == 0x1A:
            at = read_text(parser, at, end, &entity.id, "Entity.id")
        else:
            at = skip_value(at, end, tag, DEPTH_FIELD)
        if at is NULL:
            return malformed(parser, field, "Entity")
    if parser.n_entities < MAX_ENTITIES:
        parser.request.entities[parser.n_entities] = entity
    parser.n_entities += 1
    return end


cdef const uint8_t* decode_options(parser_t* parser, span_t body) noexcept nogil:
    """Merge ScoreOptions into the request's option bits."""
    cdef const uint8_t* at = body.data
    cdef const uint8_t* end = body.data + body.size
    cdef const uint8_t* field
    cdef uint32_t tag
    cdef uint32_t bit
    cdef int32_t flag = 0
    while at < end:
        field = at
        at = read_tag(at, end, &tag)
        if at is NULL or tag < 8:
            return malformed(parser, field, "ScoreOptions")
        if tag == 0x08 or tag == 0x10 or tag == 0x18:
            # Fields 1, 2 and 3 are the option_t bits 1, 2 and 4.
            bit = <uint32_t> 1 << ((tag >> 3) - 1)
            at = read_bool(at, end, &flag)
            if flag:
                parser.request.options |= bit
            else:
                parser.request.options &= ~bit
        else:
            at = skip_value(at, end, tag, DEPTH_FIELD)
        if at is NULL:
            return malformed(parser, field, "ScoreOptions")
    return end


cdef inline void add_floats(request_t* request, const uint8_t* data, size_t size) noexcept nogil:
    """Append packed float32 values; those beyond MAX_FEATURES are only counted."""
    cdef size_t n = size // sizeof(float)
    cdef size_t n_kept = n
    cdef size_t n_free = 0
    if request.n_values < MAX_FEATURES:
        n_free = MAX_FEATURES - request.n_values
    if n_kept > n_free:
        n_kept = n_free
    if n_kept > 0:
        memcpy(&request.values[request.n_values], data, n_kept * sizeof(float))
    request.n_values += <int32_t> n


cdef const uint8_t* decode_dense(parser_t* parser, span_t body) noexcept nogil:
    """Merge DenseFeatures into the request; a named form that came before is forgotten."""
    cdef const uint8_t* at = body.data
    cdef const uint8_t* end = body.data + body.size
    cdef const uint8_t* field
    cdef request_t* request = parser.request
    cdef span_t packed
    cdef uint32_t tag
    if request.form != FORM_DENSE:
        request.form = FORM_DENSE
        request.n_named = 0
        parser.too_many_named = False
    while at < end:
        field = at
        at = read_tag(at, end, &tag)
        if at is NULL or tag < 8:
            return malformed(parser, field, "DenseFeatures")
        if tag == 0x12:
            at = read_span(at, end, &packed)
            if at is not NULL:
                if packed.size % sizeof(float) != 0:
                    return malformed(parser, field, "DenseFeatures")
                add_floats(request, packed.data, packed.size)
        elif tag == 0x09:
            at = read_fixed64(at, end, &request.layout)
        elif tag == 0x15:
            if end - at >= 4:
                add_floats(request, at, 4)
                at += 4
            else:
                at = NULL
        else:
            at = skip_value(at, end, tag, DEPTH_FIELD)
        if at is NULL:
            return malformed(parser, field, "DenseFeatures")
    return end


cdef const uint8_t* decode_value(parser_t* parser, span_t body, named_t* out) noexcept nogil:
    """Merge a FeatureValue into `out`: of the kinds, the last wins."""
    cdef const uint8_t* at = body.data
    cdef const uint8_t* end = body.data + body.size
    cdef const uint8_t* field
    cdef uint32_t tag
    cdef int32_t flag = 0
    while at < end:
        field = at
        at = read_tag(at, end, &tag)
        if at is NULL or tag < 8:
            return malformed(parser, field, "FeatureValue")
        if tag == 0x09:
            at = read_fixed64(at, end, &out.number)
            out.kind = KIND_NUMBER
        elif tag == 0x10:
            at = read_bool(at, end, &flag)
            out.number = flag
            out.kind = KIND_FLAG
        elif tag == 0x1A:
            at = read_text(parser, at, end, &out.text, "FeatureValue.text")
            out.kind = KIND_TEXT
        else:
            at = skip_value(at, end, tag, DEPTH_VALUE)
        if at is NULL:
            return malformed(parser, field, "FeatureValue")
    return end


cdef void add_named(parser_t* parser, const named_t* value) noexcept nogil:
    """Add a named feature, or replace the one of the same name."""
    cdef request_t* request = parser.request
    cdef uint32_t slot
    cdef uint16_t entry
    cdef const span_t* name
    slot = hash_bytes(value.name.data, value.name.size, name_seed) % (2 * MAX_FEATURES)
    entry = request.named_table[slot]
    while entry != 0:
        name = &request.named[entry - 1].name
        if name.size == value.name.size and (
            name.size == 0 or memcmp(name.data, value.name.data, name.size) == 0
        ):
            request.named[entry - 1] = value[0]
            return
        slot = (slot + 1) % (2 * MAX_FEATURES)
        entry = request.named_table[slot]
    if request.n_named == MAX_FEATURES:
        parser.too_many_named = True
        return
    request.named[request.n_named] = value[0]
    request.n_named += 1
    request.named_table[slot] = <uint16_t> request.n_named


cdef const uint8_t* decode_entry(parser_t* parser, span_t body) noexcept nogil:
    """Decode one entry of NamedFeatures.values and add it."""
    cdef const uint8_t* at = body.data
    cdef const uint8_t* end = body.data + body.size
    cdef const uint8_t* field
    cdef uint32_t tag
    cdef span_t value
    cdef named_t named
    cdef bint is_known = True
    memset(&named, 0, sizeof(named_t))
    while at < end:
        field = at
        at = read_tag(at, end, &tag)
        if at is NULL or tag < 8:
            return malformed(parser, field, "NamedFeatures.values")
        if tag == 0x0A:
            at = read_text(parser, at, end, &named.name, "a key of NamedFeatures.values")
        elif tag == 0x12:
            at = read_span(at, end, &value)
            if at is not NULL and decode_value(parser, value, &named) is NULL:
                return NULL
        else:
            at = skip_value(at, end, tag, DEPTH_ENTRY)
            is_known = False
        if at is NULL:
            return malformed(parser, field, "NamedFeatures.values")
    if is_known:
        add_named(parser, &named)
    return end


cdef const uint8_t* decode_named(parser_t* parser, span_t body) noexcept nogil:
    """Merge NamedFeatures into the request; a dense form that came before is forgotten."""
    cdef const uint8_t* at = body.data
    cdef const uint8_t* end = body.data + body.size
    cdef const uint8_t* field
    cdef request_t* request = parser.request
    cdef span_t entry
    cdef uint32_t tag
    if request.form != FORM_NAMED:
        request.form = FORM_NAMED
        request.layout = 0
        request.n_values = 0
        memset(request.named_table, 0, sizeof(request.named_table))
    while at < end:
        field = at
        at = read_tag(at, end, &tag)
        if at is NULL or tag < 8:
            return malformed(parser, field, "NamedFeatures")
        if tag == 0x0A:
            at = read_span(at, end, &entry)
            if at is not NULL and decode_entry(parser, entry) is NULL:
                return NULL
        else:
            at = skip_value(at, end, tag, DEPTH_FIELD)
        if at is NULL:
            return malformed(parser, field, "NamedFeatures")
    return end


cdef int32_t check_limits(parser_t* parser) noexcept nogil:
    cdef request_t* request = parser.request
    if request.request_id.size > MAX_REQUEST_ID_BYTES:
        return too_long(
            parser.error, "request_id", request.request_id.size, MAX_REQUEST_ID_BYTES
        )
    if request.routing_key.size > MAX_ROUTING_KEY_BYTES:
        return too_long(
            parser.error, "routing_key", request.routing_key.size, MAX_ROUTING_KEY_BYTES
        )
    if parser.n_entities > MAX_ENTITIES:
        return too_many(parser.error, "ScoreRequest.entities", MAX_ENTITIES)
    if parser.too_many_named:
        return too_many(parser.error, "ScoreRequest.named", MAX_FEATURES)
    request.n_entities = parser.n_entities
    return 0


cdef int32_t decode_request(
    const uint8_t* data, size_t size, request_t* out, error_t* error
) noexcept nogil:
    cdef const uint8_t* at = data
    cdef const uint8_t* end = data + size
    cdef const uint8_t* field
    cdef parser_t parser
    cdef span_t body
    cdef uint64_t varint = 0
    cdef uint32_t tag
    parser.start = data
    parser.request = out
    parser.error = error
    parser.n_entities = 0
    parser.too_many_named = False
    error.status = STATUS_OK
    # All but the three arrays, which the counts bound.
    memset(out, 0, <size_t> (<uint8_t*> &out.entities - <uint8_t*> out))
    if size > INT_MAX:
        malformed(&parser, data, "ScoreRequest")
        return -1
    while at < end:
        field = at
        at = read_tag(at, end, &tag)
        if at is NULL or tag < 8:
            malformed(&parser, field, "ScoreRequest")
            return -1
        if tag == 0x0A:
            at = read_text(&parser, at, end, &out.request_id, "ScoreRequest.request_id")
        elif tag == 0x10:
            at = read_varint(at, end, &varint, MAX_VARINT_BYTES)
            out.event_time_ms = <int64_t> varint
        elif tag == 0x22:
            at = read_text(&parser, at, end, &out.routing_key, "ScoreRequest.routing_key")
        elif tag == 0x2A:
            at = read_text(&parser, at, end, &out.model, "ScoreRequest.model")
        elif tag == 0x1A:
            at = read_span(at, end, &body)
            if at is not NULL and decode_entity(&parser, body) is NULL:
                return -1
        elif tag == 0x32:
            at = read_span(at, end, &body)
            if at is not NULL and decode_options(&parser, body) is NULL:
                return -1
        elif tag == 0x3A:
            at = read_span(at, end, &body)
            if at is not NULL and decode_dense(&parser, body) is NULL:
                return -1
        elif tag == 0x42:
            at = read_span(at, end, &body)
            if at is not NULL and decode_named(&parser, body) is NULL:
                return -1
        else:
            at = skip_value(at, end, tag, DEPTH_REQUEST)
        if at is NULL:
            malformed(&parser, field, "ScoreRequest")
            return -1
    return check_limits(&parser)


# ------------------------------------------------------- for tests and tools

cdef str text_of(span_t span):
    return (<const char*> span.data)[:span.size].decode() if span.size > 0 else ""


cdef object value_of(const named_t* named):
    if named.kind == KIND_NUMBER:
        return named.number
    if named.kind == KIND_FLAG:
        return named.number != 0
    return text_of(named.text) if named.kind == KIND_TEXT else None


cdef dict request_to_dict(const request_t* request):
    cdef int32_t i
    cdef int32_t n_kept = min(request.n_values, <int32_t> MAX_FEATURES)
    return {
        "request_id": text_of(request.request_id),
        "event_time_ms": request.event_time_ms,
        "entities": [
            (
                text_of(request.entities[i].role),
                text_of(request.entities[i].type),
                text_of(request.entities[i].id),
            )
            for i in range(request.n_entities)
        ],
        "routing_key": text_of(request.routing_key),
        "model": text_of(request.model),
        "provenance": bool(request.options & OPTION_PROVENANCE),
        "timings": bool(request.options & OPTION_TIMINGS),
        "reasons": bool(request.options & OPTION_REASONS),
        "form": (None, "dense", "named")[request.form],
        "layout": request.layout,
        "n_values": request.n_values,
        "values": [request.values[i] for i in range(n_kept)],
        "named": {
            text_of(request.named[i].name): value_of(&request.named[i])
            for i in range(request.n_named)
        },
    }


def decode(bytes message not None):
    """Decode a ScoreRequest with the serving path's own function.

    Parameters
    ----------
    message : bytes
        A serialized scoregate.v1.ScoreRequest.

    Returns
    -------
    dict
        The fields by name; options as three booleans; `form` is None, "dense" or "named";
        `values` has at most 1024 of the `n_values` that came; `named` maps names to float, bool,
        str or None.

    Raises
    ------
    RequestError
        With the text that a caller of the server would get.
    """
    cdef size_t size = len(message)
    cdef error_t error
    # A copy of just this size, so that the sanitizers see a read beyond it.
    cdef uint8_t* copy = <uint8_t*> malloc(size)
    cdef request_t* request = <request_t*> calloc(1, sizeof(request_t))
    try:
        if request is NULL or (copy is NULL and size > 0):
            raise MemoryError
        memcpy(copy, <const char*> message, size)
        if decode_request(copy, size, request, &error) != 0:
            raise RequestError(error.text.decode(errors="replace"))
        return request_to_dict(request)
    finally:
        free(copy)
        free(request)
