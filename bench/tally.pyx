"""A call from its begin to its end, and what is counted of it.

Rules: a call ends once: with a gRPC status, or with a cause why there is none. Only measured
calls (those intended after the warm-up) are counted. Every time is CLOCK_MONOTONIC in ns.

What is recorded:
* latency = end - intended, of every call that got a gRPC status. What a call waited for a free
  stream is in it: no omission is coordinated with a slow server.
* service = end - sent: sent is the clock right before the `send` that carries the request, end the
  clock right after the `recv` that brought the end of the answer.
* lag = sent - ready; ready is when the call was due and a stream was free. It is the
  generator's own fault, and only that.
* the series: calls by the second in which they ended, in a log-linear histogram of 32 counts per
  doubling (3 percent), which is summed up and cleared when its second is over.

What it does not do: it knows nothing of sockets or HTTP/2.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport malloc, realloc
from libc.string cimport memcpy, memset

from bench._types cimport (
    ANSWERED,
    CAUSE_HTTP_STATUS,
    CAUSE_MESSAGE,
    CAUSE_NO_STATUS,
    CHECK_NONE,
    N_SERIES_BUCKETS,
    N_STATUSES,
    call_t,
    load_t,
    second_t,
)
from bench.check cimport answer_is_right
from bench.hdr cimport count_leading_zeros_ll, hist_record

cdef int64_t SECOND_NS = 1_000_000_000

cdef enum:
    SERIES_STEPS = 32            # counts per doubling


cdef uint64_t mix(uint64_t seed, uint64_t index) noexcept nogil:
    # SplitMix64's output function: what call `index` draws does not depend on timing.
    cdef uint64_t z = seed + (index + 1) * <uint64_t> 0x9E3779B97F4A7C15ULL
    z = (z ^ (z >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9ULL
    z = (z ^ (z >> 27)) * <uint64_t> 0x94D049BB133111EBULL
    return z ^ (z >> 31)


# ---------------------------------------------------------------- the series


cdef int32_t series_index(int64_t value_ns) noexcept nogil:
    cdef int32_t doubling
    cdef int64_t i
    if value_ns < SERIES_STEPS:
        return <int32_t> value_ns if value_ns > 0 else 0
    doubling = 58 - count_leading_zeros_ll(<unsigned long long> value_ns)
    i = (doubling + 1) * SERIES_STEPS + (value_ns >> doubling) - SERIES_STEPS
    return <int32_t> i if i < N_SERIES_BUCKETS else N_SERIES_BUCKETS - 1


cdef int64_t series_middle(int32_t index) noexcept nogil:
    cdef int32_t doubling = index // SERIES_STEPS - 1
    if doubling < 0:
        return index
    return ((<int64_t> (index - doubling * SERIES_STEPS)) << doubling) + (
        (<int64_t> 1 << doubling) >> 1
    )


cdef void second_close(load_t* load) noexcept nogil:
    cdef second_t* seconds
    cdef int64_t n_answered = 0
    cdef int64_t total = 0
    cdef int64_t middle
    cdef int32_t i
    for i in range(N_SERIES_BUCKETS):
        n_answered += load.second_counts[i]
    for i in range(N_SERIES_BUCKETS):
        if load.second_counts[i] == 0:
            continue
        total += load.second_counts[i]
        # The middle of the last bucket may lie above the largest value itself.
        middle = min(series_middle(i), load.second.max_ns)
        if load.second.p50_ns == 0 and 2 * total >= n_answered:
            load.second.p50_ns = middle
        if load.second.p99_ns == 0 and 100 * total >= 99 * n_answered:
            load.second.p99_ns = middle
    if load.n_seconds == load.max_seconds:
        # Once in an hour or more: the one allocation of a long run.
        seconds = <second_t*> realloc(load.seconds, 2 * load.max_seconds * sizeof(second_t))
        if seconds == NULL:
            return
        load.seconds = seconds
        load.max_seconds *= 2
    load.seconds[load.n_seconds] = load.second
    load.n_seconds += 1
    memset(&load.second, 0, sizeof(second_t))
    memset(load.second_counts, 0, sizeof(load.second_counts))


cdef void second_turn(load_t* load) noexcept nogil:
    # Closes every second that is over by now.
    while load.is_measuring and load.now_ns - load.measure_ns >= (load.n_seconds + 1) * SECOND_NS:
        second_close(load)


# ---------------------------------------------------------------- calls


cdef call_t* call_begin(
    load_t* load, int64_t intended_ns, int64_t ready_ns, int32_t measured
) noexcept nogil:
    # Takes a slot; there is one for every stream of every connection. NULL: none is left.
    cdef call_t* call = load.free_slots
    cdef int64_t index = load.next_index
    if call == NULL:
        return NULL
    load.free_slots = call.next
    load.next_index += 1
    if load.is_random:
        call.message_index = <int64_t> (mix(load.seed, index) % <uint64_t> load.n_messages)
    else:
        call.message_index = index % load.n_messages
    call.message = &load.messages[call.message_index]
    call.intended_ns = intended_ns
    call.ready_ns = ready_ns
    call.sent_ns = 0
    call.deadline_ns = load.now_ns + load.timeout_ns
    call.n_taken = 0
    call.n_body = 0
    call.n_announced = 0
    call.n_prefix = 0
    call.http_status = 0
    call.grpc_status = -1
    call.is_malformed = 0
    call.is_measured = measured
    call.is_checked = (
        measured
        and call.message.check != CHECK_NONE
        and (mix(~load.seed, index) >> 1) < load.check_below
    )
    call.is_in_flight = 1
    call.next_unsent = NULL
    call.next = NULL
    call.previous = load.newest
    if load.newest != NULL:
        load.newest.next = call
    else:
        load.oldest = call
    load.newest = call
    if load.n_in_flight == 0 and load.was_answered:
        load.heard_ns = load.now_ns
    load.n_in_flight += 1
    if measured:
        load.n_measured += 1
    else:
        load.counters.n_warmup += 1
    return call


cdef void call_sent(load_t* load, call_t* call, int64_t sent_ns) noexcept nogil:
    cdef int64_t lag_ns = sent_ns - call.ready_ns
    call.sent_ns = sent_ns
    if not call.is_measured:
        return
    load.counters.n_sent += 1
    hist_record(load.lag, lag_ns)
    if lag_ns > load.late_ns:
        load.counters.n_late += 1
    if call.ready_ns > call.intended_ns:
        load.counters.n_queued += 1


cdef void keep_wrong(load_t* load, call_t* call) noexcept nogil:
    # The first wrong answer, copied for the report.
    if load.wrong_index >= 0:
        return
    load.wrong_index = call.message_index
    load.wrong_body = <uint8_t*> malloc(call.n_body + 1)
    if load.wrong_body != NULL and call.n_body > 0:
        memcpy(load.wrong_body, call.body, call.n_body)
        load.n_wrong_body = call.n_body


cdef int32_t verdict(call_t* call) noexcept nogil:
    # Turns what arrived into ANSWERED or a cause.
    if call.http_status != 200 and call.http_status != 0:
        return CAUSE_HTTP_STATUS
    if call.grpc_status < 0 or call.grpc_status >= N_STATUSES:
        return CAUSE_NO_STATUS
    if call.grpc_status == 0 and (
        call.is_malformed or call.n_prefix != 5 or call.n_body != call.n_announced
    ):
        return CAUSE_MESSAGE
    return ANSWERED


cdef void call_end(load_t* load, call_t* call, int32_t cause) noexcept nogil:
    # `cause` ANSWERED: whatever the stream brought is judged here.
    cdef int64_t latency_ns = load.now_ns - call.intended_ns
    cdef int32_t is_error
    if not call.is_in_flight:
        return
    call.is_in_flight = 0
    load.n_in_flight -= 1
    if call.previous != NULL:
        call.previous.next = call.next
    else:
        load.oldest = call.next
    if call.next != NULL:
        call.next.previous = call.previous
    else:
        load.newest = call.previous
    if cause == ANSWERED:
        cause = verdict(call)
    load.was_answered = cause == ANSWERED
    if cause == ANSWERED:
        load.heard_ns = load.now_ns
    if not call.is_measured:
        return
    load.last_end_ns = load.now_ns
    is_error = 1
    if cause == ANSWERED:
        load.counters.n_answered += 1
        load.counters.statuses[call.grpc_status] += 1
        hist_record(load.latency, latency_ns)
        hist_record(load.service, load.now_ns - call.sent_ns)
        load.second_counts[series_index(latency_ns)] += 1
        if latency_ns > load.second.max_ns:
            load.second.max_ns = latency_ns
        if call.grpc_status == 0:
            is_error = 0
            if call.is_checked:
                load.counters.n_checked += 1
                if not answer_is_right(call.message, call.body, call.n_body):
                    load.counters.n_wrong += 1
                    is_error = 1
                    keep_wrong(load, call)
    else:
        load.counters.causes[cause] += 1
    load.second.n_calls += 1
    load.second.n_errors += is_error


cdef void call_never_began(load_t* load, int64_t intended_ns, int32_t cause) noexcept nogil:
    # A call that was due and given up before there was a stream for it.
    load.next_index += 1
    if intended_ns < load.measure_ns:
        load.counters.n_warmup += 1
        return
    load.n_measured += 1
    load.counters.causes[cause] += 1
    load.last_end_ns = load.now_ns
    load.second.n_calls += 1
    load.second.n_errors += 1


cdef void call_release(load_t* load, call_t* call) noexcept nogil:
    # Its stream is gone: the slot can serve another call.
    call.connection = NULL
    call.next = load.free_slots
    load.free_slots = call
