"""Rollbacks under load: until when answers of the plan that was taken back arrive.

Beside the load a few connections keep calls in flight; of each of their answers is known when the
kernel received it, and which generation and version it names. A rollback flips all the traffic
between two versions that are in memory. It is judged by the last answer of the plan before it:
how long after the call was sent, and whether before the call's own answer.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.message import Message as ProtobufMessage

from bench.errors import LoadError
from bench.generator import Limits
from bench.message import Message
from bench.model import MODEL_NAME
from bench.probe import Answer, Connection, Prober
from bench.rollout_loads import OPEN_SHAPE, WARMUP_S, Loads, serving
from bench.rollout_models import Versions
from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import scoring_pb2

EVERY_S = 0.25
NICENESS = 10  # of the probing thread: the load generator goes first
N_PROBES = 64  # different requests
# The probes are on the generator's core, and the load's own latency is not judged here.
BESIDE_PROBES = Limits(max_lag_p99_ms=1e3, max_late_share=1.0, max_stall_ms=1e3, max_busy_share=1.0)
METHODS = "/scoregate.v1.Control/"


@dataclass(frozen=True)
class Call:
    """One rollback, by the wall clock."""

    sent_ns: int
    returned_ns: int
    before: int  # generations
    after: int


@dataclass
class Backs:
    """What the rollbacks found."""

    last_old_ms: list[float] = field(default_factory=list)  # from the call to the old plan's last
    call_ms: list[float] = field(default_factory=list)
    n_late: int = 0  # answers of the old plan after the call's return
    n_wrong: int = 0  # answers whose version or score is not their generation's
    n_probes: int = 0


def judge(
    calls: Sequence[Call],
    answers: Sequence[tuple[Answer, int]],
) -> tuple[list[float], int]:
    """Return each rollback's last old answer, in ms after its call, and how many came too late.

    Parameters
    ----------
    calls
        In order.
    answers
        With the generation that each names.

    Raises
    ------
    LoadError
        A rollback had no answers of its old plan before it, or none of its new one after it.
    """
    arrived = np.array([answer.arrived_ns for answer, _ in answers], dtype=np.int64)
    named = np.array([generation for _, generation in answers], dtype=np.int64)
    last_ms, n_late = [], 0
    for call in calls:
        old = arrived[named == call.before]
        if not len(old) or not (named == call.after).any():
            raise LoadError(f"no probe was answered by generation {call.before} or {call.after}")
        last_ms.append(max(0, int(old.max()) - call.sent_ns) / 1e6)
        n_late += int(((named < call.after) & (arrived > call.returned_ns)).sum())
    return last_ms, n_late


def measure(loads: Loads, versions: Versions, messages: list[Message]) -> Backs:
    """Make a load, and rollbacks beside it; the load is called "rollbacks".

    Raises
    ------
    BenchError
        The server does not start, or a change was refused.
    """
    with (
        serving("rolled_back", versions.repository) as served,
        Connection(served.control) as operator,
        Prober(served.target.address, messages[:N_PROBES]) as prober,
    ):
        change(operator, "Deploy", pb.DeployRequest(version="1", traffic_basis_points=0))
        done, _ = change(operator, "Promote", pb.PromoteRequest(arm="1"))
        plans = [done.before.generation, done.after.generation]
        offered = loads.half_of_capacity(served.target, messages)
        calls: list[Call] = []
        states: dict[int, pb.PlanDescription] = {}
        seconds = (loads.plan.n_rollbacks + 1) * EVERY_S

        def operate() -> None:
            time.sleep(WARMUP_S)
            for i in range(loads.plan.n_rollbacks):
                time.sleep(EVERY_S)
                calls.append(_roll_back(operator, plans[i % 2], states))
            time.sleep(EVERY_S)

        with _probing(prober) as answers, _beside(operate):
            loads.one(
                "rollbacks", served.target, messages, offered, 0, shape=OPEN_SHAPE,
                duration_s=seconds, limits=BESIDE_PROBES, attempts=1,
            )  # fmt: skip
    read = [(answer, _read(answer)) for answer in answers]
    last_ms, n_late = judge(calls, [(answer, found.plan_generation) for answer, found in read])
    scores = _expected_scores(versions, messages[:N_PROBES])
    return Backs(
        last_old_ms=last_ms,
        call_ms=[(call.returned_ns - call.sent_ns) / 1e6 for call in calls],
        n_late=n_late,
        n_wrong=sum(not _fits(found, states, scores) for _, found in read),
        n_probes=len(read),
    )


def change(
    operator: Connection, verb: str, request: ProtobufMessage
) -> tuple[pb.ChangeResponse, Answer]:
    """Make a change at the control port.

    Raises
    ------
    LoadError
        It was refused.
    """
    answer = operator.call(METHODS + verb, request.SerializeToString())
    if answer.status != 0:
        raise LoadError(f"{verb} was refused: {answer.text}")
    return pb.ChangeResponse.FromString(answer.body), answer


def _roll_back(
    operator: Connection, generation: int, states: dict[int, pb.PlanDescription]
) -> Call:
    done, answer = change(operator, "Rollback", pb.RollbackRequest(generation=generation))
    for state in (done.before, done.after):
        states[state.generation] = state
    return Call(answer.sent_ns, answer.arrived_ns, done.before.generation, done.after.generation)


@contextmanager
def _beside(work: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread until it ends; an error is raised here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again, where it is heard
            errors.append(error)

    thread = threading.Thread(target=run, name="bench-beside")
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise LoadError(f"beside the load: {errors[0]}") from errors[0]


@contextmanager
def _probing(prober: Prober) -> Iterator[list[Answer]]:
    """Probe until the block ends; then the list is filled."""
    done = threading.Event()
    answers: list[Answer] = []

    def run() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        answers.extend(prober.run(lambda: not done.is_set()))

    with _beside(run):
        try:
            yield answers
        finally:
            done.set()


def _read(answer: Answer) -> scoring_pb2.ScoreResponse:
    if answer.status != 0:
        raise LoadError(f"a probe was answered with status {answer.status}: {answer.text}")
    return scoring_pb2.ScoreResponse.FromString(answer.body)


def _expected_scores(versions: Versions, messages: list[Message]) -> dict[tuple[str, str], bytes]:
    """Return the raw score's bits, by request id and version."""
    requests = [scoring_pb2.ScoreRequest.FromString(message.body) for message in messages]
    rows = np.array([request.dense.values for request in requests], dtype=np.float32)
    return {
        (request.request_id, version): struct.pack("<f", float(score))
        for version, scores in versions.raw_scores(rows).items()
        for request, score in zip(requests, scores, strict=True)
    }


def _fits(
    found: scoring_pb2.ScoreResponse,
    states: dict[int, pb.PlanDescription],
    scores: dict[tuple[str, str], bytes],
) -> bool:
    """Tell whether an answer is its generation's: the version with the traffic, and its score."""
    (plan,) = (model for model in states[found.plan_generation].models if model.model == MODEL_NAME)
    serving_versions = {arm.version for arm in plan.arms if arm.weight_basis_points}
    return {found.version} == serving_versions and (
        struct.pack("<f", found.raw_score) == scores[found.request_id, found.version]
    )
