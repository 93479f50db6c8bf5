"""Rows in, decisions out: decode, route, resolve, score, decide, encode.

Rules
-----
* The engine knows nothing of sockets. A transport gives it calls (`call_t`) between `enter` and
  `leave`; it completes each exactly once, in a `flush`.
* It belongs to one thread and takes no lock. Steady state allocates nothing: rows, values and the
  encoded answer live in memory of a fixed size; a batch that fills it is scored on the spot.
* A row waits for a store, where its plan reads one that answers later, and for the end of the
  iteration, never for other rows: the batch is whatever became ready, each arm scores its share
  once, and no score depends on its batch-mates.
* Work whose deadline has passed is dropped before it is scored; so is cancelled work.
* Time is a parameter. The engine reads a clock only for what it measures itself (the duration
  histogram, stage timings, the time inside a request id of ours), and none with a fixed clock.
* Of `TIMED_ROWS` calls one has its stages timed; the others pay a decrement for it.

How it works: `features` and `stored` fill a row source by source, `reading` asks the stores,
`waiting` keeps the rows that wait, `answering` scores and encodes what is ready.
"""

import os

from fastpath.errors import FastpathError

from fastpath._types cimport (
    MAX_FEATURES,
    N_MISSING,
    SOURCE_REQUEST,
    STATUS_CANCELLED,
    STATUS_DEADLINE_EXCEEDED,
    STATUS_INVALID_ARGUMENT,
    STATUS_OK,
    STATUS_UNAVAILABLE,
    error_t,
    span_t,
)
from fastpath.answering cimport clock_ns, end_stage, fail_call, score_batch, start_timing
from fastpath.c.clock cimport CLOCK_REALTIME, clock_gettime, timespec
from fastpath.entities cimport choose_entity
from fastpath.features cimport resolve_request, resolve_rest
from fastpath.metrics cimport STAGE_FEATURES, STAGE_PARSE, STAGE_ROUTE, add, slot_t
from fastpath.plan cimport arm_t, find_model, find_override, pin, plan_model_t, unpin
from fastpath.reading cimport read_groups
from fastpath.refusals cimport refuse_layout, refuse_model
from fastpath.request_id cimport make_request_id
from fastpath.routing cimport bucket_of, hash_of
from fastpath.rows cimport MAX_BATCH, SLAB_VALUES, row_t, waiting_t
from fastpath.schema cimport gather_t
from fastpath.waiting cimport clear_waiting, expire, next_ready, release
from fastpath.wire cimport (
    FORM_DENSE,
    FORM_NONE,
    OPTION_TIMINGS,
    decode_request,
    entity_t,
    request_t,
)

from libc.stdint cimport INT64_MAX, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign

cdef enum:
    FIRST_OUT_BYTES = 16384      # holds any answer of ordinary names and 1,024 sources


cdef span_t _routing_key(const request_t* request, const plan_model_t* model) noexcept nogil:
    """Return the request's key, else the routing entity's id, else nothing (size 0)."""
    cdef span_t key = request.routing_key
    cdef const entity_t* entity
    cdef span_t any_role
    if key.size != 0 or model.routing_entity.size == 0:
        return key
    any_role.data = NULL
    any_role.size = 0
    entity = choose_entity(request, &model.routing_entity, &any_role)
    if entity is not NULL:
        key = entity.id
    return key


cdef const gather_t* _find_gather(const arm_t* arm, uint64_t fingerprint) noexcept nogil:
    cdef int32_t i
    for i in range(arm.n_gathers):
        if arm.gathers[i].fingerprint == fingerprint:
            return &arm.gathers[i]
    return NULL


cdef void engine_enter(engine_t* engine) noexcept nogil:
    engine.plan = pin(engine.board, engine.thread)
    if engine.store is not NULL and engine.store.enter is not NULL:
        engine.store.enter(engine.store.impl)


cdef void engine_leave(engine_t* engine) noexcept nogil:
    if engine.store is not NULL and engine.store.leave is not NULL:
        engine.store.leave(engine.store.impl)
    engine.plan = NULL
    unpin(engine.board, engine.thread)


