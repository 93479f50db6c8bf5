"""Replays transactions through the fast door at a steady rate, in a process of its own.

Open loop: call i is due at start + i / rate, whether or not earlier answers came, and its latency
counts from when it was due. A server that stalls therefore shows the stall in every call that
waited for it, and so does a client that cannot hold the rate. An ordinary grpcio client: about
0.2 ms of the latency is its own.

A process of its own, because drawing the summary would hold this one's GIL for milliseconds. Its
standard output is one JSON object a line: the whole state, twice a second, the last one with
"final". SIGTERM ends it: calls in flight are waited for, exit code 0.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from server.demo.histogram import LatencyHistogram
from server.demo.traffic import Rows, Traffic
from server.pb.scoregate.v1 import scoring_pb2 as pb

SCORE = "/scoregate.v1.Scoring/Score"
GET_MODEL = "/scoregate.v1.Scoring/GetModel"
DEADLINE_S = 2.0
SNAPSHOT_S = 0.5
WARM_UP_CALLS = 20
MAX_IN_FLIGHT = 1_000  # beyond, calls are sent late, and their latency says so
KINDS = {pb.FEATURE_TYPE_NUMERIC: "numeric", pb.FEATURE_TYPE_BOOLEAN: "boolean"}


class Tally:
    """What came of the calls. Written by grpc's thread, read by ours, under one lock."""

    def __init__(self, default_decision: str) -> None:
        self.lock = threading.Lock()
        self._default = default_decision
        self._counts: Counter[str] = Counter()
        self._decisions: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._first_error = ""
        self._total = LatencyHistogram()
        self._recent = LatencyHistogram()
        self._recent_since = time.monotonic()

    def answered(self, answer: pb.ScoreResponse, *, fraud: bool, latency_us: float) -> None:
        """Count one answer."""
        flagged = answer.decision != self._default
        counts = self._counts
        with self.lock:
            self._recent.add(latency_us)
            self._decisions[answer.decision] += 1
            counts["answered"] += 1
            counts["fraud"] += fraud
            counts["caught"] += fraud and flagged
            counts["false_alarms"] += flagged and not fraud
            defaulted = answer.source_counts.default_value
            counts["fallback_calls"] += defaulted > 0
            counts["fallback_values"] += defaulted
            counts["degraded"] += answer.degraded

    def failed(self, status: str, details: str, *, latency_us: float) -> None:
        """Count one call that got an error."""
        with self.lock:
            self._recent.add(latency_us)
            self._errors[status] += 1
            self._first_error = self._first_error or f"{status}: {details}"

    def snapshot(self) -> dict[str, Any]:
        """Return everything so far; what is "recent" begins anew."""
        with self.lock:
            now = time.monotonic()
            recent, since = self._recent, self._recent_since
            self._total.merge(recent)
            self._recent, self._recent_since = LatencyHistogram(), now
            return {
                **self._counts,
                "decisions": dict(self._decisions),
                "errors": dict(self._errors),
                "first_error": self._first_error,
                "recent_calls_per_s": recent.n / max(now - since, 1e-9),
                "recent_us": _quantiles(recent),
                "latency_us": _quantiles(self._total),
            }


def _quantiles(histogram: LatencyHistogram) -> dict[str, float]:
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    found = {name: histogram.quantile_us(share) for name, share in shares.items()}
    return found | {"max": histogram.max_us}


def replay(address: str, rows: Rows, *, rate: float, stop: threading.Event) -> None:
    """Send the rows over and over until told to stop; print snapshots.

    Parameters
    ----------
    address : str
        The fast door, host:port.
    rows : Rows
        What to send, in order.
    rate : float
        Calls a second.
    stop : threading.Event
        Ends it.
    """
    with grpc.insecure_channel(address) as channel:
        get_model = channel.unary_unary(
            GET_MODEL,
            request_serializer=pb.GetModelRequest.SerializeToString,
            response_deserializer=pb.GetModelResponse.FromString,
        )
        model = get_model(pb.GetModelRequest(), timeout=10.0, wait_for_ready=True)
        arm = model.arms[0]
        columns = [(feature.name, KINDS[feature.type]) for feature in arm.features]
        traffic = Traffic(rows, columns, arm.layout)
        # The client's first calls pay for its threads: let it be others than the ones measured.
        for call in [get_model.future(pb.GetModelRequest()) for _ in range(WARM_UP_CALLS)]:
            call.result(timeout=10.0)
        score: grpc.UnaryUnaryMultiCallable[bytes, pb.ScoreResponse] = channel.unary_unary(
            SCORE, response_deserializer=pb.ScoreResponse.FromString
        )
        _send(score, traffic, Tally(arm.default_decision), rate, stop)


def _send(
    score: grpc.UnaryUnaryMultiCallable[bytes, pb.ScoreResponse],
    traffic: Traffic,
    tally: Tally,
    rate: float,
    stop: threading.Event,
) -> None:
    """Pace the calls; answers are counted on grpc's own thread."""
    slots = threading.Semaphore(MAX_IN_FLIGHT)
    fraud = traffic.rows.fraud.tolist()

    def done(call: Any, row: int, due: float) -> None:
        latency_us = (time.monotonic() - due) * 1e6
        if call.code() is grpc.StatusCode.OK:
            tally.answered(call.result(), fraud=fraud[row], latency_us=latency_us)
        else:
            tally.failed(call.code().name, call.details() or "", latency_us=latency_us)
        slots.release()

    start = time.monotonic()
    next_snapshot = start + SNAPSHOT_S
    sent = named = incomplete = 0

    def report(**more: object) -> None:
        state = tally.snapshot()
        state |= {"elapsed_s": time.monotonic() - start, "sent": sent, "turn": turn + 1}
        state |= {"named": named, "incomplete": incomplete, "behind_s": max(0.0, behind), **more}
        print(json.dumps(state), flush=True)  # noqa: T201 - the pipe to the demo

    turn, behind = 0, 0.0
    while not stop.is_set():
        turn, row = divmod(sent, traffic.n_rows)
        request = traffic.request(row, turn)
        due = start + sent / rate
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        behind = -wait
        slots.acquire()
        call = score.future(request, timeout=DEADLINE_S)
        call.add_done_callback(partial(done, row=row, due=due))
        sent += 1
        named += int(traffic.is_named[row])
        incomplete += int(traffic.is_incomplete[row])
        if due >= next_snapshot:
            report()
            next_snapshot = time.monotonic() + SNAPSHOT_S
    for _ in range(MAX_IN_FLIGHT):  # every slot back: every call answered or timed out
        slots.acquire(timeout=DEADLINE_S + 1)
    report(final=True)


def main() -> None:
    """Run as `python -m server.demo.replay`."""
    parser = argparse.ArgumentParser(description="Replay transactions (used by scoregate demo).")
    parser.add_argument("--address", required=True)
    parser.add_argument("--rows", required=True, type=Path)
    parser.add_argument("--rate", required=True, type=float)
    given = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        replay(given.address, Rows.load(given.rows), rate=given.rate, stop=stop)
    except grpc.RpcError as error:
        sys.exit(f"the fast door at {given.address} did not answer GetModel: {error}")
    except BrokenPipeError:
        sys.exit(1)  # the demo is gone; nobody reads


if __name__ == "__main__":
    main()
