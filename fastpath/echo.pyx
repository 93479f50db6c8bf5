"""The yardstick: a service that answers a message with its own bytes.

It is served by the same loop and HTTP/2 rooms as scoring, with no engine behind it: what it
costs is what the transport costs. It also drops calls whose deadline has passed, as every service
must.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcmp, strlen

from fastpath._types cimport STATUS_CANCELLED, STATUS_DEADLINE_EXCEEDED, STATUS_OK, call_t
from fastpath.service cimport Service

cdef const char* METHOD = "/scoregate.bench.Echo/Echo"
cdef const char* LATE = "the deadline passed before the call was answered; allow more time"


cdef int32_t find_method(void* context, const char* path, size_t n_path) noexcept nogil:
    if n_path == strlen(METHOD) and memcmp(path, METHOD, n_path) == 0:
        return 0
    return -1


cdef void on_call(
    void* context, call_t* call, const uint8_t* message, size_t n_message, int64_t now_ns
) noexcept nogil:
    if call.cancelled:
        call.complete(call, STATUS_CANCELLED, NULL, 0, "", 0)
    elif now_ns >= call.deadline_ns:
        call.complete(call, STATUS_DEADLINE_EXCEEDED, NULL, 0, LATE, strlen(LATE))
    else:
        call.complete(call, STATUS_OK, message, n_message, "", 0)


cdef void flush(void* context, int64_t now_ns) noexcept nogil:
    pass


cdef void mark(void* context) noexcept nogil:
    pass


cdef class EchoService(Service):
    """Answers ``/scoregate.bench.Echo/Echo`` with the message's own bytes.

    It has no state: one object may serve any number of loops.
    """

    def __cinit__(self) -> None:
        self.table.context = NULL
        self.table.find_method = find_method
        self.table.on_call = on_call
        self.table.flush = flush
        self.table.enter = mark
        self.table.leave = mark