cdef int64_t engine_wake_ns(engine_t* engine) noexcept nogil:
    cdef int64_t wake_ns = INT64_MAX
    if engine.store is not NULL and engine.store.wake_ns is not NULL:
        wake_ns = engine.store.wake_ns(engine.store.impl)
    if engine.n_waiting > 0:
        wake_ns = min(wake_ns, engine.heap[0].deadline_ns)
    return wake_ns


cdef void engine_attach(
    engine_t* engine, const watcher_t* watcher, int64_t now_ns
) noexcept nogil:
    if engine.store is not NULL and engine.store.attach is not NULL:
        engine.store.attach(engine.store.impl, watcher, now_ns)


cdef void engine_detach(engine_t* engine) noexcept nogil:
    if engine.store is not NULL and engine.store.detach is not NULL:
        engine.store.detach(engine.store.impl)


cdef row_t* _new_row(engine_t* engine, call_t* call, const plan_model_t* model) noexcept nogil:
    """Begin a row: its id, its bucket, its arm. It is not in the batch yet."""
    cdef const request_t* request = &engine.request
    cdef row_t* row = &engine.rows[engine.n_fresh]
    cdef int32_t pinned
    cdef uint64_t hash
    cdef span_t key
    row.call = call
    row.waiting = NULL
    row.has_reads = 0
    row.ready_ns = call.arrival_ns
    row.event_time_ms = request.event_time_ms
    row.options = request.options
    row.features_ns = 0
    row.n_request_id = <int32_t> request.request_id.size
    if row.n_request_id != 0:
        memcpy(row.request_id, request.request_id.data, request.request_id.size)
    else:
        row.n_request_id = make_request_id(&engine.ids, row.request_id)
    key = _routing_key(request, model)
    row.unsticky = key.size == 0
    if row.unsticky:
        key.data = row.request_id
        key.size = row.n_request_id
    hash = hash_of(model.table, key.data, key.size)
    row.routing_hash = hash
    pinned = -1 if row.unsticky else find_override(model, key.data, key.size, hash)
    row.arm = &model.arms[model.table.arm[bucket_of(hash)] if pinned < 0 else pinned]
    return row


cdef int64_t _event_time_ms(engine_t* engine) noexcept nogil:
    cdef timespec moment
    if engine.request.event_time_ms != 0:
        return engine.request.event_time_ms
    if engine.ids.fixed_wall_ns >= 0:
        return engine.ids.fixed_wall_ns // 1_000_000
    clock_gettime(CLOCK_REALTIME, &moment)
    return <int64_t> moment.tv_sec * 1000 + moment.tv_nsec // 1_000_000


cdef int32_t _finish(engine_t* engine, row_t* row, error_t* error) noexcept nogil:
    """Give what is still vacant its default, and count what fell back."""
    cdef slot_t* slot = &engine.shard.slots[row.arm.slot]
    cdef int32_t code = resolve_rest(
        row.arm.schema, &row.resolved, &engine.fallbacks, error
    )
    cdef int32_t i
    if code != 0:
        # Not answered, so not counted as an answer's fallbacks.
        memset(&engine.fallbacks, 0, sizeof(engine.fallbacks))
        return code
    for i in range(row.arm.n_groups + 1):
        if engine.fallbacks.batch[i] != 0:
            add(&slot.fallbacks_batch[i], engine.fallbacks.batch[i])
            engine.fallbacks.batch[i] = 0
        if engine.fallbacks.default_value[i] != 0:
            add(&slot.fallbacks_default[i], engine.fallbacks.default_value[i])
            engine.fallbacks.default_value[i] = 0
    return code


cdef inline void _to_batch(engine_t* engine, row_t* row) noexcept nogil:
    row.arm_pending = 1
    engine.batch[engine.n_rows] = row
    engine.n_rows += 1


cdef int32_t _resolve(engine_t* engine, row_t* row, const gather_t* gather, int64_t now_ns,
                      error_t* error) noexcept nogil:
    """All passes over a fresh row. Returns 1: ready, 0: parked, -1: `error` says why not."""
    cdef const arm_t* arm = row.arm
    cdef slot_t* slot = &engine.shard.slots[arm.slot]
    cdef int32_t i
    if resolve_request(arm.schema, gather, &engine.request, &row.resolved, error) != 0:
        return -1
    for i in range(N_MISSING):
        if row.resolved.n_missing[i] != 0:
            add(&slot.features_missing[i], row.resolved.n_missing[i])
    if <int32_t> row.resolved.n_by_source[<int> SOURCE_REQUEST] == arm.schema.n_features:
        return 1
    if arm.n_groups > 0:
        row.has_reads = 1
        row.event_time_ms = _event_time_ms(engine)
        if read_groups(engine, row, now_ns) > 0:
            return 0
    return 1 if _finish(engine, row, error) == 0 else -1


