"""From decisions to protobuf bytes: scoregate.v1.ScoreResponse. The way in is `wire`.

Rules: fields in ascending order, defaults left out (all bits zero: -0.0 is written), sub-messages
and `threshold` written where they are present: the deterministic serialization of the official
runtimes, byte for byte, so that equal answers are equal bytes at every door. Whatever is the
same in every answer of an arm is encoded once per plan (`encode_arm`) and copied.

No allocation: the caller gives room for `response_bound` bytes. The `def` functions are for the
plan and for tests.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastpath._types cimport span_t
from fastpath.protobuf cimport (
    WIRE_BYTES,
    put_bytes,
    put_double,
    put_float,
    put_present,
    put_tag,
    put_uint,
)
from fastpath.stored cimport group_read_t

__all__ = ["encode", "encode_arm"]


cdef enum:
    READ_BYTES = 96


cdef size_t response_bound(const response_t* response) noexcept nogil:
    # 160 covers every field of bounded size, with its tag: raw_score 5, score 9, threshold 5,
    # bucket 6, flags 8, decision_propensity 9, source_counts 26, timings 47, and the tags and
    # lengths of request_id, decision (6 each) and provenance (7).
    return (
        <size_t> 160 + response.request_id.size + response.decision.size + response.arm.size
        + (0 if response.provenance is NULL else <size_t> response.n_provenance)
        # Each with its name of at most 64 bytes, two outcomes and two ages.
        + <size_t> response.n_reads * READ_BYTES
    )


cdef size_t encode_response(const response_t* response, uint8_t* out) noexcept nogil:
    cdef uint8_t* at = out
    cdef uint8_t* length
    cdef uint32_t bits
    cdef int32_t i
    at = put_bytes(at, 1, response.request_id.data, response.request_id.size)
    memcpy(&bits, &response.raw_score, 4)
    if bits != 0:
        at = put_float(at, 2, response.raw_score)
    at = put_double(at, 3, response.score)
    at = put_bytes(at, 4, response.decision.data, response.decision.size)
    if response.has_threshold:
        at = put_float(at, 5, response.threshold)
    at = put_uint(at, 6, response.bucket)
    at = put_uint(at, 7, response.unsticky != 0)
    at = put_uint(at, 8, response.degraded != 0)
    at = put_uint(at, 9, response.cached != 0)
    at = put_uint(at, 10, response.explored != 0)
    at = put_double(at, 11, response.decision_propensity)
    if response.n_request | response.n_online | response.n_batch | response.n_default:
        # Both sub-messages are shorter than 128 bytes: their length is one byte, filled in last.
        length = put_tag(at, 12, WIRE_BYTES)
        at = put_uint(length + 1, 1, response.n_request)
        at = put_uint(at, 2, response.n_online)
        at = put_uint(at, 3, response.n_batch)
        at = put_uint(at, 4, response.n_default)
        length[0] = <uint8_t> (at - length - 1)
    if response.arm.size > 0:
        memcpy(at, response.arm.data, response.arm.size)
        at += response.arm.size
    if response.provenance is not NULL:
        # Enumeration values below 128 are varints of one byte: the packed field is the array.
        at = put_bytes(at, 19, response.provenance, <size_t> response.n_provenance)
    if response.has_timings:
        length = put_tag(at, 20, WIRE_BYTES)
        at = put_uint(length + 1, 1, response.parse_ns)
        at = put_uint(at, 2, response.features_ns)
        at = put_uint(at, 3, response.score_ns)
        at = put_uint(at, 4, response.total_ns)
        length[0] = <uint8_t> (at - length - 1)
    for i in range(response.n_reads):
        at = _put_read(at, &response.groups[i].group.name, &response.reads[i])
    return <size_t> (at - out)


cdef uint8_t* _put_read(
    uint8_t* at, const span_t* group, const group_read_t* read
) noexcept nogil:
    # Field 30, a GroupRead: shorter than 128 bytes, as its name is at most 64.
    cdef uint8_t* length = put_tag(at, 30, WIRE_BYTES)
    at = put_bytes(length + 1, 1, group.data, group.size)
    at = put_uint(at, 2, read.online)
    at = put_uint(at, 3, read.batch)
    # Present though 0: an age of nothing is an age.
    if read.online_age_ms >= 0:
        at = put_present(at, 4, <uint64_t> read.online_age_ms)
    if read.batch_age_ms >= 0:
        at = put_present(at, 5, <uint64_t> read.batch_age_ms)
    length[0] = <uint8_t> (at - length - 1)
    return at


# ---------------------------------------------------- for the plan and tests

def encode_arm(
    str model not None, str version not None, bytes sha256 not None, str arm not None,
    uint64_t generation, int score_kind,
):
    """Encode what is the same in every answer of one arm and plan: fields 13 to 18.

    Parameters
    ----------
    model, version, arm : str
    sha256 : bytes
        Of the bundle's manifest.
    generation : int
        Of the serving plan, below 2**64.
    score_kind : int
        A value of scoregate.v1.ScoreKind.

    Returns
    -------
    bytes
        For `response_t.arm`; the caller keeps them while answers are written.
    """
    cdef bytes model_text = model.encode()
    cdef bytes version_text = version.encode()
    cdef bytes arm_text = arm.encode()
    cdef Py_ssize_t n = (
        64 + len(model_text) + len(version_text) + len(sha256) + len(arm_text)
    )
    cdef bytearray out = bytearray(n)
    cdef uint8_t* start = <uint8_t*> <char*> out
    cdef uint8_t* at = start
    at = put_bytes(at, 13, <const uint8_t*> <const char*> model_text, len(model_text))
    at = put_bytes(at, 14, <const uint8_t*> <const char*> version_text, len(version_text))
    at = put_bytes(at, 15, <const uint8_t*> <const char*> sha256, len(sha256))
    at = put_bytes(at, 16, <const uint8_t*> <const char*> arm_text, len(arm_text))
    at = put_uint(at, 17, generation)
    at = put_uint(at, 18, <uint64_t> score_kind)
    return bytes(out[:at - start])


cdef span_t borrow(bytes text) noexcept:
    cdef span_t span
    span.data = <const uint8_t*> <const char*> text
    span.size = len(text)
    return span


def encode(
    *, str request_id="", float raw_score=0.0, double score=0.0, str decision="", threshold=None,
    uint32_t bucket=0, bint unsticky=False, bint degraded=False, bint cached=False,
    bint explored=False, double decision_propensity=0.0, source_counts=(0, 0, 0, 0),
    bytes arm=b"", bytes provenance=None, timings=None,
):
    """Encode a ScoreResponse with the serving path's own function.

    Parameters
    ----------
    threshold : float or None
        None leaves the field out.
    source_counts : tuple of four int
        request, online, batch, default.
    arm : bytes
        What `encode_arm` returned.
    provenance : bytes or None
        One source per feature.
    timings : tuple of four int, or None
        parse_ns, features_ns, score_ns, total_ns.

    Returns
    -------
    bytes
        A serialized scoregate.v1.ScoreResponse.
    """
    cdef response_t response
    cdef bytes request_id_text = request_id.encode()
    cdef bytes decision_text = decision.encode()
    cdef uint8_t* out
    cdef size_t size
    memset(&response, 0, sizeof(response_t))
    response.request_id = borrow(request_id_text)
    response.raw_score = raw_score
    response.score = score
    response.decision = borrow(decision_text)
    if threshold is not None:
        response.has_threshold = True
        response.threshold = threshold
    response.bucket = bucket
    response.unsticky = unsticky
    response.degraded = degraded
    response.cached = cached
    response.explored = explored
    response.decision_propensity = decision_propensity
    response.n_request, response.n_online, response.n_batch, response.n_default = source_counts
    response.arm = borrow(arm)
    if provenance is not None:
        response.provenance = <const uint8_t*> <const char*> provenance
        response.n_provenance = <int32_t> len(provenance)
    if timings is not None:
        response.has_timings = True
        (
            response.parse_ns, response.features_ns, response.score_ns, response.total_ns
        ) = timings
    size = response_bound(&response)
    out = <uint8_t*> malloc(size)
    if out is NULL:
        raise MemoryError
    try:
        size = encode_response(&response, out)
        return (<const char*> out)[:size]
    finally:
        free(out)
