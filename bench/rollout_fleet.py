"""What it costs to have eight models of three versions in memory, all of them with traffic.

Two servers take turns, in closed loop: "one" has one model of one version; "fleet" has 24 engines.
The fleet is asked twice: for one of its models, as the other server is (its three versions share
the traffic), and for all eight in turn. The requests are of the same length, the engines of the
same trees, and every answer's score is checked.
"""

from __future__ import annotations

import grpc

from bench.errors import LoadError
from bench.message import Message
from bench.model import MODEL_NAME, BenchModel
from bench.rollout_loads import Loads, Serving, serving
from bench.rollout_models import FLEET, FLEET_VERSIONS
from bench.scenario import Closed, Rows
from bench.sources import SCORE, rows
from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import control_pb2_grpc, scoring_pb2

SHARE_BASIS_POINTS = 3_333  # of each version but the newest
SUBJECTS = ("one", "fleet_one_asked", "fleet_all_asked")


def measure(loads: Loads, model: BenchModel) -> None:
    """Make the loads, called "closed_" and a subject.

    Raises
    ------
    BenchError
        A server does not start, or a change was refused.
    """
    one_asked = rows(Rows(models=[MODEL_NAME]), SCORE, model)
    asked = {"one": one_asked, "fleet_one_asked": one_asked, "fleet_all_asked": spread(one_asked)}
    with (
        serving("one", model.repository, "--models", f"{MODEL_NAME}@{FLEET_VERSIONS[-1]}") as one,
        serving("fleet", model.repository, "--default-model", MODEL_NAME) as fleet,
    ):
        fill(fleet)
        for i in range(loads.plan.repetitions):
            for subject in SUBJECTS if i % 2 == 0 else SUBJECTS[::-1]:
                target = one.target if subject == "one" else fleet.target
                name = f"closed_{subject}"
                loads.one(name, target, asked[subject], Closed(), i, n_calls=loads.plan.n_closed)


def spread(messages: list[Message]) -> list[Message]:
    """Return the same requests, each for another model of the fleet in turn."""
    found = []
    for i, message in enumerate(messages):
        request = scoring_pb2.ScoreRequest.FromString(message.body)
        request.model = FLEET[i % len(FLEET)]
        body = request.SerializeToString()
        found.append(Message(message.method, body, expected_raw=message.expected_raw))
    return found


def fill(fleet: Serving) -> None:
    """Give every version of every model its share of the traffic.

    Raises
    ------
    LoadError
        Not all of them serve then.
    """
    with grpc.insecure_channel(fleet.control) as channel:
        control = control_pb2_grpc.ControlStub(channel)  # type: ignore[no-untyped-call]
        for name in FLEET:
            for version in FLEET_VERSIONS[:-1]:
                control.Deploy(pb.DeployRequest(model=name, version=version))
            weights = dict.fromkeys(FLEET_VERSIONS[:-1], SHARE_BASIS_POINTS)
            weights[FLEET_VERSIONS[-1]] = 10_000 - sum(weights.values())
            control.SetTraffic(pb.SetTrafficRequest(model=name, basis_points=weights))
        models = control.ListModels(pb.ListModelsRequest()).models
    states = [version.state for model in models for version in model.versions]
    if states != [pb.MODEL_VERSION_STATE_SERVING] * len(FLEET) * len(FLEET_VERSIONS):
        raise LoadError("not every model of the fleet serves with all its versions")
