"""The load generator: messages to any gRPC server, open or closed loop, answers checked.

    schedule = Schedule.poisson(20_000, seed=1).times_ns(10.0)
    result = Generator("127.0.0.1:50051", messages).run_open(schedule, warmup_s=1.0)
    print(result.latency.percentile(99), result.valid, result.invalid_reasons)

Rules: one Generator, one run at a time; every run has connections of its own. The run is a nogil
loop (`bench.driver`) in a thread of its own; the calling thread waits for it, hands out progress
and takes Ctrl-C. What cannot be asked for, and a server that is not there, is a LoadError;
a run that began ends in a LoadResult, valid or not.

How it works: messages are framed into one buffer, headers written once per method; the loop reads
both in place. Which message call i sends, and whether its answer is checked, depends on i and the
seed only.

What it does not do: TLS, streaming calls, compression.
"""

import os
import struct
import threading
from contextlib import suppress
from urllib.parse import unquote

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from bench._types cimport *
from bench.driver cimport load_close, load_connect, load_open, load_run
from bench.hdr cimport Histogram
from bench.tally cimport second_turn
from fastpath.c.linux cimport ATOMIC_RELAXED, atomic_load, atomic_store
from fastpath.c.nghttp2 cimport NGHTTP2_NV_FLAG_NO_COPY_NAME, NGHTTP2_NV_FLAG_NO_COPY_VALUE

from bench import address as addresses
from bench import arguments, verdict
from bench.check import find_raw_score
from bench.errors import LoadError, LoadInputError
from bench.message import Message
from bench.outcome import (
    CALL_CAUSES,
    CONNECTION_CAUSES,
    STATUSES,
    Limits,
    LoadResult,
    Progress,
    Second,
    WrongAnswer,
)
from bench.schedule import Schedule

__all__ = ["Generator", "Limits", "LoadResult", "Message", "Progress", "Schedule"]

# What the loops' enums are named.
assert (len(STATUSES), len(CALL_CAUSES)) == (N_STATUSES, N_CALL_CAUSES)
assert len(CONNECTION_CAUSES) == N_CONNECTION_CAUSES

MOST_SLOTS = 1_000_000
WAIT_S = 0.1
BUSY = "a run of this generator is under way; wait for it, or make another generator"


