"""The second yardstick: an echo that answers at the end of the iteration, as scoring does.

The difference between `echo` and this one is what batching per iteration costs the
transport. A call that is cancelled while it waits is completed as cancelled, without an answer.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, strlen

from fastpath._types cimport (
    STATUS_CANCELLED,
    STATUS_DEADLINE_EXCEEDED,
    STATUS_OK,
    STATUS_RESOURCE_EXHAUSTED,
    call_t,
)
from fastpath.service cimport Service

cdef const char* METHOD = "/scoregate.bench.Echo/Batch"
cdef const char* LATE = "the deadline passed before the call was answered; allow more time"
cdef const char* NO_MEMORY = "out of memory: try again later"


ctypedef struct waiting_t:
    call_t* call
    size_t start                 # of its message in batch_t.bytes
    size_t size


ctypedef struct batch_t:
    waiting_t* waiting
    size_t n_waiting
    size_t n_waiting_room
    uint8_t* bytes
    size_t n_bytes
    size_t n_bytes_room


cdef int32_t find_method(void* context, const char* path, size_t n_path) noexcept nogil:
    if n_path == strlen(METHOD) and memcmp(path, METHOD, n_path) == 0:
        return 0
    return -1


cdef int32_t make_room(batch_t* batch, size_t n_message) noexcept nogil:
    # Doubling: steady state does not allocate.
    cdef size_t room
    cdef void* block
    if batch.n_waiting == batch.n_waiting_room:
        room = max(<size_t> 64, 2 * batch.n_waiting_room)
        block = realloc(batch.waiting, room * sizeof(waiting_t))
        if block == NULL:
            return -1
        batch.waiting = <waiting_t*> block
        batch.n_waiting_room = room
    if batch.n_bytes_room - batch.n_bytes < n_message:
        room = max(batch.n_bytes + n_message, 2 * batch.n_bytes_room)
        block = realloc(batch.bytes, room)
        if block == NULL:
            return -1
        batch.bytes = <uint8_t*> block
        batch.n_bytes_room = room
    return 0


cdef void on_call(
    void* context, call_t* call, const uint8_t* message, size_t n_message, int64_t now_ns
) noexcept nogil:
    cdef batch_t* batch = <batch_t*> context
    cdef waiting_t* waiting
    if make_room(batch, n_message) != 0:
        call.complete(call, STATUS_RESOURCE_EXHAUSTED, NULL, 0, NO_MEMORY, strlen(NO_MEMORY))
        return
    waiting = &batch.waiting[batch.n_waiting]
    waiting.call = call
    waiting.start = batch.n_bytes
    waiting.size = n_message
    if n_message > 0:
        memcpy(batch.bytes + batch.n_bytes, message, n_message)
    batch.n_waiting += 1
    batch.n_bytes += n_message


cdef void flush(void* context, int64_t now_ns) noexcept nogil:
    cdef batch_t* batch = <batch_t*> context
    cdef waiting_t* waiting
    cdef call_t* call
    cdef size_t i
    for i in range(batch.n_waiting):
        waiting = &batch.waiting[i]
        call = waiting.call
        if call.cancelled:
            call.complete(call, STATUS_CANCELLED, NULL, 0, "", 0)
        elif now_ns >= call.deadline_ns:
            call.complete(call, STATUS_DEADLINE_EXCEEDED, NULL, 0, LATE, strlen(LATE))
        else:
            call.complete(call, STATUS_OK, batch.bytes + waiting.start, waiting.size, "", 0)
    batch.n_waiting = 0
    batch.n_bytes = 0


cdef void mark(void* context) noexcept nogil:
    pass


cdef class BatchEchoService(Service):
    """Answers ``/scoregate.bench.Echo/Batch`` with the message's own bytes, at the flush.

    It has state: every loop needs an object of its own.
    """

    def __cinit__(self) -> None:
        self.table.context = calloc(1, sizeof(batch_t))
        if self.table.context == NULL:
            raise MemoryError
        self.table.find_method = find_method
        self.table.on_call = on_call
        self.table.flush = flush
        self.table.enter = mark
        self.table.leave = mark

    def __dealloc__(self) -> None:
        cdef batch_t* batch = <batch_t*> self.table.context
        if batch != NULL:
            free(batch.waiting)
            free(batch.bytes)
            free(batch)
