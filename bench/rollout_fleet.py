"""What it costs to have eight models of three versions in memory, with and without traffic.

Two servers take turns, in closed loop: "one" has one model of one version; "fleet" has 24 engines.
The fleet is asked for one of its models, as the other server is: first while one version has that
model's traffic and the others are only loaded ("loaded"), then while three share it
("three_asked"); and for all eight models in turn, of three versions each ("all_asked"). The
requests are of the same length, the engines of the same trees, and every answer's score is checked.

What more engines with traffic cost is the processor's caches: each has arrays of its own.
"""

from __future__ import annotations

import time
from typing import Any

import grpc

from bench.errors import LoadError
from bench.message import Message
from bench.model import MODEL_NAME, BenchModel
from bench.rollout_loads import Loads, serving
from bench.rollout_models import FLEET, FLEET_VERSIONS
from bench.scenario import Closed, Rows
from bench.sources import SCORE, rows
from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import control_pb2_grpc, scoring_pb2

SHARE_BASIS_POINTS = 3_333  # of each version but the newest
LOADED_TIMEOUT_S = 60.0
ROUNDS = (("one", "loaded"), ("one_again", "three_asked", "all_asked"))


def measure(loads: Loads, model: BenchModel) -> None:
    """Make the loads, called "closed_" and a subject.

    Raises
    ------
    BenchError
        A server does not start, or a change was refused.
    """
    one_asked = rows(Rows(models=[MODEL_NAME]), SCORE, model)
    all_asked = spread(one_asked)
    everything = ("--default-model", MODEL_NAME, "--rollout-versions", "all")
    with (
        serving("one", model.repository, "--models", f"{MODEL_NAME}@{FLEET_VERSIONS[-1]}") as one,
        serving("fleet", model.repository, *everything) as fleet,
        grpc.insecure_channel(fleet.control) as channel,
    ):
        control = control_pb2_grpc.ControlStub(channel)  # type: ignore[no-untyped-call]
        wait_loaded(control)
        for subjects in ROUNDS:
            if "loaded" not in subjects:
                share(control)
            for i in range(loads.plan.repetitions):
                for subject in subjects if i % 2 == 0 else subjects[::-1]:
                    target = one.target if subject.startswith("one") else fleet.target
                    asked = all_asked if subject == "all_asked" else one_asked
                    name = f"closed_{subject}"
                    loads.one(name, target, asked, Closed(), i, n_calls=loads.plan.n_closed)


def spread(messages: list[Message]) -> list[Message]:
    """Return the same requests, each for another model of the fleet in turn."""
    found = []
    for i, message in enumerate(messages):
        request = scoring_pb2.ScoreRequest.FromString(message.body)
        request.model = FLEET[i % len(FLEET)]
        body = request.SerializeToString()
        found.append(Message(message.method, body, expected_raw=message.expected_raw))
    return found


def states(control: Any) -> list[int]:
    """Return the state of every version of every model."""
    models = control.ListModels(pb.ListModelsRequest()).models
    return [version.state for model in models for version in model.versions]


def wait_loaded(control: Any) -> None:
    """Wait until every version is in memory.

    Raises
    ------
    LoadError
        It is not after a minute.
    """
    end = time.monotonic() + LOADED_TIMEOUT_S
    in_memory = {pb.MODEL_VERSION_STATE_LOADED, pb.MODEL_VERSION_STATE_SERVING}
    while not set(states(control)) <= in_memory:
        if time.monotonic() > end:
            raise LoadError("the fleet is not in memory after a minute")
        time.sleep(0.1)


def share(control: Any) -> None:
    """Give every version of every model its share of the traffic.

    Raises
    ------
    LoadError
        Not all of them serve then.
    """
    for name in FLEET:
        for version in FLEET_VERSIONS[:-1]:
            control.Deploy(pb.DeployRequest(model=name, version=version))
        weights = dict.fromkeys(FLEET_VERSIONS[:-1], SHARE_BASIS_POINTS)
        weights[FLEET_VERSIONS[-1]] = 10_000 - sum(weights.values())
        control.SetTraffic(pb.SetTrafficRequest(model=name, basis_points=weights))
    if set(states(control)) != {pb.MODEL_VERSION_STATE_SERVING}:
        raise LoadError("not every model of the fleet serves with all its versions")
