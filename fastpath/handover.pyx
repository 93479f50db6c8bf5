"""The way of a call from any thread to a loop thread and back: the control port's door.

Rules: the loop's service answers it, by the same functions as a call from the network; nothing
here knows sockets. The queue is bounded: a full one refuses at once, so that a slow loop shows as
RESOURCE_EXHAUSTED and not as memory.

How it works: the caller copies path and message into a handover, pushes it, wakes the loop (see
`loop`) and waits on the handover's condition without the GIL. The loop answers and signals. Both
own the handover: a caller whose time is up lets go of it, and the late answer is dropped. The
service sees the deadline too, and drops what has expired before working on it. When the loop ends,
what the service still holds is cancelled, and its callers are told UNAVAILABLE.

This is not the hot path: a mutex and three allocations per call are its price.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strlen
from posix.time cimport timespec

from fastpath._types cimport (
    STATUS_INTERNAL,
    STATUS_OK,
    STATUS_RESOURCE_EXHAUSTED,
    STATUS_UNAVAILABLE,
    STATUS_UNIMPLEMENTED,
    call_t,
    error_t,
    service_t,
)
from fastpath.c.linux cimport (
    ATOMIC_ACQ_REL,
    CLOCK_MONOTONIC,
    atomic_add,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_signal,
    pthread_cond_timedwait,
    pthread_condattr_destroy,
    pthread_condattr_init,
    pthread_condattr_setclock,
    pthread_condattr_t,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from fastpath.http2 cimport counters_t
from fastpath.unary cimport unknown_method

cdef const char* STOPPED = "the server is stopping: try another one"


cdef void* copy(const void* data, size_t size) noexcept nogil:
    cdef void* block = malloc(size + 1)
    if block != NULL and size > 0:
        memcpy(block, data, size)
    return block


cdef void answer(
    handover_t* handover, int32_t status, const uint8_t* body, size_t n_body,
    const char* text, size_t n_text
) noexcept nogil:
    # The loop's side: stores the answer and wakes the caller.
    cdef uint8_t* body_copy = <uint8_t*> copy(body, n_body)
    cdef char* text_copy = <char*> copy(text, n_text)
    pthread_mutex_lock(&handover.mutex)
    handover.body = body_copy
    handover.text = text_copy
    if body_copy == NULL or text_copy == NULL:
        handover.status = STATUS_RESOURCE_EXHAUSTED
    else:
        handover.status = status
        handover.n_body = n_body
        handover.n_text = n_text
    handover.done = 1
    pthread_cond_signal(&handover.changed)
    pthread_mutex_unlock(&handover.mutex)


cdef void refuse(handover_t* handover) noexcept nogil:
    answer(handover, STATUS_UNAVAILABLE, NULL, 0, STOPPED, strlen(STOPPED))


cdef void hold(queue_t* queue, handover_t* handover) noexcept nogil:
    handover.queue = queue
    handover.previous = NULL
    handover.next = queue.held
    if handover.next != NULL:
        handover.next.previous = handover
    queue.held = handover


cdef void let_go(handover_t* handover) noexcept nogil:
    if handover.previous != NULL:
        handover.previous.next = handover.next
    else:
        handover.queue.held = handover.next
    if handover.next != NULL:
        handover.next.previous = handover.previous


cdef void complete(
    call_t* call, int32_t status, const uint8_t* body, size_t n_body,
    const char* message, size_t n_message
) noexcept nogil:
    cdef handover_t* handover = <handover_t*> call.owner
    handover.n_in_service[0] -= 1
    let_go(handover)
    if call.cancelled and status != STATUS_OK:
        refuse(handover)         # only the loop's end cancels these
    else:
        answer(handover, status, body, n_body, message, n_message)
    handover_release(handover)


cdef handover_t* handover_new(
    const char* path, size_t n_path, const uint8_t* message, size_t n_message, int64_t deadline_ns
) noexcept nogil:
    cdef pthread_condattr_t attributes
    cdef handover_t* handover = <handover_t*> calloc(1, sizeof(handover_t))
    if handover == NULL:
        return NULL
    handover.path = <char*> copy(path, n_path)
    handover.message = <uint8_t*> copy(message, n_message)
    if handover.path == NULL or handover.message == NULL:
        free(handover.path)
        free(handover.message)
        free(handover)
        return NULL
    handover.n_path = n_path
    handover.n_message = n_message
    handover.n_owners = 2
    handover.status = STATUS_INTERNAL
    handover.call.complete = complete
    handover.call.owner = handover
    handover.call.deadline_ns = deadline_ns
    pthread_mutex_init(&handover.mutex, NULL)
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(&handover.changed, &attributes)
    pthread_condattr_destroy(&attributes)
    return handover


cdef int32_t handover_wait(handover_t* handover, int64_t until_ns) noexcept nogil:
    cdef timespec until
    cdef int32_t done
    until.tv_sec = until_ns // 1_000_000_000
    until.tv_nsec = until_ns % 1_000_000_000
    pthread_mutex_lock(&handover.mutex)
    while not handover.done:
        if pthread_cond_timedwait(&handover.changed, &handover.mutex, &until) != 0:
            break
    done = handover.done
    pthread_mutex_unlock(&handover.mutex)
    return done


cdef void handover_release(handover_t* handover) noexcept nogil:
    if atomic_add(&handover.n_owners, -1, ATOMIC_ACQ_REL) > 0:
        return
    pthread_cond_destroy(&handover.changed)
    pthread_mutex_destroy(&handover.mutex)
    free(handover.path)
    free(handover.message)
    free(handover.body)
    free(handover.text)
    free(handover)


cdef void queue_init(queue_t* queue) noexcept nogil:
    memset(queue, 0, sizeof(queue_t))
    pthread_mutex_init(&queue.mutex, NULL)


cdef void queue_clear(queue_t* queue) noexcept nogil:
    queue_close(queue)
    pthread_mutex_destroy(&queue.mutex)


cdef int32_t queue_push(queue_t* queue, handover_t* handover) noexcept nogil:
    cdef int32_t status = STATUS_OK
    pthread_mutex_lock(&queue.mutex)
    if queue.is_closed:
        status = STATUS_UNAVAILABLE
    elif queue.n_queued >= MAX_QUEUED:
        status = STATUS_RESOURCE_EXHAUSTED
    else:
        if queue.last == NULL:
            queue.first = handover
        else:
            queue.last.next = handover
        queue.last = handover
        queue.n_queued += 1
    pthread_mutex_unlock(&queue.mutex)
    return status


cdef handover_t* take_all(queue_t* queue) noexcept nogil:
    cdef handover_t* first
    pthread_mutex_lock(&queue.mutex)
    first = queue.first
    queue.first = NULL
    queue.last = NULL
    queue.n_queued = 0
    pthread_mutex_unlock(&queue.mutex)
    return first


cdef int32_t queue_serve(
    queue_t* queue, const service_t* service, counters_t* counters, int64_t* n_in_service,
    int64_t now_ns
) noexcept nogil:
    cdef handover_t* handover = take_all(queue)
    cdef handover_t* next
    cdef error_t error
    cdef int32_t n = 0
    while handover != NULL:
        next = handover.next
        handover.call.method = service.find_method(
            service.context, handover.path, handover.n_path
        )
        counters.handed_over += 1
        if handover.call.method < 0:
            unknown_method(&error, handover.path, handover.n_path)
            answer(handover, STATUS_UNIMPLEMENTED, NULL, 0, error.text, strlen(error.text))
            handover_release(handover)
        else:
            handover.call.arrival_ns = now_ns
            handover.n_in_service = n_in_service
            n_in_service[0] += 1
            hold(queue, handover)
            service.on_call(
                service.context, &handover.call, handover.message, handover.n_message, now_ns
            )
        handover = next
        n += 1
    return n


cdef void queue_close(queue_t* queue) noexcept nogil:
    cdef handover_t* handover
    cdef handover_t* next
    pthread_mutex_lock(&queue.mutex)
    queue.is_closed = 1
    pthread_mutex_unlock(&queue.mutex)
    handover = take_all(queue)
    while handover != NULL:
        next = handover.next
        refuse(handover)
        handover_release(handover)
        handover = next


cdef void queue_cancel(queue_t* queue) noexcept nogil:
    cdef handover_t* handover = queue.held
    while handover != NULL:
        handover.call.cancelled = 1
        handover = handover.next


cdef void queue_abandon(queue_t* queue) noexcept nogil:
    # The loop's share of each is never released: the service may still look at its call.
    cdef handover_t* handover = queue.held
    while handover != NULL:
        refuse(handover)
        handover = handover.next
    queue.held = NULL
