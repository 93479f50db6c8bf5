"""Rows in, decisions out: decode, route, resolve, score, decide, encode.

Rules
-----
* The engine knows nothing of sockets. A transport gives it calls (`call_t`) between `enter` and
  `leave`; it completes each exactly once, at the latest in `flush`.
* It belongs to one thread and takes no lock. Steady state allocates nothing: rows, values and the
  encoded answer live in memory of a fixed size; a batch that fills it is flushed on the spot.
* A row waits for nothing but the end of the iteration: the batch is whatever became ready, each arm
  scores its share once, and no score depends on its batch-mates.
* Work whose deadline has passed is dropped before it is scored; so is cancelled work.
* Time is a parameter. The engine reads a clock only for what it measures itself (the duration
  histogram, stage timings, the time inside a request id of ours), and none with a fixed clock.

A raw score of NaN is never decided on: comparing it would silently mean "below every threshold".
"""

import os

from fastpath.errors import FastpathError

from fastpath._types cimport (
    LINK_LOGIT,
    N_MISSING,
    SOURCE_BATCH,
    SOURCE_DEFAULT,
    SOURCE_ONLINE,
    SOURCE_REQUEST,
    STATUS_CANCELLED,
    STATUS_DEADLINE_EXCEEDED,
    STATUS_FAILED_PRECONDITION,
    STATUS_INTERNAL,
    STATUS_INVALID_ARGUMENT,
    STATUS_NOT_FOUND,
    STATUS_OK,
    STATUS_UNAVAILABLE,
    error_t,
    span_t,
)
from fastpath.answer cimport encode_response, response_bound, response_t
from fastpath.c.clock cimport CLOCK_MONOTONIC, clock_gettime, timespec
from fastpath.features cimport resolve, resolved_t
from fastpath.metrics cimport add, observe_duration, slot_t
from fastpath.plan cimport find_model, pin, plan_model_t, unpin
from fastpath.request_id cimport make_request_id
from fastpath.routing cimport bucket_of
from fastpath.schema cimport gather_t
from fastpath.wire cimport (
    FORM_DENSE,
    FORM_NONE,
    OPTION_PROVENANCE,
    OPTION_TIMINGS,
    decode_request,
    entity_t,
)

from libc.math cimport exp
from libc.stdint cimport INT64_MAX
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset, strlen
from posix.stdlib cimport posix_memalign

cdef enum:
    FIRST_OUT_BYTES = 16384      # holds any answer of ordinary names and 1,024 sources
    NAME_SHOWN_BYTES = 80        # of a caller's text inside an error text


cdef inline int64_t _clock_ns(const engine_t* engine, int64_t now_ns) noexcept nogil:
    cdef timespec moment
    if engine.has_fixed_clock:
        return now_ns
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <int64_t> moment.tv_sec * 1_000_000_000 + moment.tv_nsec


cdef int _shown(span_t text) noexcept nogil:
    # How many bytes of a caller's text an error shows, cut between characters.
    cdef size_t size = text.size
    if size > NAME_SHOWN_BYTES:
        size = NAME_SHOWN_BYTES
        while size > 0 and (text.data[size] & 0xC0) == 0x80:
            size -= 1
    return <int> size


cdef void engine_fail(
    engine_t* engine, call_t* call, int32_t status, const char* text
) noexcept nogil:
    add(&engine.shard.errors[status], 1)
    call.complete(call, status, NULL, 0, text, strlen(text))


cdef bint _precedes(const entity_t* a, const entity_t* b) noexcept nogil:
    # Orders entities by role, then id: a total order, so that the callers' own does not matter.
    cdef size_t n = a.role.size if a.role.size < b.role.size else b.role.size
    cdef int order = memcmp(a.role.data, b.role.data, n)
    if order == 0 and a.role.size != b.role.size:
        return a.role.size < b.role.size
    if order == 0:
        n = a.id.size if a.id.size < b.id.size else b.id.size
        order = memcmp(a.id.data, b.id.data, n)
        if order == 0:
            return a.id.size < b.id.size
    return order < 0