cdef void engine_score(
    engine_t* engine, call_t* call, const uint8_t* message, size_t n_message, int64_t now_ns
) noexcept nogil:
    """Take one ScoreRequest: decode, route and resolve it into a row that is ready or waits."""
    cdef request_t* request = &engine.request
    cdef const gather_t* gather = NULL
    cdef const arm_t* arm
    cdef row_t* row
    cdef error_t error
    cdef int32_t index, code
    cdef int64_t before_ns = 0
    error.status = STATUS_OK
    error.text[0] = 0
    if engine.n_rows == MAX_BATCH or engine.n_values + MAX_FEATURES > SLAB_VALUES:
        _score_rows(engine, clock_ns(engine, now_ns))
    engine.is_timed = engine.n_untimed == 0
    engine.n_untimed -= 1
    if engine.is_timed:
        start_timing(engine, now_ns)
    if engine.plan is NULL:
        fail_call(
            engine, call, STATUS_UNAVAILABLE,
            b"no model is served yet; ask /readyz on the sidecar port why",
        )
        return
    if decode_request(message, n_message, request, &error) != 0:
        fail_call(engine, call, error.status, error.text)
        return
    if engine.is_timed:
        end_stage(engine, STAGE_PARSE, now_ns)
    index = find_model(engine.plan, request.model.data, request.model.size)
    if index < 0:
        refuse_model(engine, call)
        return
    if request.form == FORM_NONE:
        fail_call(
            engine, call, STATUS_INVALID_ARGUMENT,
            b"the request holds no features: set `dense` or `named`",
        )
        return
    row = _new_row(engine, call, &engine.plan.models[index])
    arm = row.arm
    if request.form == FORM_DENSE:
        gather = _find_gather(arm, request.layout)
        if gather is NULL:
            refuse_layout(engine, call, arm)
            return
    row.is_timed = engine.is_timed
    if engine.is_timed:
        end_stage(engine, STAGE_ROUTE, now_ns)
        row.features_from_ns = engine.stage_ns
    row.resolved.row = &engine.slab[engine.n_values]
    row.resolved.sources = &engine.source_slab[engine.n_values]
    if request.options & OPTION_TIMINGS:
        # Only a request that asks pays for clock reads; what it asks is known after decoding,
        # so its decoding is done once more under the clock.
        before_ns = clock_ns(engine, now_ns)
        decode_request(message, n_message, request, &error)
        row.parse_ns = <uint64_t> (clock_ns(engine, now_ns) - before_ns)
        before_ns = clock_ns(engine, now_ns)
        engine.stage_ns = before_ns
    code = _resolve(engine, row, gather, now_ns, &error)
    if code < 0:
        fail_call(engine, call, error.status, error.text)
    elif code > 0:
        if engine.is_timed:
            end_stage(engine, STAGE_FEATURES, now_ns)
        if request.options & OPTION_TIMINGS:
            row.features_ns = <uint64_t> (clock_ns(engine, now_ns) - before_ns)
        engine.n_values += arm.schema.n_features
        engine.n_fresh += 1
        _to_batch(engine, row)


cdef void _drop_late(engine_t* engine, int64_t now_ns) noexcept nogil:
    cdef row_t* row
    cdef int32_t i
    for i in range(engine.n_rows):
        row = engine.batch[i]
        if row.call.cancelled:
            row.arm_pending = 0
            fail_call(engine, row.call, STATUS_CANCELLED, b"the caller cancelled the call")
        elif row.call.deadline_ns <= now_ns:
            row.arm_pending = 0
            fail_call(
                engine, row.call, STATUS_DEADLINE_EXCEEDED,
                b"the call's deadline passed before it was scored",
            )