cdef class Generator:
    """Sends messages to one address and measures the answers.

    Parameters
    ----------
    address
        "host:port" or "unix:/path".
    messages : sequence of Message
        Sent in this order again and again, or drawn evenly.
    n_connections, n_streams
        Connections, and the most calls in flight on each.
    timeout_s
        The calls' deadline (grpc-timeout). Without an answer `slack_s` after it, a call is
        counted as timed out and its stream reset.
    order
        "cycle" or "random".
    seed
        Of the random order and of the sample of checked answers.
    check
        "none", "bytes" or "score" for all messages; None = what each message can stand.
    check_share
        Share of the answers that are checked.
    limits
        Beyond which a run is not valid.
    max_queue_s
        Open loop: how long a due call waits for a free stream before it is given up; None =
        `timeout_s`.
    give_up_s
        The run ends when nothing was answered for so long.
    connect_timeout_s
        How long to wait for the connections at the begin, and for each one later.
    spin_us
        Open loop: the loop polls this long before a call is due.
    poll_us
        The loop polls this long after the last event before it blocks. 0: it blocks at once.
    core
        CPU to run the generator's thread on; None = where the caller may run.
    """

    cdef load_t load
    cdef readonly str address
    cdef readonly tuple messages
    cdef object _checks
    cdef object _limits
    cdef object _kept            # what the load points into
    cdef object _lock
    cdef object _core
    cdef object _address
    cdef double _timeout_s
    cdef double _give_up_s
    cdef int32_t _n_connected

    def __cinit__(self):
        memset(&self.load, 0, sizeof(load_t))

    def __dealloc__(self):
        free(self.load.methods)
        free(self.load.messages)

    def __init__(
        self, address, messages, *, n_connections=8, n_streams=4, timeout_s=1.0, order="cycle",
        seed=0, check=None, check_share=1.0, limits=None, slack_s=0.2, max_queue_s=None,
        give_up_s=10.0, connect_timeout_s=5.0, spin_us=50.0, poll_us=0.0, core=None,
    ):
        cdef load_t* load = &self.load
        if load.messages != NULL:
            raise LoadInputError("a generator is made once; make another one")
        self._limits = Limits() if limits is None else limits
        self._lock = threading.Lock()
        self._core = core
        self.messages, self._checks = arguments.checked(messages, check)
        arguments.whole("n_connections", n_connections)
        arguments.whole("n_streams", n_streams)
        if n_connections * n_streams > MOST_SLOTS:
            raise LoadInputError(
                f"{n_connections} connections of {n_streams} streams; at most {MOST_SLOTS} calls "
                "can be in flight"
            )
        if order not in ("cycle", "random"):
            raise LoadInputError(f"order is {order!r}; it has to be cycle or random")
        if core is not None and core not in os.sched_getaffinity(0):
            raise LoadInputError(
                f"core {core} is not among {sorted(os.sched_getaffinity(0))}, where this process "
                "may run"
            )
        self._timeout_s = arguments.positive("timeout_s", timeout_s, 3600)
        self._give_up_s = arguments.positive("give_up_s", give_up_s, 86400)
        arguments.not_negative("check_share", check_share, 1)
        arguments.not_negative("slack_s", slack_s, 3600)
        waits_s = timeout_s if max_queue_s is None else max_queue_s
        load.n_connections = n_connections
        load.n_streams = n_streams
        load.timeout_ns = round((timeout_s + slack_s) * 1e9)
        arguments.not_negative("max_queue_s", waits_s, 86400)
        load.max_queue_ns = round(waits_s * 1e9)
        load.spin_ns = round(arguments.not_negative("spin_us", spin_us, 1e6) * 1e3)
        load.poll_ns = round(arguments.not_negative("poll_us", poll_us, 1e9) * 1e3)
        load.late_ns = round(self._limits.late_ms * 1e6)
        load.stall_ns = round(self._limits.max_stall_ms * 1e6)
        load.give_up_ns = round(self._give_up_s * 1e9)
        arguments.positive("connect_timeout_s", connect_timeout_s, 3600)
        load.connect_ns = round(connect_timeout_s * 1e9)
        load.seed = <uint64_t> (int(seed) & 0xFFFFFFFFFFFFFFFF)
        load.check_below = <uint64_t> round(check_share * 2.0**63)
        load.is_random = order == "random"
        self.address = address
        self._address = addresses.parse(address)
        self._write_address()
        self._write_messages()

    cdef _write_address(self):
        cdef bytes packed = self._address.sockaddr
        cdef const uint8_t* data = packed
        memcpy(self.load.address, data, len(packed))
        self.load.n_address = <unsigned int> len(packed)
        self.load.family = self._address.family

    cdef _write_messages(self):
        # One buffer of all framed messages; headers per method; both kept as long as this lives.
        cdef load_t* load = &self.load
        cdef bytes framed = b"".join([m.framed for m in self.messages])
        cdef const uint8_t* data = framed
        cdef const uint8_t* text
        cdef bytes part
        cdef message_t* message
        cdef Py_ssize_t i
        cdef Py_ssize_t j
        methods = {m.method: None for m in self.messages}
        numbers = {method: i for i, method in enumerate(methods)}
        headers = [arguments.headers(m, self._address.authority, self._timeout_s) for m in methods]
        self._kept = (framed, headers)
        load.methods = <method_t*> calloc(len(methods), sizeof(method_t))
        load.messages = <message_t*> calloc(len(self.messages), sizeof(message_t))
        if load.methods == NULL or load.messages == NULL:
            raise MemoryError
        load.n_messages = len(self.messages)
        for i, fields in enumerate(headers):
            load.methods[i].n_headers = N_HEADERS
            for j, (name, value) in enumerate(fields):
                part = name
                text = part
                load.methods[i].headers[j].name = <uint8_t*> text
                load.methods[i].headers[j].namelen = len(part)
                part = value
                text = part
                load.methods[i].headers[j].value = <uint8_t*> text
                load.methods[i].headers[j].valuelen = len(part)
                load.methods[i].headers[j].flags = (
                    NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE
                )
        for i, asked in enumerate(self.messages):
            message = &load.messages[i]
            message.method = numbers[asked.method]
            message.check = self._checks[i]
            message.framed = data
            message.n_framed = len(asked.body) + 5
            data += message.n_framed
            if asked.expected is not None:
                part = asked.expected  # a reference to it is kept in self.messages
                message.expected = part
                message.n_expected = len(part)
            if asked.expected_raw is not None:
                message.expected_raw = struct.unpack("<I", struct.pack("<f", asked.expected_raw))[0]

    def run_open(self, times_ns, *, warmup_s=0.0, on_progress=None):
        """Send a call at each of the given times, whatever the server does.

        Parameters
        ----------
        times_ns : int64 (n,), ascending
            Intended send times, ns from the start: `Schedule.times_ns(duration_s)`.
        warmup_s
            Calls intended before this are sent but not counted.
        on_progress : callable, optional
            Called some ten times a second with a Progress, in the calling thread.

        Raises
        ------
        LoadError
            No connection can be made, or an argument cannot be used.
        """
        cdef const int64_t[::1] times
        given = arguments.times(times_ns)
        arguments.not_negative("warmup_s", warmup_s, 86400)
        times = given
        with self._alone():
            self.load.is_open = 1
            self.load.times_ns = &times[0]
            self.load.n_times = given.size
            self.load.n_limit = -1
            self.load.duration_ns = 0
            self.load.warmup_ns = round(warmup_s * 1e9)
            n_scheduled = int(given.size - np.searchsorted(given, self.load.warmup_ns))
            return self._run("open", n_scheduled, on_progress)

    def run_closed(self, *, duration_s=None, n_calls=None, warmup_s=0.0, on_progress=None):
        """Keep every stream of every connection busy: the next call follows the answer.

        Latencies of a closed loop say little about a loaded server: a slow answer delays the calls
        that would have seen it. It is for throughput, and for one call in flight.

        Parameters
        ----------
        duration_s, n_calls
            One of them: how long, or how many calls, after the warm-up.
        warmup_s, on_progress
            As for `run_open`.

        Raises
        ------
        LoadError
            No connection can be made, or an argument cannot be used.
        """
        if (duration_s is None) == (n_calls is None):
            raise LoadInputError("give either duration_s or n_calls")
        if duration_s is not None:
            arguments.positive("duration_s", duration_s, 7 * 86400)
        else:
            arguments.whole("n_calls", n_calls)
        arguments.not_negative("warmup_s", warmup_s, 86400)
        with self._alone():
            self.load.is_open = 0
            self.load.times_ns = NULL
            self.load.n_times = 0
            self.load.n_limit = -1 if n_calls is None else n_calls
            self.load.duration_ns = 0 if duration_s is None else round(duration_s * 1e9)
            self.load.warmup_ns = round(warmup_s * 1e9)
            return self._run("closed", n_calls, on_progress)

    def _alone(self):
        if self._lock.locked():
            raise LoadError(BUSY)
        return self._lock

    def _run(self, mode, n_scheduled, on_progress):
        cdef Histogram latency = Histogram()
        cdef Histogram service = Histogram()
        cdef Histogram lag = Histogram()
        cdef load_t* load = &self.load
        load.latency = &latency.hist
        load.service = &service.hist
        load.lag = &lag.hist
        self._reset()
        try:
            if load_open(load) != 0:
                raise LoadError(
                    "the load cannot be prepared: "
                    f"{os.strerror(load.last_errno) if load.last_errno else 'out of memory'}"
                )
            self._in_thread(self._connect, None)
            if load.n_open == 0 and not atomic_load(&load.stop, ATOMIC_RELAXED):
                raise LoadError(self._not_there())
            self._n_connected = load.n_open
            self._in_thread(self._drive, on_progress)
            if mode == "closed":
                n_scheduled = load.n_measured
            return self._result(mode, n_scheduled, latency, service, lag)
        finally:
            load_close(load)

    cdef _reset(self):
        # Everything of an earlier run.
        cdef load_t* load = &self.load
        memset(&load.counters, 0, sizeof(counters_t))
        memset(&load.second, 0, sizeof(second_t))
        memset(load.second_counts, 0, sizeof(load.second_counts))
        load.free_slots = load.oldest = load.newest = NULL
        load.dirty = NULL
        load.stop = load.armed_ns = load.next_index = load.n_measured = load.tick_ns = 0
        load.active_ns = load.woke_ns = load.idle_ns = load.was_busy = 0
        load.cpu_start_ns = load.cpu_end_ns = 0
        load.n_free = load.n_open = load.n_in_flight = load.is_running = load.is_measuring = 0
        load.next_connection = load.ended = load.is_over = load.last_errno = 0
        load.n_seconds = load.clock_jump_ns = load.n_stalls = load.longest_stall_ns = 0
        load.first_error = load.n_first_text = 0
        load.n_wrong_body = 0
        load.wrong_index = -1
        load.fewest_streams = load.n_streams

    def _connect(self):
        with nogil:
            load_connect(&self.load)

    def _drive(self):
        with nogil:
            load_run(&self.load)

    def _in_thread(self, work, on_progress):
        # The loop in a thread of its own, so that this one can take Ctrl-C. It is waited for by
        # an event: an interrupted Thread.join may take a running thread for ended.
        ended = threading.Event()

        def pinned():
            try:
                if self._core is not None:
                    os.sched_setaffinity(0, {self._core})
                work()
            finally:
                ended.set()

        threading.Thread(target=pinned, name="bench-load", daemon=True).start()
        try:
            while not ended.wait(WAIT_S):
                if on_progress is not None:
                    on_progress(self._progress())
        finally:
            # Nothing may be freed under the loop, however often somebody presses Ctrl-C.
            while not ended.is_set():
                atomic_store(&self.load.stop, 1, ATOMIC_RELAXED)
                with suppress(KeyboardInterrupt):
                    ended.wait(WAIT_S)

    def _progress(self):
        # Read while the loop writes: each number is whole, together they may be a call apart.
        cdef load_t* load = &self.load
        cdef int64_t n_errors = load.counters.n_answered - load.counters.statuses[0]
        cdef int64_t n = load.n_seconds
        cdef int32_t i
        for i in range(N_CALL_CAUSES):
            n_errors += load.counters.causes[i]
        return Progress(
            (load.now_ns - load.measure_ns) / 1e9,
            load.counters.n_sent,
            load.counters.n_answered,
            n_errors,
            self._second(n - 1) if n > 0 else None,
        )

    def _second(self, i):
        cdef second_t* row = &self.load.seconds[<int64_t> i]
        return Second(
            i, row.n_calls, row.n_errors, row.p50_ns / 1e3, row.p99_ns / 1e3, row.max_ns / 1e3
        )

    def _not_there(self):
        # Why no connection could be made.
        cdef int32_t lost = self.load.connections[0].last_lost
        if lost == LOST_GARBAGE:
            return (
                f"{self.address} does not speak HTTP/2 in the clear; is it the gRPC port, and "
                "without TLS?"
            )
        if lost in (LOST_CLOSED, LOST_RESET, LOST_AFTER_GOAWAY):
            return f"{self.address} closes every connection at once; is it the gRPC port?"
        why = os.strerror(self.load.last_errno) if self.load.last_errno else "no answer in time"
        return f"cannot connect to {self.address}: {why}; is the server running, and there?"

    def _wrong(self):
        cdef load_t* load = &self.load
        cdef int64_t i = load.wrong_index
        if i < 0:
            return None
        message = self.messages[i]
        got = load.wrong_body[:load.n_wrong_body] if load.wrong_body != NULL else b""
        if load.messages[i].check == CHECK_SCORE:
            bits = find_raw_score(got)
            expected = struct.unpack("<f", struct.pack("<I", load.messages[i].expected_raw))[0]
            found = (
                f"no protobuf message: {_shown(got)}" if bits is None
                else repr(struct.unpack("<f", struct.pack("<I", bits))[0])
            )
            return WrongAnswer(i, message.method, "raw score", repr(expected), found)
        return WrongAnswer(i, message.method, "bytes", _shown(message.expected), _shown(got))

    def _result(self, mode, n_scheduled, latency, service, lag):
        cdef load_t* load = &self.load
        cdef counters_t* counters = &load.counters
        seconds = max((load.last_end_ns - load.measure_ns) / 1e9, 1e-9)
        series = [self._second(i) for i in range(load.n_seconds)]
        if load.second.n_calls:
            # The second that was running when the last call ended: close it as any other.
            load.now_ns = load.measure_ns + (load.n_seconds + 1) * 1_000_000_000
            load.is_measuring = 1
            second_turn(load)
            series.append(self._second(load.n_seconds - 1))
        first_error = ""
        if load.first_error:
            name = STATUSES[load.first_error] if load.first_error < N_STATUSES else "status"
            text = unquote(load.first_text[:load.n_first_text].decode("ascii", "replace"))
            first_error = f"{name}: {text}" if text else name
        found = {
            "mode": mode,
            "n_scheduled": n_scheduled,
            "n_sent": counters.n_sent,
            "n_answered": counters.n_answered,
            "n_warmup": counters.n_warmup,
            "n_queued": counters.n_queued,
            "n_late": counters.n_late,
            "seconds": seconds,
            "calls_per_s": (counters.statuses[0] - counters.n_wrong) / seconds,
            "latency": latency,
            "service_time": service,
            "lag": lag,
            "status_counts": _named(STATUSES, [counters.statuses[i] for i in range(N_STATUSES)]),
            "transport_errors": _named(
                CALL_CAUSES, [counters.causes[i] for i in range(N_CALL_CAUSES)]
            ),
            "connection_errors": _named(
                CONNECTION_CAUSES, [counters.lost[i] for i in range(N_CONNECTION_CAUSES)]
            ),
            "n_reconnects": counters.n_reconnects,
            "first_error": first_error,
            "n_checked": counters.n_checked,
            "n_wrong": counters.n_wrong,
            "first_wrong": self._wrong(),
            "series": series,
            "generator_cpu_s": (load.cpu_end_ns - load.cpu_start_ns) / 1e9,
            "generator_busy_share": min(1.0, max(0.0, 1 - load.idle_ns / 1e9 / seconds)),
            "clock_jump_ns": load.clock_jump_ns,
            "longest_stall_ns": load.longest_stall_ns,
            "n_stalls": load.n_stalls,
        }
        reasons = verdict.reasons(
            found,
            self._limits,
            ended=("done", "stopped", "silent")[load.ended],
            give_up_s=self._give_up_s,
            n_connected=self._n_connected,
            n_connections=load.n_connections,
            granted_streams=load.fewest_streams,
            n_streams=load.n_streams,
        )
        return LoadResult(**found, valid=not reasons, invalid_reasons=reasons)


def _named(names, counts):
    return {name: n for name, n in zip(names, counts, strict=True) if n}


def _shown(data):
    text = data[:48].hex() if data else "nothing"
    return f"{text}... ({len(data)} bytes)" if len(data) > 48 else text
