from libc.stdint cimport int32_t, int64_t, uint8_t

from fastpath._types cimport call_t, service_t
from fastpath.c.linux cimport pthread_cond_t, pthread_mutex_t
from fastpath.http2 cimport counters_t

cdef enum:
    MAX_QUEUED = 1024            # per loop


cdef struct queue_t

# One call on its way from a waiting thread to a loop and back. Two owners: the waiting thread
# and the loop; the last to release it frees it.
ctypedef struct handover_t:
    call_t call                  # call.owner is this
    int64_t n_owners             # atomic
    handover_t* next             # queued, or held by the service
    handover_t* previous         # while it is held
    queue_t* queue
    int64_t* n_in_service        # the loop's
    char* path                   # owned, as are message, body and text
    size_t n_path
    uint8_t* message
    size_t n_message
    pthread_mutex_t mutex        # guards what follows
    pthread_cond_t changed
    int32_t done
    int32_t status
    uint8_t* body
    size_t n_body
    char* text
    size_t n_text


# Bounded, first in first out. Any thread pushes; one loop takes.
cdef struct queue_t:
    pthread_mutex_t mutex
    handover_t* first
    handover_t* last
    int32_t n_queued
    int32_t is_closed
    handover_t* held             # by the service; the loop's own, without the mutex


cdef void queue_init(queue_t* queue) noexcept nogil
cdef void queue_clear(queue_t* queue) noexcept nogil
# 0; or the status that says why not: RESOURCE_EXHAUSTED (full), UNAVAILABLE (closed).
cdef int32_t queue_push(queue_t* queue, handover_t* handover) noexcept nogil
# Gives every queued call to the service. Returns how many.
cdef int32_t queue_serve(
    queue_t* queue, const service_t* service, counters_t* counters, int64_t* n_in_service,
    int64_t now_ns
) noexcept nogil
# Refuses what is queued and everything that comes.
cdef void queue_close(queue_t* queue) noexcept nogil
# Marks what the service holds as cancelled: its callers will hear that the server stops.
cdef void queue_cancel(queue_t* queue) noexcept nogil
# Answers for a service that will not: it must not complete these calls any more.
cdef void queue_abandon(queue_t* queue) noexcept nogil

# Copies path and message. NULL: no memory.
cdef handover_t* handover_new(
    const char* path, size_t n_path, const uint8_t* message, size_t n_message, int64_t deadline_ns
) noexcept nogil
# Waits until it is done (1) or until_ns has passed (0).
cdef int32_t handover_wait(handover_t* handover, int64_t until_ns) noexcept nogil
cdef void handover_release(handover_t* handover) noexcept nogil