cdef void _score_rows(engine_t* engine, int64_t now_ns) noexcept nogil:
    """Score the batch, each arm once, and complete every call of it."""
    cdef int32_t first, i, n_members, n_timed
    cdef row_t* row
    cdef const arm_t* arm
    _drop_late(engine, now_ns)
    for first in range(engine.n_rows):
        if not engine.batch[first].arm_pending:
            continue
        arm = engine.batch[first].arm
        n_members = 0
        n_timed = 0
        for i in range(first, engine.n_rows):
            row = engine.batch[i]
            if row.arm_pending and row.arm == arm:
                row.arm_pending = 0
                engine.members[n_members] = i
                engine.pointers[n_members] = row.resolved.row
                n_members += 1
                n_timed += row.is_timed
        score_batch(engine, arm, n_members, n_timed, now_ns)
    for i in range(engine.n_rows):
        if engine.batch[i].waiting is not NULL:
            release(engine, engine.batch[i].waiting)
    engine.n_rows = 0
    engine.n_fresh = 0
    engine.n_values = 0


cdef void _take_ready(engine_t* engine, int64_t now_ns) noexcept nogil:
    cdef waiting_t* waiting = next_ready(engine)
    cdef error_t error
    while waiting is not NULL:
        if engine.n_rows == MAX_BATCH:
            _score_rows(engine, clock_ns(engine, now_ns))
        error.status = STATUS_OK
        if _finish(engine, &waiting.row, &error) == 0:
            if waiting.row.is_timed:
                engine.stage_ns = waiting.row.features_from_ns
                end_stage(engine, STAGE_FEATURES, now_ns)
            _to_batch(engine, &waiting.row)
        else:
            fail_call(engine, waiting.row.call, error.status, error.text)
            release(engine, waiting)
        waiting = next_ready(engine)


cdef void engine_flush(engine_t* engine, int64_t now_ns) noexcept nogil:
    """End of an iteration: what was asked of the store goes out, what is ready is answered."""
    if engine.store is not NULL and engine.store.flush is not NULL:
        engine.store.flush(engine.store.impl, now_ns)
    expire(engine, now_ns)
    _take_ready(engine, now_ns)
    _score_rows(engine, now_ns)


# What `Engine.answer` collects from the calls that it makes.
cdef struct collected_t:
    call_t call
    int32_t n_completions
    int32_t status
    uint8_t* body
    size_t n_body
    char* text
    size_t n_text


cdef void _collect(
    call_t* call, int32_t status, const uint8_t* body, size_t n_body, const char* text,
    size_t n_text
) noexcept nogil:
    cdef collected_t* answer = <collected_t*> call.owner
    answer.n_completions += 1
    answer.status = status
    answer.body = <uint8_t*> malloc(n_body + 1)
    answer.text = <char*> malloc(n_text + 1)
    if answer.body is not NULL:
        memcpy(answer.body, body, n_body)
        answer.n_body = n_body
    if answer.text is not NULL:
        memcpy(answer.text, text, n_text)
        answer.n_text = n_text


cdef inline size_t offsetof_request() noexcept nogil:
    # Everything before it is zero at first; of what follows, `fallbacks` is too.
    return <size_t> &(<engine_t*> NULL).request


