"""Reading a row's stored features: which groups, under which key, with how much time.

Rules: a group is read only where the request left one of its features vacant. The online table
comes first, then, for what it did not have, the batch table. A read may take its group's budget,
and never so long that the answer would miss the call's deadline: a millisecond, or half of what is
left, is kept for scoring and for the way back. A call with no time left is not made to wait at
all.

A store that answers at once is timed for one read in 64 only: the clock would cost as much as the
read.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.string cimport memcpy

from fastpath._types cimport (
    MAX_KEY_BYTES,
    OUTCOME_BUSY,
    OUTCOME_NOT_READ,
    OUTCOME_NO_ENTITY,
    OUTCOME_PENDING,
    OUTCOME_TIMEOUT,
    span_t,
)
from fastpath.c.clock cimport CLOCK_MONOTONIC, clock_gettime, timespec
from fastpath.metrics cimport add, observe_read
from fastpath.rows cimport engine_t, row_t, waiting_read_t, waiting_t
from fastpath.schema cimport group_t
from fastpath.stored cimport lacks_any, record_key_of
from fastpath.waiting cimport park, peek_waiting, settle

cdef enum:
    SAMPLED_READS = 64           # a power of two

cdef int64_t RESERVE_NS = 1_000_000
# With less time than this no store on a network answers; the row had better go on.
cdef int64_t LEAST_READ_NS = 50_000


cdef inline int64_t _monotonic_ns() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <int64_t> moment.tv_sec * 1_000_000_000 + moment.tv_nsec


cdef int64_t _read_until(const row_t* row, const group_t* group, int64_t now_ns) noexcept nogil:
    cdef int64_t until_ns = now_ns + group.budget_ns
    cdef int64_t left_ns
    if row.call.deadline_ns != INT64_MAX:
        left_ns = row.call.deadline_ns - now_ns
        until_ns = min(until_ns, row.call.deadline_ns - min(RESERVE_NS, left_ns // 2))
    return until_ns


cdef int32_t _ask(
    engine_t* engine, row_t* row, int32_t group, const uint8_t* key, size_t n_key, int64_t now_ns,
    span_t* record
) noexcept nogil:
    """Ask the online table; PENDING leaves the read with the waiting row of the last peek."""
    cdef const group_t* declared = row.arm.groups[group].group
    cdef waiting_t* waiting = NULL
    cdef waiting_read_t* pending
    cdef int64_t until_ns
    cdef int64_t before_ns = 0
    cdef int32_t outcome
    if engine.store is NULL or not declared.has_online:
        return OUTCOME_NOT_READ
    if not engine.store.may_wait:
        engine.n_sync_reads += 1
        if engine.n_sync_reads % SAMPLED_READS != 0 or engine.has_fixed_clock:
            return engine.store.get(engine.store.impl, key, n_key, NULL, now_ns, record)
        before_ns = _monotonic_ns()
        outcome = engine.store.get(engine.store.impl, key, n_key, NULL, now_ns, record)
        observe_read(engine.shard, _monotonic_ns() - before_ns)
        return outcome
    until_ns = _read_until(row, declared, now_ns)
    if until_ns - now_ns < LEAST_READ_NS:
        return OUTCOME_TIMEOUT
    waiting = peek_waiting(engine, row.arm.schema.n_features)
    if waiting is NULL:
        return OUTCOME_BUSY
    pending = &waiting.reads[group]
    pending.read.started_ns = now_ns
    pending.read.deadline_ns = until_ns
    outcome = engine.store.get(engine.store.impl, key, n_key, &pending.read, now_ns, record)
    if outcome == OUTCOME_PENDING:
        pending.is_pending = 1
        pending.n_key = <unsigned int> n_key
        memcpy(pending.key, key, n_key)
    return outcome


cdef int32_t read_groups(engine_t* engine, row_t* row, int64_t now_ns) noexcept nogil:
    cdef uint8_t[MAX_KEY_BYTES] key
    cdef const group_t* group
    cdef span_t record
    cdef size_t n_key
    cdef int32_t n_pending = 0
    cdef int32_t outcome
    cdef int32_t i
    for i in range(row.arm.n_groups):
        row.reads[i].online = OUTCOME_NOT_READ
        row.reads[i].batch = OUTCOME_NOT_READ
        row.reads[i].online_age_ms = -1
        row.reads[i].batch_age_ms = -1
        group = row.arm.groups[i].group
        if not lacks_any(group, row.resolved.sources):
            continue
        n_key = record_key_of(group, &engine.request, key)
        if n_key == 0:
            row.reads[i].online = OUTCOME_NO_ENTITY
            add(&engine.shard.online_reads[<int32_t> OUTCOME_NO_ENTITY], 1)
            continue
        record.data = NULL
        record.size = 0
        outcome = _ask(engine, row, i, key, n_key, now_ns, &record)
        if outcome == OUTCOME_PENDING:
            n_pending += 1
        else:
            settle(engine, row, i, key, n_key, outcome, record.data, record.size)
    if n_pending > 0:
        park(engine, row, n_pending, now_ns)
    return n_pending
