"""Refusals that name what a caller asked for and what there is: models and layouts.

Texts show at most `NAME_SHOWN_BYTES` of a caller's own words, cut between characters.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t
from libc.stdio cimport snprintf

from fastpath._types cimport STATUS_FAILED_PRECONDITION, STATUS_NOT_FOUND, error_t, span_t
from fastpath.answering cimport fail_call
from fastpath.plan cimport refusal_t
from fastpath.wire cimport request_t

cdef enum:
    NAME_SHOWN_BYTES = 80        # of a caller's text inside an error text


cdef int _shown(span_t text) noexcept nogil:
    # How many bytes of a caller's text an error shows, cut between characters.
    cdef size_t size = text.size
    if size > NAME_SHOWN_BYTES:
        size = NAME_SHOWN_BYTES
        while size > 0 and (text.data[size] & 0xC0) == 0x80:
            size -= 1
    return <int> size


cdef void refuse_model(engine_t* engine, call_t* call) noexcept nogil:
    cdef const request_t* request = &engine.request
    cdef span_t known = engine.plan.models[engine.plan.default_model].name
    cdef error_t error
    snprintf(
        error.text, sizeof(error.text),
        b"model \"%.*s\" is not served; leave the name empty for the default model \"%.*s\"",
        _shown(request.model), <const char*> request.model.data, _shown(known),
        <const char*> known.data,
    )
    fail_call(engine, call, STATUS_NOT_FOUND, error.text)


cdef void refuse_layout(engine_t* engine, call_t* call, const arm_t* arm) noexcept nogil:
    """Say both fingerprints and, as far as anybody knows, the difference."""
    cdef const request_t* request = &engine.request
    cdef const refusal_t* refusal = NULL
    cdef error_t error
    cdef int32_t i
    for i in range(arm.n_refusals):
        if arm.refusals[i].fingerprint == request.layout:
            refusal = &arm.refusals[i]
    if refusal is not NULL:
        snprintf(
            error.text, sizeof(error.text),
            b"layout %016llx cannot be read by model %.*s (its own is %016llx): it %.*s",
            <unsigned long long> request.layout, <int> arm.title.size,
            <const char*> arm.title.data, <unsigned long long> arm.schema.fingerprint,
            <int> refusal.text.size, <const char*> refusal.text.data,
        )
    else:
        snprintf(
            error.text, sizeof(error.text),
            b"layout %016llx, with %d values, is not one of model %.*s (its own is %016llx, with "
            b"%d); ask GetModel for the layouts that it takes",
            <unsigned long long> request.layout, <int> request.n_values, <int> arm.title.size,
            <const char*> arm.title.data, <unsigned long long> arm.schema.fingerprint,
            <int> arm.schema.n_features,
        )
    fail_call(engine, call, STATUS_FAILED_PRECONDITION, error.text)