cdef class Engine:
    """The engine of one thread.

    Parameters
    ----------
    board : PlanBoard
        Where it finds the plan that serves.
    metrics : Metrics
        Its shard is the one of `thread`.
    thread : int
        Index of the loop, below 64. Two engines of one board must differ in it.
    store : OnlineStore, optional
        Online records, of this thread alone; None: there are none.
    capture : Capture, optional
        Where decisions are captured, into the ring of `thread`; None: nowhere.
    ledger : Ledger, optional
        Where decisions are recorded for their outcomes, into the ring of `thread`; None: nowhere.
    fixed_wall_ns : int, optional
        For tests: the wall clock stands still there, and durations follow the given times only.
    seed : int, optional
        Of the ids that it makes for requests without one; random by default.
    """

    def __cinit__(
        self, PlanBoard board not None, Metrics metrics not None, int thread=0, *,
        OnlineStore store=None, Capture capture=None, Ledger ledger=None, fixed_wall_ns=None,
        seed=None
    ):
        cdef void* memory = NULL
        if not 0 <= thread < 64:
            raise FastpathError(f"thread {thread} is outside 0 to 63")
        if posix_memalign(&memory, 64, sizeof(engine_t)) != 0:
            raise MemoryError()
        # Only the head is cleared: the slabs stay untouched pages until they are used.
        memset(memory, 0, offsetof_request())
        self.engine = <engine_t*> memory
        self.board = board
        self.metrics = metrics
        self.store = store
        self.capture = capture
        self.ledger = ledger
        self.thread = thread
        self.engine.board = board.board
        self.engine.shard = metrics.shard(thread)
        self.engine.store = NULL if store is None else &store.table
        self.engine.ring = NULL if capture is None else capture.ring(thread)
        self.engine.ledger = NULL if ledger is None else ledger.ring(thread)
        self.engine.ready_end = &self.engine.ready
        self.engine.thread = thread
        memset(&self.engine.fallbacks, 0, sizeof(self.engine.fallbacks))
        self.engine.has_fixed_clock = fixed_wall_ns is not None
        self.engine.ids.fixed_wall_ns = -1 if fixed_wall_ns is None else fixed_wall_ns
        if seed is None:
            seed = int.from_bytes(os.urandom(8), "little")
        self.engine.ids.state = seed
        self.engine.out_bytes = FIRST_OUT_BYTES
        self.engine.out = <uint8_t*> malloc(FIRST_OUT_BYTES)
        if self.engine.out is NULL:
            raise MemoryError()

    def __dealloc__(self):
        if self.engine is not NULL:
            clear_waiting(self.engine)
            free(self.engine.out)
            free(self.engine)

    def answer(self, messages, *, int64_t now_ns, flush_ns=None, deadlines_ns=None, cancelled=()):
        """Answer Score messages as a loop would that has nothing else to do.

        All messages arrive in one iteration. Where rows wait for a store, further iterations
        follow, each at the moment that the engine asks for.

        Parameters
        ----------
        messages : sequence of bytes
            Encoded ScoreRequests.
        now_ns : int
            Monotonic time at which they arrive.
        flush_ns : int, optional
            Time at which the iteration ends; `now_ns` by default.
        deadlines_ns : sequence of (int or None), optional
            Monotonic deadlines; None is none.
        cancelled : container of int
            Indexes of messages whose caller goes away before the flush.

        Returns
        -------
        list of (int, bytes, str)
            gRPC status, encoded ScoreResponse, and error text of each message.

        Notes
        -----
        The GIL is held: this is for tests and tools, not for serving.
        """
        cdef Py_ssize_t n_messages = len(messages)
        cdef collected_t* answers
        cdef bytes message
        cdef Py_ssize_t i
        if not n_messages:
            return []
        answers = <collected_t*> malloc(n_messages * sizeof(collected_t))
        if answers is NULL:
            raise MemoryError()
        memset(answers, 0, n_messages * sizeof(collected_t))
        try:
            engine_enter(self.engine)
            for i, message in enumerate(messages):
                answers[i].call.complete = _collect
                answers[i].call.owner = &answers[i]
                answers[i].call.arrival_ns = now_ns
                answers[i].call.deadline_ns = INT64_MAX
                if deadlines_ns is not None and deadlines_ns[i] is not None:
                    answers[i].call.deadline_ns = deadlines_ns[i]
                answers[i].call.cancelled = i in cancelled
                engine_score(
                    self.engine, &answers[i].call, <const uint8_t*> message, len(message), now_ns
                )
            later_ns = now_ns if flush_ns is None else flush_ns
            engine_flush(self.engine, later_ns)
            engine_leave(self.engine)
            while any(answers[i].n_completions == 0 for i in range(n_messages)):
                wake_ns = engine_wake_ns(self.engine)
                if wake_ns == INT64_MAX:
                    break
                later_ns = max(later_ns, wake_ns)
                engine_enter(self.engine)
                engine_flush(self.engine, later_ns)
                engine_leave(self.engine)
            wrong = [i for i in range(n_messages) if answers[i].n_completions != 1]
            if wrong:
                raise FastpathError(f"calls {wrong} were not completed exactly once")
            return [
                (
                    answers[i].status,
                    (<const char*> answers[i].body)[:answers[i].n_body],
                    answers[i].text[:answers[i].n_text].decode(),
                )
                for i in range(n_messages)
            ]
        finally:
            for i in range(n_messages):
                free(answers[i].body)
                free(answers[i].text)
            free(answers)
