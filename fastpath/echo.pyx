"""The yardstick: a service that answers a message with its own bytes.

It is served by the same loop and HTTP/2 rooms as scoring, with no engine behind it: what it
costs is what the transport costs. It also drops calls whose deadline has passed, as every service
must.

With a delay it stands in for an upstream that makes the call wait: each answer is held that long,
by a timer of the loop (`wake_ns`), and a call whose deadline comes first is answered then. What is
held is a heap ordered by time; each message is copied, so a delayed echo allocates per call. A
cancelled call is let go when its time comes.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, strlen

from fastpath._types cimport (
    STATUS_CANCELLED,
    STATUS_DEADLINE_EXCEEDED,
    STATUS_OK,
    STATUS_RESOURCE_EXHAUSTED,
    call_t,
)
from fastpath.service cimport Service

cdef const char* METHOD = "/scoregate.bench.Echo/Echo"
cdef const char* LATE = "the deadline passed before the call was answered; allow more time"
cdef const char* NO_MEMORY = "out of memory: try again later"
MAX_DELAY_US = 60_000_000


ctypedef struct held_t:
    int64_t end_ns               # the answer's time, or the deadline before it
    call_t* call
    uint8_t* message             # owned
    size_t n_message


# A binary heap: held[(i - 1) / 2] ends no later than held[i].
ctypedef struct echo_t:
    int64_t delay_ns
    held_t* held
    size_t n_held
    size_t n_room


cdef int32_t find_method(void* context, const char* path, size_t n_path) noexcept nogil:
    if n_path == strlen(METHOD) and memcmp(path, METHOD, n_path) == 0:
        return 0
    return -1


cdef void answer(
    call_t* call, const uint8_t* message, size_t n_message, int64_t now_ns
) noexcept nogil:
    if call.cancelled:
        call.complete(call, STATUS_CANCELLED, NULL, 0, "", 0)
    elif now_ns >= call.deadline_ns:
        call.complete(call, STATUS_DEADLINE_EXCEEDED, NULL, 0, LATE, strlen(LATE))
    else:
        call.complete(call, STATUS_OK, message, n_message, "", 0)


cdef int32_t push(echo_t* echo, const held_t* new) noexcept nogil:
    cdef held_t* block
    cdef size_t i = echo.n_held
    cdef size_t n_room
    if i == echo.n_room:
        n_room = max(<size_t> 64, 2 * i)
        block = <held_t*> realloc(echo.held, n_room * sizeof(held_t))
        if block == NULL:
            return -1
        echo.held = block
        echo.n_room = n_room
    while i > 0 and echo.held[(i - 1) // 2].end_ns > new.end_ns:
        echo.held[i] = echo.held[(i - 1) // 2]
        i = (i - 1) // 2
    echo.held[i] = new[0]
    echo.n_held += 1
    return 0


cdef held_t pop(echo_t* echo) noexcept nogil:
    cdef held_t first = echo.held[0]
    cdef held_t last
    cdef size_t i = 0
    cdef size_t child
    echo.n_held -= 1
    last = echo.held[echo.n_held]
    while 2 * i + 1 < echo.n_held:
        child = 2 * i + 1
        if child + 1 < echo.n_held and echo.held[child + 1].end_ns < echo.held[child].end_ns:
            child += 1
        if echo.held[child].end_ns >= last.end_ns:
            break
        echo.held[i] = echo.held[child]
        i = child
    echo.held[i] = last
    return first


cdef void on_call(
    void* context, call_t* call, const uint8_t* message, size_t n_message, int64_t now_ns
) noexcept nogil:
    cdef echo_t* echo = <echo_t*> context
    cdef held_t new
    if echo.delay_ns == 0 or call.cancelled or now_ns >= call.deadline_ns:
        answer(call, message, n_message, now_ns)
        return
    new.end_ns = min(now_ns + echo.delay_ns, call.deadline_ns)
    new.call = call
    new.n_message = n_message
    new.message = <uint8_t*> malloc(n_message + 1)
    if new.message == NULL or push(echo, &new) != 0:
        free(new.message)
        call.complete(call, STATUS_RESOURCE_EXHAUSTED, NULL, 0, NO_MEMORY, strlen(NO_MEMORY))
    elif n_message > 0:
        memcpy(new.message, message, n_message)


cdef void flush(void* context, int64_t now_ns) noexcept nogil:
    cdef echo_t* echo = <echo_t*> context
    cdef held_t due
    while echo.n_held > 0 and echo.held[0].end_ns <= now_ns:
        due = pop(echo)
        answer(due.call, due.message, due.n_message, now_ns)
        free(due.message)


cdef int64_t wake_ns(void* context) noexcept nogil:
    cdef echo_t* echo = <echo_t*> context
    return echo.held[0].end_ns if echo.n_held > 0 else INT64_MAX


cdef void mark(void* context) noexcept nogil:
    pass


cdef class EchoService(Service):
    """Answers ``/scoregate.bench.Echo/Echo`` with the message's own bytes.

    Without a delay one object may serve any number of loops; with one, each loop needs its own.

    Parameters
    ----------
    delay_us : int
        How long each answer is held; 0 answers at once.

    Raises
    ------
    ValueError
        The delay is not 0 to 60,000,000 microseconds.
    """

    def __cinit__(self, delay_us=0) -> None:
        cdef echo_t* echo
        if not 0 <= delay_us <= MAX_DELAY_US:
            raise ValueError(f"delay_us is {delay_us}; it must be 0 to {MAX_DELAY_US}")
        echo = <echo_t*> calloc(1, sizeof(echo_t))
        if echo == NULL:
            raise MemoryError
        echo.delay_ns = <int64_t> delay_us * 1000
        self.table.context = echo
        self.table.find_method = find_method
        self.table.on_call = on_call
        self.table.flush = flush
        self.table.enter = mark
        self.table.leave = mark
        self.table.wake_ns = wake_ns

    def __dealloc__(self) -> None:
        cdef echo_t* echo = <echo_t*> self.table.context
        cdef size_t i
        if echo != NULL:
            for i in range(echo.n_held):
                free(echo.held[i].message)
            free(echo.held)
            free(echo)
