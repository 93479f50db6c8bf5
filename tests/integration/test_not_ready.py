"""A server that cannot serve any plan of its journal is mended through its control port."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.clients import check_health, scoring
from tests.support.control import wait_for
from tests.support.serving import FEATURES, MODEL, ROOT, Serving, copy_repository


def scoregate(server: Serving, *arguments: str, code: int = 0) -> str:
    """Run a command against a server; return what it prints, or why it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments, "--address", server.control],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def score(server: Serving) -> pb.ScoreResponse:
    request = pb.ScoreRequest(request_id="r", routing_key="k")
    for name in FEATURES:
        request.named.values[name].number = 1.0
    with grpc.insecure_channel(server.fast) as channel:
        answer: pb.ScoreResponse = scoring(channel).Score(request, timeout=10)
        return answer


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_repository(tmp_path / "repository")


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[Serving]:
    """A server whose journal knows version 1 only, which is elsewhere now."""
    settings = {"models": [f"{MODEL}@1"], "rollout.journal": str(tmp_path / "journal.db")}
    with Serving(repository, settings) as first:
        scoregate(first, "thresholds", "set", "review=0.4")
    (repository / MODEL / "1").rename(tmp_path / "elsewhere")
    with Serving(repository, settings) as again:
        yield again


def check_not_ready(server: Serving) -> None:
    status, text = server.http("/readyz")
    assert (status, "no plan of the journal can be served" in text) == (503, True)
    assert "no version 1 of this model; there is 2" in text
    with grpc.insecure_channel(server.fast) as channel:
        assert check_health(channel) == "NOT_SERVING"
    with pytest.raises(grpc.RpcError) as caught:
        score(server)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def check_ready(server: Serving, version: str) -> None:
    assert score(server).version == version
    assert server.http("/readyz")[0] == 200
    for address in (server.fast, server.control):
        with grpc.insecure_channel(address) as channel:
            wait_for(lambda: check_health(channel) == "SERVING")
    assert "serving, up for" in scoregate(server, "status")


def test_a_deployment_makes_it_ready(server: Serving) -> None:
    check_not_ready(server)
    told = scoregate(server, "status")
    assert told.startswith("Scoregate ")
    assert ": not ready, up for " in told
    assert "\nno plan of the journal can be served" in told
    assert " up but not ready in " in server.stdout()
    assert "\nplan –\n" in told
    assert "nothing is in force" in scoregate(server, "overrides", "list", code=1)
    assert scoregate(server, "models", "default") == "–\n"
    refused = scoregate(server, "deploy", "2", "--traffic", "10", code=2)
    assert "Deploy a version that can be with 100 %, not 10 %" in refused
    scoregate(server, "deploy", "2", "--traffic", "100", "--dry-run")
    check_not_ready(server)
    told = scoregate(server, "deploy", MODEL, "2", "--traffic", "100", "--why", "1 is gone")
    assert "note: model fraud begins again with 2; former arms: champion (1, 100 %)" in told
    check_ready(server, "2")
    # Nothing is left of it: the next changes are as ever.
    first = json.loads(scoregate(server, "history", "-n", "1", "--json"))["changes"][0]
    assert (first["verb"], first["why"]) == ("deploy", "1 is gone")
    scoregate(server, "thresholds", "set", "review=0.2")
    scoregate(server, "rollback", "--to", first["generation"])
    check_ready(server, "2")


def test_a_rollback_makes_it_ready_when_the_bundle_is_back(
    server: Serving, repository: Path, tmp_path: Path
) -> None:
    check_not_ready(server)
    status = scoregate(server, "status")
    [to] = re.findall(r"`scoregate rollback --to (\d+)`", status)
    assert "no version 1" in scoregate(server, "rollback", "--to", to, code=2)
    check_not_ready(server)
    shutil.copytree(tmp_path / "elsewhere", repository / MODEL / "1")
    scoregate(server, "rollback", "--to", to)
    check_ready(server, "1")
    told = scoregate(server, "thresholds", "show")
    assert "0.4" in told
    assert "operator" in told
