"""Servers that are killed while they are being changed, and what they have to be afterwards.

A round starts a server on the journal that the one before left, makes random changes, and kills it
with SIGKILL at a random moment of the last of them. What each change would make is asked first, by
a dry run, so the plan after a restart can be told: the one before the change, or that one.
"""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import scoring_pb2
from server.rollout.journal import Journal
from tests.support.clients import control, scoring
from tests.support.serving import FEATURES, Serving

KEYS = [f"customer-{i}" for i in range(24)]
MAX_CHANGES = 4  # of a round
LONGEST_S = 0.005  # from the call to the kill: a change takes some 3 ms
TIMEOUT_S = 20.0
NOT_SERVED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)


@dataclass
class Seen:
    """What a server serves, as its callers and operators see it."""

    generation: int
    content: str  # the plan, without its generation
    weights: dict[tuple[str, str], int]
    assigned: dict[str, tuple[str, str, int]]  # key -> arm, version, bucket


@dataclass
class Told:
    """What a round found."""

    is_done: bool  # the interrupted change was answered OK
    is_after: bool  # and what served after the restart
    verb: str
    wrong: list[str] = field(default_factory=list)


def content_of(plan: pb.PlanDescription) -> str:
    """Return a plan as text, without its generation."""
    bare = pb.PlanDescription()
    bare.CopyFrom(plan)
    bare.ClearField("generation")
    return str(bare)


def random_change(rng: random.Random, plan: pb.PlanDescription) -> tuple[str, Any]:
    """Return a verb and its request; it may turn out to be none, or to be refused."""
    [model] = plan.models
    arms = [arm.arm for arm in model.arms]
    verbs = ["Deploy", "SetTraffic", "Promote", "SetThresholds", "SetOverrides", "SetLabels"]
    verb = rng.choice([*verbs, "Rollback", "Rollback", "Freeze"])
    if plan.frozen:
        return "Freeze", pb.FreezeRequest(frozen=False)
    if verb == "Deploy":
        version, weight = rng.choice("1234"), rng.randrange(10_001)
        return verb, pb.DeployRequest(version=version, traffic_basis_points=weight)
    if verb == "SetTraffic":
        cuts = sorted(rng.choices(range(10_001), k=len(arms) - 1))
        weights = [b - a for a, b in zip([0, *cuts], [*cuts, 10_000], strict=True)]
        return verb, pb.SetTrafficRequest(basis_points=dict(zip(arms, weights, strict=True)))
    if verb == "Promote":
        return verb, pb.PromoteRequest(arm=rng.choice(arms))
    if verb == "SetThresholds":
        scores = {"review": rng.uniform(0.1, 0.4), "decline": rng.uniform(0.5, 0.9)}
        return verb, pb.SetThresholdsRequest(scores=scores)
    if verb == "SetOverrides":
        pins = {rng.choice(KEYS): rng.choice(arms) for _ in range(3)}
        return verb, pb.SetOverridesRequest(set=pins, clear=rng.random() < 0.5)
    if verb == "SetLabels":
        return verb, pb.SetLabelsRequest(set={"stable": rng.choice("1234")})
    if verb == "Freeze":
        return verb, pb.FreezeRequest(frozen=True)
    return verb, pb.RollbackRequest()