cdef span_t _routing_key(const request_t* request, const plan_model_t* model) noexcept nogil:
    """Return the request's key, else the routing entity's id, else nothing (size 0)."""
    cdef span_t key = request.routing_key
    cdef const entity_t* chosen = NULL
    cdef const entity_t* entity
    cdef int32_t i
    if key.size != 0 or model.routing_entity.size == 0:
        return key
    for i in range(request.n_entities):
        entity = &request.entities[i]
        if (entity.type.size == model.routing_entity.size and entity.id.size != 0
                and memcmp(entity.type.data, model.routing_entity.data, entity.type.size) == 0
                and (chosen is NULL or _precedes(entity, chosen))):
            chosen = entity
    if chosen is not NULL:
        key = chosen.id
    return key


cdef const gather_t* _find_gather(const arm_t* arm, uint64_t fingerprint) noexcept nogil:
    cdef int32_t i
    for i in range(arm.n_gathers):
        if arm.gathers[i].fingerprint == fingerprint:
            return &arm.gathers[i]
    return NULL


cdef void engine_enter(engine_t* engine) noexcept nogil:
    engine.plan = pin(engine.board, engine.thread)


cdef void engine_leave(engine_t* engine) noexcept nogil:
    engine.plan = NULL
    unpin(engine.board, engine.thread)


cdef void engine_score(
    engine_t* engine, call_t* call, const uint8_t* message, size_t n_message, int64_t now_ns
) noexcept nogil:
    """Take one ScoreRequest: decode, route and resolve it into a row of the batch."""
    cdef request_t* request = &engine.request
    cdef const plan_model_t* model
    cdef const arm_t* arm
    cdef const gather_t* gather = NULL
    cdef row_t* row
    cdef resolved_t resolved
    cdef error_t error
    cdef slot_t* slot
    cdef span_t key
    cdef int32_t index, i
    cdef int64_t before_ns = 0
    error.status = STATUS_OK
    error.text[0] = 0
    if engine.plan is NULL:
        engine_fail(
            engine, call, STATUS_UNAVAILABLE,
            b"no model is served yet; ask /readyz on the sidecar port why",
        )
        return
    if decode_request(message, n_message, request, &error) != 0:
        engine_fail(engine, call, error.status, error.text)
        return
    index = find_model(engine.plan, request.model.data, request.model.size)
    if index < 0:
        snprintf(
            error.text, sizeof(error.text),
            b"model \"%.*s\" is not served; leave the name empty for the default model \"%.*s\"",
            _shown(request.model), <const char*> request.model.data,
            _shown(engine.plan.models[engine.plan.default_model].name),
            <const char*> engine.plan.models[engine.plan.default_model].name.data,
        )
        engine_fail(engine, call, STATUS_NOT_FOUND, error.text)
        return
    model = &engine.plan.models[index]
    if request.form == FORM_NONE:
        engine_fail(
            engine, call, STATUS_INVALID_ARGUMENT,
            b"the request holds no features: set `dense` or `named`",
        )
        return
    if engine.n_rows == MAX_BATCH:
        engine_flush(engine, _clock_ns(engine, now_ns))
    row = &engine.rows[engine.n_rows]
    row.call = call
    row.options = request.options
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
    row.bucket = bucket_of(model.table, key.data, key.size)
    arm = &model.arms[model.table.arm[row.bucket]]
    row.arm = arm
    if request.form == FORM_DENSE:
        gather = _find_gather(arm, request.layout)
        if gather is NULL:
            snprintf(
                error.text, sizeof(error.text),
                b"layout %016llx is not one of model %.*s (its own is %016llx); "
                b"ask GetModel for the layouts that it takes",
                <unsigned long long> request.layout, <int> arm.title.size,
                <const char*> arm.title.data, <unsigned long long> arm.schema.fingerprint,
            )
            engine_fail(engine, call, STATUS_FAILED_PRECONDITION, error.text)
            return
    if engine.n_values + arm.schema.n_features > SLAB_VALUES:
        # The batch's values fill the slab. The row moves to the start of the emptied batch.
        _flush_before(engine, row, now_ns)
        row = &engine.rows[0]
    row.values = &engine.slab[engine.n_values]
    row.sources = &engine.source_slab[engine.n_values]
    resolved.row = row.values
    resolved.sources = row.sources
    if request.options & OPTION_TIMINGS:
        # Only a request that asks pays for clock reads; what it asks is known after decoding,
        # so its decoding is done once more under the clock.
        before_ns = _clock_ns(engine, now_ns)
        decode_request(message, n_message, request, &error)
        row.parse_ns = <uint64_t> (_clock_ns(engine, now_ns) - before_ns)
        before_ns = _clock_ns(engine, now_ns)
    if resolve(arm.schema, gather, request, &resolved, &error) != 0:
        engine_fail(engine, call, error.status, error.text)
        return
    if request.options & OPTION_TIMINGS:
        row.features_ns = <uint64_t> (_clock_ns(engine, now_ns) - before_ns)
    memcpy(row.n_by_source, resolved.n_by_source, sizeof(row.n_by_source))
    slot = &engine.shard.slots[arm.slot]
    for i in range(N_MISSING):
        if resolved.n_missing[i] != 0:
            add(&slot.features_missing[i], resolved.n_missing[i])
    row.arm_pending = 1
    engine.n_values += arm.schema.n_features
    engine.n_rows += 1


