"""Rows that are ready: scored by their arm, decided, encoded, answered.

Rules: each arm scores its share of the batch once; no score depends on its batch-mates. A raw
score of NaN is never decided on: comparing it would silently mean "below every threshold". Work
whose deadline has passed, or whose caller went away, was dropped before (see `engine`).
"""

from fastpath._types cimport (
    LINK_LOGIT,
    N_SOURCES,
    SOURCE_BATCH,
    SOURCE_DEFAULT,
    SOURCE_ONLINE,
    SOURCE_REQUEST,
    SOURCE_UNSEEN,
    STATUS_FAILED_PRECONDITION,
    STATUS_INTERNAL,
    STATUS_OK,
    call_t,
    error_t,
)
from fastpath.answer cimport encode_response, response_bound, response_t
from fastpath.c.clock cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec
from fastpath.capture cimport (
    begin_entry,
    captured_t,
    end_entry,
    entry_sources,
    entry_values,
    hash_id,
    is_sampled,
)
from fastpath.ledger cimport (
    FLAG_DEGRADED,
    FLAG_EXPLORED,
    FLAG_UNSTICKY,
    begin_decision,
    decision_t,
    end_decision,
    is_explored,
    recorded_with,
)
from fastpath.metrics cimport STAGE_ENCODE, STAGE_SCORE, add, observe_duration, slot_t
from fastpath.plan cimport arm_t
from fastpath.routing cimport bucket_of
from fastpath.rows cimport TIMED_ROWS, engine_t, row_t
from fastpath.timings cimport observe_timing
from fastpath.wire cimport OPTION_PROVENANCE, OPTION_TIMINGS

from libc.math cimport exp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memset, strlen


cdef int64_t clock_ns(const engine_t* engine, int64_t now_ns) noexcept nogil:
    cdef timespec moment
    if engine.has_fixed_clock:
        return now_ns
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <int64_t> moment.tv_sec * 1_000_000_000 + moment.tv_nsec


cdef void start_timing(engine_t* engine, int64_t now_ns) noexcept nogil:
    engine.n_untimed = TIMED_ROWS - 1
    engine.stage_ns = clock_ns(engine, now_ns)


cdef void end_stage(engine_t* engine, int32_t stage, int64_t now_ns) noexcept nogil:
    cdef int64_t end_ns = clock_ns(engine, now_ns)
    observe_timing(&engine.shard.stages[stage], end_ns - engine.stage_ns, 1)
    engine.stage_ns = end_ns


cdef int64_t _wall_ms(const engine_t* engine) noexcept nogil:
    cdef timespec moment
    if engine.ids.fixed_wall_ns >= 0:
        return engine.ids.fixed_wall_ns // 1_000_000
    clock_gettime(CLOCK_REALTIME, &moment)
    return <int64_t> moment.tv_sec * 1000 + moment.tv_nsec // 1_000_000


cdef void fail_call(
    engine_t* engine, call_t* call, int32_t status, const char* text
) noexcept nogil:
    add(&engine.shard.errors[status], 1)
    call.complete(call, status, NULL, 0, text, strlen(text))


