"""The generator's loop: the schedule, the turns, time-outs.

Rules: one thread; no Python object, no GIL, no lock, and no allocation per call.

How it works: one turn waits for epoll (until a timer that goes off `spin_ns` before the next
due call, then polls), reads every ready socket once, and sends at once what its answers
free. Due calls go to the connections in turn, among those with a free stream; where none is free,
they wait in the schedule itself, and the wait counts.

The loop watches itself: it notes when it woke over `stall_ns` later than it had planned, or was
busy as long (the machine took the core away), when CLOCK_REALTIME jumped against
CLOCK_MONOTONIC, and how much of its time went into turns that did something.

What it does not do: it decides nothing about validity; that is `bench.outcome`.
"""

from libc.errno cimport errno
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, llabs, malloc
from posix.unistd cimport close

from bench._types cimport *
from bench.arena cimport arena_clear, arena_init
from bench.client cimport (
    client_clear,
    client_setup,
    count_free,
    session_cancel,
    session_close,
    session_submit,
)
from bench.links cimport (
    INPUT_BYTES,
    OUTPUT_BYTES,
    begin_connect,
    clock_ns,
    end_connect,
    flush_marked,
    lose,
    mark,
    read_some,
)
from bench.tally cimport (
    call_begin,
    call_end,
    call_never_began,
    call_release,
    second_turn,
)
from fastpath.c.linux cimport *
from fastpath.c.sockets cimport *

cdef enum:
    MAX_EVENTS = 64
    TICK_MS = 20

cdef int64_t TICK_NS = 20_000_000
cdef int64_t LEAD_NS = 1_000_000


# ---------------------------------------------------------------- beginning calls


cdef int32_t wants_closed(load_t* load) noexcept nogil:
    # Whether the closed loop has another call to make.
    if load.n_limit >= 0:
        return load.n_measured < load.n_limit
    return load.now_ns < load.end_ns


cdef int32_t begin(
    load_t* load, connection_t* connection, int64_t intended_ns, int64_t ready_ns
) noexcept nogil:
    cdef call_t* call = call_begin(load, intended_ns, ready_ns, intended_ns >= load.measure_ns)
    if call == NULL:
        return -1
    load.was_busy = 1
    if session_submit(connection, call) != 0:
        call_end(load, call, CAUSE_INTERNAL)
        call_release(load, call)
    count_free(connection)
    mark(connection)
    return 0


cdef void fill(load_t* load, connection_t* connection) noexcept nogil:
    # Closed loop: every free stream of a connection gets a call.
    while connection.n_free > 0 and wants_closed(load):
        if begin(load, connection, load.now_ns, load.now_ns) != 0:
            return


cdef connection_t* pick(load_t* load) noexcept nogil:
    # The next connection, in turn, with a free stream. There is one.
    cdef connection_t* connection
    cdef int32_t _i
    for _i in range(load.n_connections):
        connection = &load.connections[load.next_connection]
        load.next_connection += 1
        if load.next_connection == load.n_connections:
            load.next_connection = 0
        if connection.n_free > 0:
            return connection
    return NULL


cdef void begin_due(load_t* load) noexcept nogil:
    # Open loop: calls whose time has come.
    cdef int64_t intended_ns
    cdef connection_t* connection
    while load.next_index < load.n_times:
        intended_ns = load.start_ns + load.times_ns[load.next_index]
        if intended_ns > load.now_ns:
            return
        if load.n_free > 0:
            connection = pick(load)
            if connection == NULL:
                return
            if begin(load, connection, intended_ns, max(intended_ns, load.free_since_ns)) != 0:
                return
        elif load.now_ns - intended_ns > load.max_queue_ns:
            call_never_began(
                load, intended_ns, CAUSE_NO_STREAM if load.n_open > 0 else CAUSE_NO_CONNECTION
            )
        else:
            return


cdef void begin_calls(load_t* load, connection_t* connection) noexcept nogil:
    # `connection`: the one that has just changed; NULL = look at all.
    cdef int32_t i
    if not load.is_running:
        return
    if load.is_open:
        begin_due(load)
    elif connection != NULL:
        fill(load, connection)
    else:
        for i in range(load.n_connections):
            fill(load, &load.connections[i])


# ---------------------------------------------------------------- time


cdef void expire(load_t* load) noexcept nogil:
    # Calls that were not answered in time are given up and reset.
    cdef call_t* call
    while load.oldest != NULL and load.oldest.deadline_ns <= load.now_ns:
        call = load.oldest
        call_end(load, call, CAUSE_TIMED_OUT)
        session_cancel(call.connection, call)
        mark(call.connection)