cdef void _flush_before(engine_t* engine, row_t* row, int64_t now_ns) noexcept nogil:
    # `row` is filled but not counted yet, so flushing the others leaves it alone.
    engine_flush(engine, _clock_ns(engine, now_ns))
    if row != &engine.rows[0]:
        memcpy(&engine.rows[0], row, sizeof(row_t))


cdef void engine_flush(engine_t* engine, int64_t now_ns) noexcept nogil:
    """Score everything that was taken, each arm once, and complete every call."""
    cdef int32_t first, i, n_members
    cdef row_t* row
    cdef const arm_t* arm
    for i in range(engine.n_rows):
        row = &engine.rows[i]
        if row.call.cancelled:
            row.arm_pending = 0
            engine_fail(engine, row.call, STATUS_CANCELLED, b"the caller cancelled the call")
        elif row.call.deadline_ns <= now_ns:
            row.arm_pending = 0
            engine_fail(
                engine, row.call, STATUS_DEADLINE_EXCEEDED,
                b"the call's deadline passed before it was scored",
            )
    for first in range(engine.n_rows):
        if not engine.rows[first].arm_pending:
            continue
        arm = engine.rows[first].arm
        n_members = 0
        for i in range(first, engine.n_rows):
            row = &engine.rows[i]
            if row.arm_pending and row.arm == arm:
                row.arm_pending = 0
                engine.members[n_members] = i
                engine.pointers[n_members] = row.values
                n_members += 1
        _score_batch(engine, arm, n_members, now_ns)
    engine.n_rows = 0
    engine.n_values = 0


cdef void _score_batch(
    engine_t* engine, const arm_t* arm, int32_t n_members, int64_t now_ns
) noexcept nogil:
    cdef slot_t* slot = &engine.shard.slots[arm.slot]
    cdef row_t* row
    cdef error_t error
    cdef int32_t i, status, source
    cdef int64_t scored_ns, end_ns
    cdef uint64_t n_answered = 0
    status = arm.model.score_rows(
        arm.model.impl, engine.thread, <const float* const*> engine.pointers, n_members,
        engine.raw,
    )
    add(&engine.shard.batches, 1)
    add(&engine.shard.batch_rows, n_members)
    scored_ns = _clock_ns(engine, now_ns)
    if status != 0:
        snprintf(
            error.text, sizeof(error.text), b"model %.*s failed to score (engine code %d)",
            <int> arm.title.size, <const char*> arm.title.data, <int> status,
        )
        for i in range(n_members):
            engine_fail(engine, engine.rows[engine.members[i]].call, STATUS_INTERNAL, error.text)
        return
    for i in range(n_members):
        row = &engine.rows[engine.members[i]]
        if engine.raw[i] != engine.raw[i]:
            snprintf(
                error.text, sizeof(error.text),
                b"model %.*s scored this row as NaN: a feature is missing, its default is NaN, "
                b"and the model does not take NaN; give the feature or set a default in the bundle",
                <int> arm.title.size, <const char*> arm.title.data,
            )
            engine_fail(engine, row.call, STATUS_FAILED_PRECONDITION, error.text)
            engine.members[i] = -1
            continue
        for source in range(N_SOURCES):
            if row.n_by_source[source] != 0:
                add(&slot.features_by_source[source], row.n_by_source[source])
        n_answered += 1
        _answer(engine, slot, row, engine.raw[i], <uint64_t> (scored_ns - now_ns), scored_ns)
    add(&slot.predictions, n_answered)
    end_ns = _clock_ns(engine, now_ns)
    for i in range(n_members):
        if engine.members[i] >= 0:
            observe_duration(slot, end_ns - engine.rows[engine.members[i]].call_arrival_ns)