cdef void score_batch(
    engine_t* engine, const arm_t* arm, int32_t n_members, int32_t n_timed, int64_t now_ns
) noexcept nogil:
    cdef slot_t* slot = &engine.shard.slots[arm.slot]
    cdef row_t* row
    cdef error_t error
    cdef int32_t i, status, source
    cdef int64_t scored_ns, end_ns
    cdef int64_t before_ns = 0
    cdef int64_t wall_ms = 0
    cdef uint64_t n_answered = 0
    if n_timed > 0:
        before_ns = clock_ns(engine, now_ns)
        _observe_queue(engine, n_members, before_ns)
    status = arm.model.score_rows(
        arm.model.impl, engine.thread, <const float* const*> engine.pointers, n_members,
        engine.raw,
    )
    add(&engine.shard.batches, 1)
    add(&engine.shard.batch_rows, n_members)
    scored_ns = clock_ns(engine, now_ns)
    if n_timed > 0:
        observe_timing(
            &engine.shard.stages[<int> STAGE_SCORE], (scored_ns - before_ns) // n_members, n_timed
        )
    if status != 0:
        snprintf(
            error.text, sizeof(error.text), b"model %.*s failed to score (engine code %d)",
            <int> arm.title.size, <const char*> arm.title.data, <int> status,
        )
        for i in range(n_members):
            fail_call(engine, engine.batch[engine.members[i]].call, STATUS_INTERNAL, error.text)
        return
    if engine.ledger is not NULL or engine.ring is not NULL:
        wall_ms = _wall_ms(engine)
    for i in range(n_members):
        row = engine.batch[engine.members[i]]
        if engine.raw[i] != engine.raw[i]:
            snprintf(
                error.text, sizeof(error.text),
                b"model %.*s scored this row as NaN: a feature is missing, its default is NaN, "
                b"and the model does not take NaN; give the feature or set a default in the bundle",
                <int> arm.title.size, <const char*> arm.title.data,
            )
            fail_call(engine, row.call, STATUS_FAILED_PRECONDITION, error.text)
            engine.members[i] = -1
            continue
        for source in range(N_SOURCES):
            if row.resolved.n_by_source[source] != 0:
                add(&slot.features_by_source[source], row.resolved.n_by_source[source])
        n_answered += 1
        if row.resolved.degraded:
            add(&slot.degraded, 1)
        _answer(
            engine, slot, row, engine.raw[i], <uint64_t> (scored_ns - now_ns), scored_ns, wall_ms
        )
    add(&slot.predictions, n_answered)
    end_ns = clock_ns(engine, now_ns)
    if n_timed > 0:
        observe_timing(
            &engine.shard.stages[<int> STAGE_ENCODE], (end_ns - scored_ns) // n_members, n_timed
        )
    for i in range(n_members):
        if engine.members[i] >= 0:
            observe_duration(slot, end_ns - engine.batch[engine.members[i]].call_arrival_ns)


cdef void _observe_queue(engine_t* engine, int32_t n_members, int64_t before_ns) noexcept nogil:
    cdef const row_t* row
    cdef int32_t i
    for i in range(n_members):
        row = engine.batch[engine.members[i]]
        if row.is_timed:
            observe_timing(&engine.shard.queue, before_ns - row.ready_ns, 1)


cdef void _say_defaults(const row_t* row) noexcept nogil:
    # Callers are not told which default stands in for an unseen category; what was captured is.
    cdef uint8_t* sources = row.resolved.sources
    cdef int32_t j
    for j in range(row.arm.schema.n_features):
        if sources[j] == SOURCE_UNSEEN:
            sources[j] = SOURCE_DEFAULT


cdef void _capture(
    engine_t* engine, const row_t* row, const uint64_t* id_hash, float raw, int32_t reached,
    int64_t wall_ms,
) noexcept nogil:
    cdef int32_t n_features = row.arm.schema.n_features
    cdef captured_t* entry = begin_entry(engine.ring, n_features)
    if entry is NULL:
        return
    entry.id_hash[0] = id_hash[0]
    entry.id_hash[1] = id_hash[1]
    entry.event_time_ms = row.event_time_ms if row.event_time_ms != 0 else wall_ms
    entry.decided_time_ms = wall_ms
    entry.generation = row.arm.generation
    entry.raw = raw
    entry.bucket = bucket_of(row.routing_hash)
    entry.slot = <uint16_t> row.arm.slot
    entry.arm = row.arm.index
    entry.decision = <uint8_t> reached
    entry.degraded = <uint8_t> row.resolved.degraded
    entry.unsticky = <uint8_t> row.unsticky
    memcpy(entry_values(entry), row.resolved.row, n_features * sizeof(float))
    memcpy(entry_sources(entry), row.resolved.sources, n_features)
    end_entry(engine.ring, entry)


