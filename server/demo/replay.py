"""Replays transactions through the fast door at a steady rate, in a process of its own.

Open loop: call i is due at start + i / rate, whether or not earlier answers came, and its latency
counts from when it was due. A server that stalls therefore shows the stall in every call that
waited for it, and so does a client that cannot hold the rate. An ordinary grpcio client: about
0.2 ms of the latency is its own. Where a store holds features, `pipeline` writes them before the
calls that need them; while a call has to wait for that, the schedule waits too. What becomes of
the transactions is reported late (`learning`). In a demo of drift requests have a fault from a
given moment on, and what the server makes of it is told too.

A process of its own, because drawing the summary would hold this one's GIL for milliseconds. Its
standard output is one JSON object a line: the whole state, twice a second, the last one with
"final". SIGTERM ends it: calls in flight are waited for, exit code 0.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from server.demo.drift_state import DriftProbe
from server.demo.faults import KINDS as FAULT_KINDS
from server.demo.faults import FaultKind
from server.demo.learning import Learning
from server.demo.pipeline import Pipeline
from server.demo.stores import open_targets
from server.demo.tally import Tally
from server.demo.traffic import INCOMPLETE_SHARE, Rows, Traffic
from server.errors import ScoregateError
from server.features import Group
from server.pb.scoregate.v1 import control_pb2
from server.pb.scoregate.v1 import scoring_pb2 as pb

SCORE = "/scoregate.v1.Scoring/Score"
GET_MODEL = "/scoregate.v1.Scoring/GetModel"
GET_STATUS = "/scoregate.v1.Control/GetStatus"
GET_DRIFT = "/scoregate.v1.Control/GetDrift"
DEADLINE_S = 2.0
SNAPSHOT_S = 0.5
STATUS_TIMEOUT_S = 0.4
CONNECT_S = 3.0
AHEAD_S = 0.1
WARM_UP_CALLS = 20
MAX_IN_FLIGHT = 1_000  # beyond, calls are sent late, and their latency says so
KINDS = {pb.FEATURE_TYPE_NUMERIC: "numeric", pb.FEATURE_TYPE_BOOLEAN: "boolean"}
STATES = {
    control_pb2.STORE_STATE_OK: "ok",
    control_pb2.STORE_STATE_DEGRADED: "degraded",
    control_pb2.STORE_STATE_UNAVAILABLE: "unavailable",
}


@dataclass(frozen=True)
class Injection:
    """A fault, and the second of the replay that it begins at."""

    kind: FaultKind
    after_s: float

    def first_call(self, rate: float) -> int:
        """Return the first call that has it."""
        return math.ceil(self.after_s * rate)


class Replay:
    """Sends the rows over and over until told to stop, and tells how it goes.

    Parameters
    ----------
    score : callable
        The fast door's Score.
    traffic : Traffic
    tally : Tally
    rate : float
        Calls a second.
    pipeline : Pipeline or None
        Writes the features of the calls; None: they hold all features themselves.
    status : callable
        Returns the states of the server's stores, as `store_states`.
    learning : Learning
        Is told of every answer.
    drift : callable or None
        Returns what is to be told of drift at a second of the replay; None: nothing.
    """

    def __init__(
        self,
        score: grpc.UnaryUnaryMultiCallable[bytes, pb.ScoreResponse],
        traffic: Traffic,
        tally: Tally,
        rate: float,
        pipeline: Pipeline | None,
        status: Callable[[], list[dict[str, str]]],
        learning: Learning,
        drift: Callable[[float], dict[str, Any]] | None = None,
    ) -> None:
        self._score = score
        self._traffic = traffic
        self._tally = tally
        self._rate = rate
        self._pipeline = pipeline
        self._status = status
        self._learning = learning
        self._drift = drift
        self._slots = threading.Semaphore(MAX_IN_FLIGHT)
        self._start = time.monotonic()
        self._sent = self._named = self._incomplete = 0
        self._behind = 0.0

    def run(self, stop: threading.Event) -> None:
        """Send until `stop`; return when every call is answered."""
        self._start = time.monotonic()
        done = threading.Event()
        teller = threading.Thread(target=self._tell, args=(done,), name="teller")
        teller.start()
        try:
            while not stop.is_set() and teller.is_alive():
                self._send()
            for _ in range(MAX_IN_FLIGHT):  # every slot back: every call answered or timed out
                self._slots.acquire(timeout=DEADLINE_S + 1)
            if self._pipeline is not None:
                self._pipeline.settle()  # so that the last state is one of rest
        finally:
            done.set()
            teller.join()

    def _send(self) -> None:
        """Send the next call when it is due."""
        call, traffic = self._sent, self._traffic
        turn, row = divmod(call, traffic.n_rows)
        request = traffic.request(row, turn)
        due = self._start + call / self._rate
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._behind = max(0.0, -wait)
        self._slots.acquire()
        if self._pipeline is not None and (waited_s := self._pipeline.wait(call)):
            self._start += waited_s
            due += waited_s
        answer = self._score.future(request, timeout=DEADLINE_S)
        answer.add_done_callback(partial(self._done, call=call, row=row, due=due))
        self._sent += 1
        self._named += int(traffic.is_named[row])
        self._incomplete += int(traffic.is_incomplete[row])

    def _done(self, answer: Any, call: int, row: int, due: float) -> None:
        """Count an answer, on grpc's own thread."""
        latency_us = (time.monotonic() - due) * 1e6
        if self._pipeline is not None:
            self._pipeline.answered(call)
        if answer.code() is grpc.StatusCode.OK:
            self._tally.answered(
                row,
                answer.result(),
                latency_us=latency_us,
                is_faulty=self._traffic.is_faulty(call),
            )
            self._learning.decided(row, answer.result())
        else:
            details = answer.details() or ""
            self._tally.failed(answer.code().name, details, latency_us=latency_us)
        self._slots.release()

    def _tell(self, done: threading.Event) -> None:
        """Print snapshots; end when nobody reads them."""
        try:
            while not done.wait(SNAPSHOT_S):
                self._print()
            self._print(final=True)
        except BrokenPipeError:
            pass

    def _print(self, **more: object) -> None:
        sent = self._sent
        state = self._tally.snapshot()
        elapsed_s = time.monotonic() - self._start
        state |= {"elapsed_s": elapsed_s, "sent": sent}
        state |= {"turn": max(0, sent - 1) // self._traffic.n_rows + 1}
        state |= {"named": self._named, "incomplete": self._incomplete, "behind_s": self._behind}
        state |= self._learning.state()
        if self._pipeline is not None:
            state |= {"pipeline": self._pipeline.state(), "stores": self._status()}
        if self._drift is not None:
            is_begun = self._traffic.is_faulty(sent - 1)
            state |= {"drift": self._drift(elapsed_s) | {"is_begun": is_begun}}
        print(json.dumps(state | more), flush=True)  # noqa: T201 - the pipe to the demo


def store_states(
    get_status: Callable[..., control_pb2.GetStatusResponse],
) -> list[dict[str, str]]:
    """Return what the server says of every table of features; nothing where it does not answer."""
    try:
        status = get_status(control_pb2.GetStatusRequest(), timeout=STATUS_TIMEOUT_S)
    except grpc.RpcError:
        return []
    return [
        {
            "table": store.table,
            "kind": store.kind,
            "group": store.group,
            "state": STATES.get(store.state, "unknown"),
            "detail": store.detail,
        }
        for store in status.stores
    ]


def _await_stores(status: Callable[[], list[dict[str, str]]]) -> None:
    """Wait a little for the server's connections: it is ready without them."""
    limit = time.monotonic() + CONNECT_S
    while time.monotonic() < limit:
        stores = status()
        if stores and all(store["state"] == "ok" for store in stores):
            return
        time.sleep(0.02)


def replay(
    fast: str,
    control: str,
    rows: Rows,
    *,
    rate: float,
    store: str,
    stop: threading.Event,
    injection: Injection | None = None,
    explore: float | None = None,
) -> None:
    """Send the rows over and over until told to stop; print snapshots.

    Parameters
    ----------
    fast, control : str
        The ports, host:port.
    rows : Rows
        What to send, in order.
    rate : float
        Calls a second.
    store : str
        Where the features are written to; empty: every request holds all of them.
    stop : threading.Event
        Ends it.
    injection : Injection or None
        Of a demo of drift. Its time goes on when the rows begin anew, as a stream's would.
    explore : float or None
        Of a demo of exploring, as `Learning` takes it.
    """
    period_ms = 0 if injection is None else rows.period_ms
    with ExitStack() as open_:
        channel = open_.enter_context(grpc.insecure_channel(fast))
        get_model = channel.unary_unary(
            GET_MODEL,
            request_serializer=pb.GetModelRequest.SerializeToString,
            response_deserializer=pb.GetModelResponse.FromString,
        )
        model = get_model(pb.GetModelRequest(), timeout=10.0, wait_for_ready=True)
        arm = model.arms[0]
        faulty: dict[str, Any] = {"period_ms": period_ms}
        if injection is not None:
            faulty |= {"fault": injection.kind, "first_faulty": injection.first_call(rate)}
        traffic = _make_traffic(rows, model, stored=bool(store), **faulty)
        pipeline = None
        if store:
            groups = [_group(group) for group in arm.groups]
            targets = open_.enter_context(open_targets(store, groups))
            ahead = max(2, round(rate * AHEAD_S))
            pipeline = Pipeline(rows, targets, ahead=ahead, period_ms=period_ms)
            open_.enter_context(pipeline)
        # The client's first calls pay for its threads: let it be others than the ones measured.
        for call in [get_model.future(pb.GetModelRequest()) for _ in range(WARM_UP_CALLS)]:
            call.result(timeout=10.0)
        score: grpc.UnaryUnaryMultiCallable[bytes, pb.ScoreResponse] = channel.unary_unary(
            SCORE, response_deserializer=pb.ScoreResponse.FromString
        )
        control_channel = open_.enter_context(grpc.insecure_channel(control))
        get_status = control_channel.unary_unary(
            GET_STATUS,
            request_serializer=control_pb2.GetStatusRequest.SerializeToString,
            response_deserializer=control_pb2.GetStatusResponse.FromString,
        )
        status = partial(store_states, get_status)
        if store:
            _await_stores(status)
        tally = Tally(rows, arm.default_decision)
        drift = None if injection is None else _watch_drift(control_channel, injection)
        learning = open_.enter_context(Learning(control_channel, rows, get_model, explore))
        Replay(score, traffic, tally, rate, pipeline, status, learning, drift).run(stop)


def _watch_drift(channel: grpc.Channel, injection: Injection) -> Callable[[float], dict[str, Any]]:
    """Return what tells of drift, beside what is injected."""
    get_drift = channel.unary_unary(
        GET_DRIFT,
        request_serializer=control_pb2.GetDriftRequest.SerializeToString,
        response_deserializer=control_pb2.GetDriftResponse.FromString,
    )
    probe = DriftProbe(get_drift)
    injected = {"kind": injection.kind, "after_s": injection.after_s}
    return lambda at_s: probe.look(at_s) | injected


def _make_traffic(
    rows: Rows, model: pb.GetModelResponse, *, stored: bool, **faulty: Any
) -> Traffic:
    """Choose the layout: all features, or those that only the caller knows."""
    features = model.arms[0].features
    if not stored:
        columns = [(feature.name, KINDS[feature.type]) for feature in features]
        layout = model.arms[0].layout
        return Traffic(rows, columns, layout, incomplete_share=INCOMPLETE_SHARE, **faulty)
    own = [feature.name for feature in features if feature.source == "request"]
    request_layout = next(
        layout for layout in model.layouts if [column.name for column in layout.columns] == own
    )
    columns = [(column.name, KINDS[column.type]) for column in request_layout.columns]
    return Traffic(rows, columns, request_layout.fingerprint, incomplete_share=0.0, **faulty)


def _group(described: pb.GroupDescription) -> Group:
    columns = tuple((column.name, KINDS[column.type]) for column in described.columns)
    return Group(name=described.name, entity=described.entity, columns=columns)


def main() -> None:
    """Run as `python -m server.demo.replay`."""
    parser = argparse.ArgumentParser(description="Replay transactions (used by scoregate demo).")
    parser.add_argument("--fast", required=True)
    parser.add_argument("--control", required=True)
    parser.add_argument("--rows", required=True, type=Path)
    parser.add_argument("--rate", required=True, type=float)
    parser.add_argument("--store", default="")
    parser.add_argument("--drift", choices=FAULT_KINDS)
    parser.add_argument("--drift-after", type=float, default=0.0)
    parser.add_argument("--explore", type=float)
    given = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    rows = Rows.load(given.rows)
    injection = Injection(given.drift, given.drift_after) if given.drift else None
    try:
        replay(
            given.fast,
            given.control,
            rows,
            rate=given.rate,
            store=given.store,
            stop=stop,
            injection=injection,
            explore=given.explore,
        )
    except grpc.RpcError as error:
        sys.exit(f"the fast door at {given.fast} did not answer GetModel: {error}")
    except ScoregateError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
