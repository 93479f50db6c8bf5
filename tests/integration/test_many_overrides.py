"""A plan that pins a hundred thousand keys: set, listed, rolled back, and remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from server.cli import scoregate
from server.pb.scoregate.v1 import control_pb2 as pb
from server.rollout.change import Author
from server.rollout.verbs import Verbs
from tests.support.clients import control
from tests.support.control import ControlWorld
from tests.support.serving import MODEL, copy_repository
from tests.support.versions import add_version

N_MODELS = 10
N_KEYS = 10_000  # of a model: all that it can have
ANA = Author("ana")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(scoregate, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def keys(model: int, n_bytes: int = 60) -> dict[str, str]:
    return {f"{model}-{key:05}-".ljust(n_bytes, "x"): "champion" for key in range(N_KEYS)}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlWorld]:
    repository = copy_repository(tmp_path / "repository")
    names = [f"m{model}" for model in range(N_MODELS - 1)]
    for name in names:
        add_version(repository, "7", "2", model=name)
    with ControlWorld(repository, models=(f"{MODEL}@1", *names)) as made:
        monkeypatch.setenv("SCOREGATE_CONTROL", f"127.0.0.1:{made.port.port}")
        verbs = Verbs(made.rollout)
        for model, name in enumerate(names):
            verbs.set_overrides(ANA, name, keys(model))
        yield made


def test_a_hundred_thousand_keys_are_listed_and_rolled_back(world: ControlWorld) -> None:
    before = world.rollout.generation
    # The request alone is larger than what gRPC takes unless it is told to.
    request = pb.SetOverridesRequest(model=MODEL, set=keys(9, 500))
    assert request.ByteSize() > 4 << 20
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{world.port.port}", options) as channel:
        control(channel).SetOverrides(request, timeout=60)
    listed = run("overrides", "list").splitlines()
    assert len(listed) == 1 + N_MODELS * N_KEYS
    assert listed[1].split()[1:] == [next(iter(keys(9, 500))), "champion", "1"]
    found = json.loads(run("overrides", "list", "--json"))
    assert sum(len(model["overrides"]) for model in found["models"]) == N_MODELS * N_KEYS
    assert "plan " in run("status")
    assert world.score(key=next(iter(keys(9, 500)))).arm == "champion"

    told = run("rollback").splitlines()
    assert f"and {N_KEYS - 10:,} more; --json shows all" in told
    assert len(run("overrides", "list").splitlines()) == 1 + (N_MODELS - 1) * N_KEYS
    run("rollback")
    assert len(run("overrides", "list").splitlines()) == 1 + (N_MODELS - 2) * N_KEYS
    run("rollback", "--to", str(before))
    assert len(run("overrides", "list").splitlines()) == 1 + (N_MODELS - 1) * N_KEYS
    assert run("history", "-n", "100").count("\n    ") == N_MODELS + 4