cdef double _score_of(const arm_t* arm, float raw) noexcept nogil:
    cdef double odds_against
    if arm.link == LINK_LOGIT:
        return 1.0 / (1.0 + exp(-(<double> raw + arm.prior_shift)))
    if arm.prior_shift == 0.0 or raw <= 0.0 or raw >= 1.0:
        return raw
    odds_against = (1.0 - <double> raw) / <double> raw * exp(-arm.prior_shift)
    return 1.0 / (1.0 + odds_against)


cdef void _answer(
    engine_t* engine, slot_t* slot, row_t* row, float raw, uint64_t score_ns, int64_t scored_ns
) noexcept nogil:
    cdef const arm_t* arm = row.arm
    cdef response_t response
    cdef int32_t reached = 0
    cdef size_t bound
    cdef uint8_t* grown
    memset(&response, 0, sizeof(response_t))
    while reached < arm.n_thresholds and raw >= arm.cuts[reached]:
        reached += 1
    add(&slot.decisions[reached], 1)
    response.request_id.data = row.request_id
    response.request_id.size = row.n_request_id
    response.raw_score = raw
    response.score = _score_of(arm, raw)
    response.decision = arm.decisions[reached]
    if reached > 0:
        response.has_threshold = 1
        response.threshold = arm.cuts[reached - 1]
    response.bucket = row.bucket
    response.unsticky = row.unsticky
    response.decision_propensity = 1.0
    response.n_request = row.n_by_source[<int> SOURCE_REQUEST]
    response.n_online = row.n_by_source[<int> SOURCE_ONLINE]
    response.n_batch = row.n_by_source[<int> SOURCE_BATCH]
    response.n_default = row.n_by_source[<int> SOURCE_DEFAULT]
    response.arm = arm.encoded
    if row.options & OPTION_PROVENANCE:
        response.provenance = row.sources
        response.n_provenance = arm.schema.n_features
    if row.options & OPTION_TIMINGS:
        response.has_timings = 1
        response.parse_ns = row.parse_ns
        response.features_ns = row.features_ns
        response.score_ns = score_ns
        response.total_ns = <uint64_t> (scored_ns - row.call.arrival_ns)
    bound = response_bound(&response)
    if bound > engine.out_bytes:
        # Names of an extraordinary length: once per plan at most, not steady state.
        grown = <uint8_t*> realloc(engine.out, bound)
        if grown is NULL:
            engine_fail(engine, row.call, STATUS_INTERNAL, b"out of memory for the answer")
            return
        engine.out = grown
        engine.out_bytes = bound
    row.call_arrival_ns = row.call.arrival_ns
    row.call.complete(
        row.call, STATUS_OK, engine.out, encode_response(&response, engine.out), NULL, 0
    )


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
    fixed_wall_ns : int, optional
        For tests: the wall clock stands still there, and durations follow the given times only.
    seed : int, optional
        Of the ids that it makes for requests without one; random by default.
    """

    def __cinit__(
        self, PlanBoard board not None, Metrics metrics not None, int thread=0, *,
        fixed_wall_ns=None, seed=None
    ):
        cdef void* memory = NULL
        if not 0 <= thread < 64:
            raise FastpathError(f"thread {thread} is outside 0 to 63")
        if posix_memalign(&memory, 64, sizeof(engine_t)) != 0:
            raise MemoryError()
        # Only the head is cleared: the slabs stay untouched pages until they are used.
        self.engine = <engine_t*> memory
        self.engine.out = NULL
        self.board = board
        self.metrics = metrics
        self.thread = thread
        self.engine.board = board.board
        self.engine.plan = NULL
        self.engine.shard = metrics.shard(thread)
        self.engine.thread = thread
        self.engine.n_rows = 0
        self.engine.n_values = 0
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
            free(self.engine.out)
            free(self.engine)

    def answer(self, messages, *, int64_t now_ns, flush_ns=None, deadlines_ns=None, cancelled=()):
        """Answer Score messages as one iteration of a loop would.

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
            engine_flush(self.engine, now_ns if flush_ns is None else flush_ns)
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