cdef void tick(load_t* load) noexcept nogil:
    # What needs no precision: connections, clocks, silence.
    cdef connection_t* connection
    cdef int64_t offset_ns
    cdef int64_t jump_ns
    cdef int32_t i
    load.tick_ns = load.now_ns + TICK_NS
    for i in range(load.n_connections):
        connection = &load.connections[i]
        if connection.state == OPEN or load.now_ns < connection.retry_ns:
            continue
        if connection.state == CONNECTING:
            lose(connection, LOST_CONNECT_TIMEOUT, CAUSE_NO_CONNECTION)
        elif load.is_running or connection.last_lost < 0:
            begin_connect(connection)
    if not load.is_running:
        return
    offset_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC)
    jump_ns = offset_ns - load.clock_offset_ns
    load.clock_offset_ns = offset_ns
    if llabs(jump_ns) > llabs(load.clock_jump_ns):
        load.clock_jump_ns = jump_ns
    begin_calls(load, NULL)
    if load.now_ns - load.heard_ns > load.give_up_ns and (
        load.n_in_flight > 0
        or (not load.is_open and wants_closed(load))
        or (
            load.is_open
            and load.next_index < load.n_times
            and load.start_ns + load.times_ns[load.next_index] <= load.now_ns
        )
    ):
        load.ended = ENDED_SILENT
        load.is_over = 1


cdef void arm(load_t* load, int64_t at_ns) noexcept nogil:
    cdef itimerspec when
    if load.armed_ns == at_ns:
        return
    load.armed_ns = at_ns
    when.it_interval.tv_sec = 0
    when.it_interval.tv_nsec = 0
    when.it_value.tv_sec = at_ns // 1_000_000_000
    when.it_value.tv_nsec = at_ns % 1_000_000_000
    timerfd_settime(load.timer_fd, TFD_TIMER_ABSTIME, &when, NULL)


cdef void note_stall(load_t* load, int64_t late_ns) noexcept nogil:
    if load.is_measuring and late_ns > load.stall_ns:
        load.n_stalls += 1
        if late_ns > load.longest_stall_ns:
            load.longest_stall_ns = late_ns


cdef int32_t wait(load_t* load, epoll_event* events) noexcept nogil:
    # Until something happens, a call is due, or a tick has passed.
    cdef int64_t before_ns = clock_ns(CLOCK_MONOTONIC)
    cdef int64_t planned_ns = before_ns + TICK_NS
    cdef int64_t due_ns = INT64_MAX
    cdef int timeout_ms = TICK_MS
    cdef int32_t n
    if load.is_running and load.is_open and load.n_free > 0 and load.next_index < load.n_times:
        due_ns = load.start_ns + load.times_ns[load.next_index] - load.spin_ns
    if due_ns <= before_ns or before_ns - load.active_ns < load.poll_ns:
        timeout_ms = 0
        planned_ns = before_ns
    elif due_ns < planned_ns:
        arm(load, due_ns)
        planned_ns = due_ns
    note_stall(load, before_ns - load.woke_ns)
    if not load.was_busy:
        load.idle_ns += before_ns - load.woke_ns
    n = epoll_wait(load.epoll_fd, events, MAX_EVENTS, timeout_ms)
    load.now_ns = clock_ns(CLOCK_MONOTONIC)
    load.woke_ns = load.now_ns
    load.idle_ns += load.now_ns - before_ns
    load.was_busy = n > 0
    note_stall(load, load.now_ns - planned_ns)
    if n > 0:
        load.active_ns = load.now_ns
    return n


cdef void turn(load_t* load) noexcept nogil:
    cdef epoll_event[MAX_EVENTS] events
    cdef connection_t* connection
    cdef int32_t n = wait(load, events)
    cdef int32_t i
    if load.is_measuring:
        second_turn(load)
    for i in range(n):
        connection = <connection_t*> events[i].data.ptr
        if connection == NULL or connection.state == DOWN:
            continue  # the timer; or lost since epoll_wait
        if connection.state == CONNECTING:
            end_connect(connection)
        elif events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP):
            read_some(load, connection)
        else:
            mark(connection)
        begin_calls(load, connection)
        flush_marked(load)
    expire(load)
    if load.is_open:
        begin_calls(load, NULL)
    if load.now_ns >= load.tick_ns:
        tick(load)
    flush_marked(load)


# ---------------------------------------------------------------- the load