class Killed:
    """One repository and journal, and the servers that lived and died on them.

    Parameters
    ----------
    repository
        With versions "1" to "4" of one model.
    folder
        Where the journal is.
    """

    def __init__(self, repository: Path, folder: Path) -> None:
        self._repository = repository
        self._folder = folder
        self.journal = folder / "journal.db"
        self._serving: Serving | None = None
        self._known: dict[int, str] = {}  # generation -> content

    def start(self) -> Seen:
        """Start a server, and look at it."""
        settings = {"rollout.journal": str(self.journal)}
        self._serving = Serving(self._repository, settings)
        with grpc.insecure_channel(self._serving.control) as channel:
            return self.look(channel)

    @property
    def serving(self) -> Serving:
        """The server that is up."""
        assert self._serving is not None
        return self._serving

    def end(self) -> None:
        """End the server that is up, if one is."""
        if self._serving is not None:
            self._serving.end()
            shutil.rmtree(self._serving.folder, ignore_errors=True)
            self._serving = None

    def look(self, channel: grpc.Channel) -> Seen:
        """Return what serves."""
        stub = control(channel)
        plan = self._dry(stub, "Freeze", pb.FreezeRequest(frozen=True)).before
        status = stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
        weights = {(m.arm, m.version): m.weight_basis_points for m in status.models}
        assert status.plan_generation == plan.generation
        assigned = {}
        for key in KEYS:
            request = scoring_pb2.ScoreRequest(routing_key=key)
            for name in FEATURES:
                request.named.values[name].number = 1.0
            answer = scoring(channel).Score(request, timeout=TIMEOUT_S)
            assert answer.plan_generation == plan.generation
            assigned[key] = (answer.arm, answer.version, answer.bucket)
        return Seen(plan.generation, content_of(plan), weights, assigned)

    def round(self, rng: random.Random, before: Seen) -> tuple[Seen, Told]:
        """Change, kill in the last change, start again; return what serves then."""
        assert self._serving is not None
        with grpc.insecure_channel(self._serving.control) as channel:
            stub = control(channel)
            for _ in range(rng.randrange(MAX_CHANGES)):
                self._change(rng, stub)
            before = self.look(channel)
            self._known[before.generation] = before.content
            verb, request, would_be = self._pick(rng, stub)
            call = getattr(stub, verb).future(request, timeout=TIMEOUT_S)
            time.sleep(rng.uniform(0.0, LONGEST_S))
            self._serving.process.kill()
            self._serving.wait()
            is_done = _is_done(call)
        self.end()
        self._check_journal(before)
        after = self.start()
        told = Told(is_done, after.content == would_be, verb)
        self._judge(before, after, would_be, told)
        return after, told

    def _judge(self, before: Seen, after: Seen, would_be: str, told: Told) -> None:
        if after.content not in (before.content, would_be):
            told.wrong.append(f"neither before nor after: {after.content}")
        if told.is_done and after.content != would_be:
            told.wrong.append(f"{told.verb} was answered, and is undone: {after.content}")
        if self._known.setdefault(after.generation, after.content) != after.content:
            told.wrong.append(f"generation {after.generation} was another plan")
        if after.generation == before.generation and after != before:
            told.wrong.append(f"the same generation, and yet {after} is not {before}")
        if after.generation < before.generation:
            told.wrong.append(f"generation {after.generation} follows {before.generation}")
        if sum(after.weights.values()) != 10_000:
            told.wrong.append(f"weights: {after.weights}")
        buckets = {key: bucket for key, (_, _, bucket) in after.assigned.items()}
        if buckets != {key: bucket for key, (_, _, bucket) in before.assigned.items()}:
            told.wrong.append("keys have other buckets")

    def _check_journal(self, before: Seen) -> None:
        """Read a copy of what the dead process left: all of it is whole, the last plan is there."""
        copy = self._folder / "copy"
        copy.mkdir()
        for path in self._folder.glob("journal.db*"):
            shutil.copy(path, copy / path.name)
        with Journal(copy / self.journal.name) as journal:
            entries = list(journal.walk())
            assert journal.verify() == len(entries)
            assert before.generation in {entry.generation for entry in entries[:2]}
        shutil.rmtree(copy)

    def _change(self, rng: random.Random, stub: Any) -> None:
        verb, request, _ = self._pick(rng, stub)
        getattr(stub, verb)(request, timeout=TIMEOUT_S)

    def _pick(self, rng: random.Random, stub: Any) -> tuple[str, Any, str]:
        """Return a change that is one, and what it would make."""
        while True:
            plan = self._dry(stub, "Freeze", pb.FreezeRequest(frozen=True)).before
            verb, request = random_change(rng, plan)
            try:
                would_be = content_of(self._dry(stub, verb, request).after)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                continue
            if would_be != content_of(plan):
                return verb, request, would_be

    @staticmethod
    def _dry(stub: Any, verb: str, request: Any) -> pb.ChangeResponse:
        dry = type(request)()
        dry.CopyFrom(request)
        dry.options.dry_run = True
        answer: pb.ChangeResponse = getattr(stub, verb)(dry, timeout=TIMEOUT_S)
        return answer


def _is_done(call: Any) -> bool:
    try:
        call.result()
    except grpc.RpcError as error:
        if error.code() not in NOT_SERVED:
            raise
        return False
    return True
