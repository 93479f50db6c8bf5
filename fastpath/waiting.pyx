"""Rows that wait for a store, and the time that they have.

Rules
-----
* A row waits only when a store said PENDING, and never past its group's budget or its call's
  deadline: each read has a deadline of its own, after which the store is told to forget it and the
  row goes on with its batch record or its defaults.
* A waiting row owns its values and holds its plan, whatever is published meanwhile; it gives both
  back when it is answered.
* The number of waiting rows is bounded. A row that finds no place does not wait (BUSY).
* Memory is made when the number of waiting rows first reaches a height, and kept: steady state
  allocates nothing.

How it works: free rows are a list, rows that wait a binary heap by their earliest deadline, rows
whose last read ended a queue that the engine empties at the end of the iteration. A read ends
once: by the store (`_done`), or by time (`expire`).
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from fastpath._types cimport OUTCOME_HIT, OUTCOME_NOT_READ, OUTCOME_TIMEOUT, SOURCE_ONLINE
from fastpath.metrics cimport add, observe_read
from fastpath.plan cimport find_hold, hold, unhold
from fastpath.rows cimport MAX_WAITING, engine_t, row_t, waiting_read_t, waiting_t
from fastpath.store cimport read_t
from fastpath.stored cimport group_read_t, take_batch, take_record


# ------------------------------------------------------------------ the heap

cdef inline void _place(engine_t* engine, waiting_t* waiting, int32_t i) noexcept nogil:
    engine.heap[i] = waiting
    waiting.heap_index = i


cdef void _rise(engine_t* engine, int32_t i) noexcept nogil:
    cdef waiting_t* waiting = engine.heap[i]
    cdef int32_t parent
    while i > 0:
        parent = (i - 1) >> 1
        if engine.heap[parent].deadline_ns <= waiting.deadline_ns:
            break
        _place(engine, engine.heap[parent], i)
        i = parent
    _place(engine, waiting, i)


cdef void _sink(engine_t* engine, int32_t i) noexcept nogil:
    cdef waiting_t* waiting = engine.heap[i]
    cdef int32_t child
    while True:
        child = 2 * i + 1
        if child >= engine.n_waiting:
            break
        if (child + 1 < engine.n_waiting
                and engine.heap[child + 1].deadline_ns < engine.heap[child].deadline_ns):
            child += 1
        if waiting.deadline_ns <= engine.heap[child].deadline_ns:
            break
        _place(engine, engine.heap[child], i)
        i = child
    _place(engine, waiting, i)


cdef void _remove(engine_t* engine, waiting_t* waiting) noexcept nogil:
    cdef int32_t i = waiting.heap_index
    cdef waiting_t* last
    engine.n_waiting -= 1
    last = engine.heap[engine.n_waiting]
    if last != waiting:
        _place(engine, last, i)
        _rise(engine, i)
        _sink(engine, last.heap_index)


# ------------------------------------------------------------- rows that wait

cdef waiting_t* peek_waiting(engine_t* engine, int32_t n_features) noexcept nogil:
    cdef waiting_t* waiting = engine.free
    cdef uint8_t* grown
    cdef int32_t i
    if waiting is NULL:
        if engine.n_made == MAX_WAITING:
            return NULL
        waiting = <waiting_t*> calloc(1, sizeof(waiting_t))
        if waiting is NULL:
            return NULL
        engine.n_made += 1
        waiting.engine = engine
        for i in range(<int32_t> (sizeof(waiting.reads) // sizeof(waiting_read_t))):
            waiting.reads[i].waiting = waiting
            waiting.reads[i].group = i
            waiting.reads[i].read.done = _done
            waiting.reads[i].read.owner = &waiting.reads[i]
        engine.free = waiting
    if waiting.n_capacity < n_features:
        # Values, then sources: one block.
        grown = <uint8_t*> realloc(waiting.row.resolved.row, n_features * (sizeof(float) + 1))
        if grown is NULL:
            return NULL
        waiting.row.resolved.row = <float*> grown
        waiting.n_capacity = n_features
    waiting.held = find_hold(engine.board, engine.thread, engine.plan)
    return NULL if waiting.held < 0 else waiting


cdef void park(engine_t* engine, row_t* row, int32_t n_pending, int64_t now_ns) noexcept nogil:
    cdef waiting_t* waiting = engine.free
    cdef int32_t n_features = row.arm.schema.n_features
    cdef float* values = waiting.row.resolved.row
    cdef uint8_t* sources = <uint8_t*> values + waiting.n_capacity * sizeof(float)
    cdef int32_t i
    engine.free = waiting.next
    waiting.next = NULL
    if engine.held_counts[waiting.held] == 0:
        hold(engine.board, engine.thread, waiting.held, engine.plan)
    engine.held_counts[waiting.held] += 1
    memcpy(values, row.resolved.row, n_features * sizeof(float))
    memcpy(sources, row.resolved.sources, n_features)
    memcpy(&waiting.row, row, sizeof(row_t))
    waiting.row.resolved.row = values
    waiting.row.resolved.sources = sources
    waiting.row.waiting = waiting
    waiting.n_pending = n_pending
    waiting.since_ns = now_ns
    waiting.deadline_ns = INT64_MAX
    for i in range(row.arm.n_groups):
        if waiting.reads[i].is_pending:
            waiting.deadline_ns = min(waiting.deadline_ns, waiting.reads[i].read.deadline_ns)
    _place(engine, waiting, engine.n_waiting)
    engine.n_waiting += 1
    _rise(engine, waiting.heap_index)
    add(&engine.shard.waits, 1)


cdef void settle(
    engine_t* engine, row_t* row, int32_t group, const uint8_t* key, size_t n_key,
    int32_t outcome, const uint8_t* record, size_t n_record
) noexcept nogil:
    cdef group_read_t* read = &row.reads[group]
    cdef uint32_t n_before = row.resolved.n_by_source[<int> SOURCE_ONLINE]
    if outcome == OUTCOME_HIT:
        outcome = take_record(
            row.arm.schema, &row.arm.groups[group], record, n_record, SOURCE_ONLINE,
            row.event_time_ms, &row.resolved, &read.online_age_ms,
        )
    read.online = <uint8_t> outcome
    if outcome != OUTCOME_NOT_READ:
        add(&engine.shard.online_reads[outcome], 1)
    # A record that filled the whole group, nearly every one, leaves nothing to look for.
    if n_key != 0 and (row.resolved.n_by_source[<int> SOURCE_ONLINE] - n_before
                       != <uint32_t> row.arm.groups[group].group.n_members):
        take_batch(
            row.arm.schema, &row.arm.groups[group], engine.thread, key, n_key,
            row.event_time_ms, &row.resolved, read,
        )
        if read.batch != OUTCOME_NOT_READ:
            add(&engine.shard.batch_reads[read.batch], 1)


cdef void _end_read(
    waiting_read_t* ending, int32_t outcome, const uint8_t* record, size_t n_record, int64_t now_ns
) noexcept nogil:
    cdef waiting_t* waiting = ending.waiting
    cdef engine_t* engine = waiting.engine
    ending.is_pending = 0
    waiting.n_pending -= 1
    observe_read(engine.shard, now_ns - ending.read.started_ns)
    settle(
        engine, &waiting.row, ending.group, ending.key, ending.n_key, outcome, record, n_record
    )
    if waiting.n_pending == 0:
        _remove(engine, waiting)
        waiting.row.features_ns += <uint64_t> (now_ns - waiting.since_ns)
        waiting.row.ready_ns = now_ns
        waiting.next = NULL
        engine.ready_end[0] = waiting
        engine.ready_end = &waiting.next


cdef void _done(
    read_t* read, int32_t outcome, const uint8_t* record, size_t n_record, int64_t now_ns
) noexcept nogil:
    _end_read(<waiting_read_t*> read.owner, outcome, record, n_record, now_ns)


cdef void _expire_row(engine_t* engine, waiting_t* waiting, int64_t now_ns) noexcept nogil:
    cdef int32_t n_groups = waiting.row.arm.n_groups
    cdef int64_t earliest_ns = INT64_MAX
    cdef waiting_read_t* read
    cdef int32_t i
    for i in range(n_groups):
        read = &waiting.reads[i]
        if not read.is_pending:
            continue
        if read.read.deadline_ns > now_ns:
            earliest_ns = min(earliest_ns, read.read.deadline_ns)
            continue
        engine.store.abandon(engine.store.impl, &read.read, 1, now_ns)
        # The last one moves the row to the ready ones.
        _end_read(read, OUTCOME_TIMEOUT, NULL, 0, now_ns)
    if waiting.n_pending > 0:
        waiting.deadline_ns = earliest_ns
        _sink(engine, waiting.heap_index)


cdef void expire(engine_t* engine, int64_t now_ns) noexcept nogil:
    while engine.n_waiting > 0 and engine.heap[0].deadline_ns <= now_ns:
        _expire_row(engine, engine.heap[0], now_ns)


cdef waiting_t* next_ready(engine_t* engine) noexcept nogil:
    cdef waiting_t* waiting = engine.ready
    if waiting is not NULL:
        engine.ready = waiting.next
        if engine.ready is NULL:
            engine.ready_end = &engine.ready
    return waiting


cdef void release(engine_t* engine, waiting_t* waiting) noexcept nogil:
    engine.held_counts[waiting.held] -= 1
    if engine.held_counts[waiting.held] == 0:
        unhold(engine.board, engine.thread, waiting.held)
    waiting.next = engine.free
    engine.free = waiting


cdef void clear_waiting(engine_t* engine) noexcept nogil:
    cdef waiting_t* waiting
    while engine.n_waiting > 0:
        # Only a loop that was abandoned leaves any.
        engine.n_waiting -= 1
        engine.heap[engine.n_waiting].next = engine.free
        engine.free = engine.heap[engine.n_waiting]
    while engine.free is not NULL:
        waiting = engine.free
        engine.free = waiting.next
        free(waiting.row.resolved.row)
        free(waiting)