cdef int32_t load_open(load_t* load) noexcept nogil:
    # Memory, epoll and timer. -1: refused; load_close frees what there is.
    cdef int32_t n_slots = load.n_connections * load.n_streams
    cdef epoll_event event
    cdef int32_t i
    load.epoll_fd = -1
    load.timer_fd = -1
    arena_init(&load.arena)
    load.connections = <connection_t*> calloc(load.n_connections, sizeof(connection_t))
    if load.connections == NULL:
        return -1
    for i in range(load.n_connections):
        load.connections[i].load = load
        load.connections[i].fd = -1
        load.connections[i].last_lost = -1
    load.slots = <call_t*> calloc(n_slots, sizeof(call_t))
    load.input = <uint8_t*> malloc(INPUT_BYTES)
    load.output = <uint8_t*> malloc(OUTPUT_BYTES)
    load.max_seconds = 3600
    load.seconds = <second_t*> calloc(load.max_seconds, sizeof(second_t))
    if load.slots == NULL or load.input == NULL or load.output == NULL or load.seconds == NULL:
        return -1
    for i in range(n_slots):
        call_release(load, &load.slots[n_slots - 1 - i])
    load.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    load.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    if load.epoll_fd < 0 or load.timer_fd < 0:
        load.last_errno = errno
        return -1
    event.events = EPOLLIN | EPOLLET
    event.data.ptr = NULL
    if epoll_ctl(load.epoll_fd, EPOLL_CTL_ADD, load.timer_fd, &event) != 0:
        load.last_errno = errno
        return -1
    return client_setup(load)


cdef void load_close(load_t* load) noexcept nogil:
    cdef int32_t i
    if load.connections != NULL and load.slots != NULL:
        for i in range(load.n_connections):
            # Whatever is in flight was counted by whoever ended the run.
            session_close(&load.connections[i], CAUSE_CLOSED)
            if load.connections[i].fd >= 0:
                close(load.connections[i].fd)
            free(load.connections[i].pending)
        for i in range(load.n_connections * load.n_streams):
            free(load.slots[i].body)
    client_clear(load)
    arena_clear(&load.arena)
    if load.epoll_fd >= 0:
        close(load.epoll_fd)
    if load.timer_fd >= 0:
        close(load.timer_fd)
    free(load.connections)
    free(load.slots)
    free(load.input)
    free(load.output)
    free(load.seconds)
    free(load.wrong_body)
    load.connections = NULL
    load.slots = NULL
    load.input = NULL
    load.output = NULL
    load.seconds = NULL
    load.wrong_body = NULL


cdef int32_t is_settled(load_t* load) noexcept nogil:
    # Every connection has greeted us, or failed.
    cdef connection_t* connection
    cdef int32_t i
    for i in range(load.n_connections):
        connection = &load.connections[i]
        if connection.last_lost < 0 and not (connection.state == OPEN and connection.has_settings):
            return 0
    return 1


cdef void load_connect(load_t* load) noexcept nogil:
    # Until all connections are made; a server that does not greet is waited for, but not for long.
    cdef int64_t until_ns
    cdef int32_t i
    load.now_ns = clock_ns(CLOCK_MONOTONIC)
    until_ns = load.now_ns + load.connect_ns
    for i in range(load.n_connections):
        begin_connect(&load.connections[i])
    flush_marked(load)
    while not is_settled(load) and load.now_ns < until_ns:
        if atomic_load(&load.stop, ATOMIC_RELAXED):
            return
        turn(load)


cdef void load_run(load_t* load) noexcept nogil:
    # From the first call to the last answer.
    load.now_ns = clock_ns(CLOCK_MONOTONIC)
    load.clock_offset_ns = clock_ns(CLOCK_REALTIME) - load.now_ns
    # Scheduled calls are due in a moment: what is prepared here must not be in their lag.
    load.start_ns = load.now_ns + (LEAD_NS if load.is_open else 0)
    load.measure_ns = load.start_ns + load.warmup_ns
    load.end_ns = load.measure_ns + load.duration_ns
    load.last_end_ns = load.measure_ns
    load.heard_ns = load.start_ns
    load.free_since_ns = 0
    load.woke_ns = load.now_ns
    load.was_answered = 1
    load.is_running = 1
    while not load.is_over:
        if not load.is_measuring and load.now_ns >= load.measure_ns:
            load.is_measuring = 1
            load.idle_ns = 0
            load.cpu_start_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID)
        turn(load)
        if load.n_in_flight == 0 and (
            load.next_index >= load.n_times if load.is_open else not wants_closed(load)
        ):
            load.is_over = 1
        if atomic_load(&load.stop, ATOMIC_RELAXED):
            load.ended = ENDED_STOPPED
            load.is_over = 1
    load.cpu_end_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID)
    if not load.is_measuring:
        load.cpu_start_ns = load.cpu_end_ns
    while load.oldest != NULL:
        # Stopped or given up: what was in flight has no answer.
        call_end(load, load.oldest, CAUSE_TIMED_OUT)