cdef void _record(
    engine_t* engine, const row_t* row, const uint64_t* id_hash, float raw, float score,
    int32_t policy, int32_t reached, float propensity, int64_t wall_ms,
) noexcept nogil:
    cdef decision_t* entry
    cdef float probability = recorded_with(engine.ledger, row.arm.slot, id_hash, raw)
    if probability == 0.0:
        return
    entry = begin_decision(engine.ledger)
    if entry is NULL:
        return
    entry.id_hash[0] = id_hash[0]
    entry.id_hash[1] = id_hash[1]
    entry.decided_time_ms = wall_ms
    entry.entity_hash = row.routing_hash
    entry.generation = row.arm.generation
    entry.raw = raw
    entry.score = score
    entry.sampling_probability = probability
    entry.propensity = propensity
    entry.slot = <uint16_t> row.arm.slot
    entry.arm = row.arm.index
    entry.decision = <uint8_t> reached
    entry.policy_decision = <uint8_t> policy
    entry.flags = (
        (FLAG_DEGRADED if row.resolved.degraded else 0)
        | (FLAG_EXPLORED if reached != policy else 0)
        | (FLAG_UNSTICKY if row.unsticky else 0)
    )
    end_decision(engine.ledger)


cdef double _score_of(const arm_t* arm, float raw) noexcept nogil:
    cdef double odds_against
    if arm.link == LINK_LOGIT:
        return 1.0 / (1.0 + exp(-(<double> raw + arm.prior_shift)))
    if arm.prior_shift == 0.0 or raw <= 0.0 or raw >= 1.0:
        return raw
    odds_against = (1.0 - <double> raw) / <double> raw * exp(-arm.prior_shift)
    return 1.0 / (1.0 + odds_against)


cdef void _answer(
    engine_t* engine, slot_t* slot, row_t* row, float raw, uint64_t score_ns, int64_t scored_ns,
    int64_t wall_ms,
) noexcept nogil:
    cdef const arm_t* arm = row.arm
    cdef response_t response
    cdef int32_t reached = 0
    cdef int32_t policy
    cdef bint explored = False
    cdef bint is_hashed = False
    cdef double propensity = 1.0
    cdef uint64_t[2] id_hash
    cdef size_t bound
    cdef uint8_t* grown
    memset(&response, 0, sizeof(response_t))
    while reached < arm.n_thresholds and raw >= arm.cuts[reached]:
        reached += 1
    policy = reached
    response.score = _score_of(arm, raw)
    if engine.ledger is not NULL or arm.explore_limit != 0:
        is_hashed = True
        hash_id(row.request_id, row.n_request_id, id_hash)
        # Of a decision that would hide what comes of it, a share is not carried out.
        if arm.explore_limit != 0 and reached == arm.n_thresholds and reached > 0:
            explored = is_explored(id_hash, arm.explore_limit)
            propensity = arm.explore_share if explored else 1.0 - arm.explore_share
            if explored:
                reached = 0
        if engine.ledger is not NULL:
            _record(
                engine, row, id_hash, raw, <float> response.score, policy, reached,
                <float> propensity, wall_ms,
            )
    add(&slot.decisions[reached], 1)
    if engine.ring is not NULL and is_sampled(engine.ring, arm.slot):
        if not is_hashed:
            hash_id(row.request_id, row.n_request_id, id_hash)
        _capture(engine, row, id_hash, raw, reached, wall_ms)
    response.request_id.data = row.request_id
    response.request_id.size = row.n_request_id
    response.raw_score = raw
    response.decision = arm.decisions[reached]
    if reached > 0:
        response.has_threshold = 1
        response.threshold = arm.cuts[reached - 1]
    response.bucket = bucket_of(row.routing_hash)
    response.unsticky = row.unsticky
    response.degraded = row.resolved.degraded
    response.explored = explored
    response.decision_propensity = propensity
    response.n_request = row.resolved.n_by_source[<int> SOURCE_REQUEST]
    response.n_online = row.resolved.n_by_source[<int> SOURCE_ONLINE]
    response.n_batch = row.resolved.n_by_source[<int> SOURCE_BATCH]
    response.n_default = row.resolved.n_by_source[<int> SOURCE_DEFAULT]
    response.arm = arm.encoded
    if row.options & OPTION_PROVENANCE:
        _say_defaults(row)
        response.provenance = row.resolved.sources
        response.n_provenance = arm.schema.n_features
        if row.has_reads:
            response.n_reads = arm.n_groups
            response.groups = arm.groups
            response.reads = row.reads
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
            fail_call(engine, row.call, STATUS_INTERNAL, b"out of memory for the answer")
            return
        engine.out = grown
        engine.out_bytes = bound
    row.call_arrival_ns = row.call.arrival_ns
    row.call.complete(
        row.call, STATUS_OK, engine.out, encode_response(&response, engine.out), NULL, 0
    )
