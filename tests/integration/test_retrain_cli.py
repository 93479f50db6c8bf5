"""`scoregate retrain advise` against a server that decided, and was told what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from server.pb.scoregate.v1 import feedback_pb2, feedback_pb2_grpc, scoring_pb2
from tests.support.clients import scoring
from tests.support.serving import (
    MODEL,
    ROOT,
    Serving,
    copy_repository,
    example_repository,
    example_rows,
)
from tests.support.stores import until

N_ROWS = 3000
# All outcomes can be seen, and mature in a second.
SETTINGS = {
    "feedback.maturity_s": 1.0,
    "feedback.window_s": 600.0,
    "feedback.drain_s": 0.1,
    "feedback.records_per_s": 1e6,  # all, however quickly a machine asks
    "feedback.interval_s": 0.2,
    "feedback.unseen_decisions": ["none"],
    "models": [f"{MODEL}@1"],
}


def advise(server: Serving, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", "retrain", "advise", *map(str, words)]
    return subprocess.run(
        [*command, "--address", server.control],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def advice(server: Serving, *words: str | Path) -> dict[str, Any]:
    """Return what is said of the only version."""
    done = advise(server, *words, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["advice"]
    return dict(found)


def decide(server: Serving, positive: np.ndarray[Any, Any], seed: int) -> None:
    """Score rows, and report what came of them."""
    rows, _ = example_rows(len(positive), seed)
    outcomes = []
    with grpc.insecure_channel(server.fast) as channel:
        score = scoring(channel).Score
        for number, row in enumerate(rows.itertuples(index=False)):
            message = scoring_pb2.ScoreRequest(request_id=f"row-{number}")
            for name in ("amount", "n_day", "risk"):
                message.named.values[name].number = getattr(row, name)
            message.named.values["night"].flag = bool(row.night)
            score(message, timeout=10)
            label = feedback_pb2.LABEL_POSITIVE if positive[number] else feedback_pb2.LABEL_NEGATIVE
            outcomes.append(feedback_pb2.Outcome(request_id=message.request_id, label=label))
    until(lambda: server.metric("ml_feedback_records_total") >= len(outcomes), "records")
    with grpc.insecure_channel(server.control) as channel:
        stub: Any = feedback_pb2_grpc.FeedbackStub(channel)  # type: ignore[no-untyped-call]
        said = feedback_pb2.ReportOutcomesRequest(outcomes=outcomes)
        (answer,) = stub.ReportOutcomes(iter([said]), timeout=30)
    assert (answer.accepted, answer.unmatched) == (len(outcomes), 0)


@contextmanager
def judged(seed: int, *, shuffled: bool, **settings: Any) -> Iterator[Serving]:
    """A server whose decisions have matured; shuffled: its scores tell nothing."""
    _, positive = example_rows(N_ROWS, seed)
    if shuffled:
        positive = np.random.default_rng(seed).permutation(positive)
    with Serving(settings={**SETTINGS, **settings}) as server:
        decide(server, positive, seed)
        until(lambda: n_matured(server) == positive.sum(), "matured outcomes")
        yield server


def n_matured(server: Serving) -> float:
    try:
        return server.metric(
            "ml_model_labels",
            model=MODEL,
            model_version="1",
            arm="champion",
            cohort="matured",
            outcome="positive",
        )
    except AssertionError:
        return 0.0


def test_quality_that_holds_waits(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path / "repository")
    with judged(11, shuffled=False) as server:
        found = advice(server, "--bundle", repository)
        assert found["verdict"] == "wait", found
        assert any(line.startswith("not lost: recall at review") for line in found["why"])
        assert any(line.startswith("not lost: auc") for line in found["why"])
        assert any("its windows fill" in line for line in found["unknown"])
        assert found["rows"]["n_positive"] > 400 == found["rows"]["n_positive_needed"]
        assert found["rows"]["n_decisions"] == N_ROWS
        # Without the bundle nothing says what quality was.
        bare = advice(server, MODEL, "1")
        assert bare["verdict"] == "not known"
        assert any("--bundle" in line for line in bare["unknown"])
        assert advise(server, "--fail-on", "retrain").returncode == 0
        # Wrong words, and bundles that are not what serves.
        wrong = advise(server, "nobody")
        assert wrong.returncode == 2
        assert "takes no part" in wrong.stderr
        wrong = advise(server, "--bundle", repository / MODEL / "2")
        assert wrong.returncode == 2
        assert "no bundle of fraud 1" in wrong.stderr
        manifest = repository / MODEL / "1" / "manifest.json"
        manifest.write_bytes(manifest.read_bytes() + b"\n")
        wrong = advise(server, "--bundle", repository / MODEL / "1")
        assert wrong.returncode == 2
        assert "another bundle than the one that serves" in wrong.stderr


@pytest.mark.parametrize("unseen", ["none", "decline"])
def test_quality_that_is_lost_retrains(unseen: str) -> None:
    of = " of allowed traffic" if unseen == "decline" else ""
    settings = {"feedback.unseen_decisions": [unseen]}
    with judged(12, shuffled=True, **settings) as server:
        repository = example_repository().path
        found = advice(server, "--bundle", repository)
        assert found["verdict"] == "retrain"
        assert any(line.startswith(f"lost: recall at review{of} ") for line in found["why"])
        done = advise(server, "--bundle", repository, "--fail-on", "retrain")
        assert done.returncode == 1
        assert done.stdout.startswith("fraud 1: retrain\n  why ")
        assert "  train on    decisions of " in done.stdout
        assert "  next        docs/runbooks/retrain.md" in done.stdout


@pytest.mark.parametrize("drift_too", [False, True])
def test_a_server_without_outcomes_says_so(drift_too: bool) -> None:
    off = {"feedback.enabled": False, **({"drift.enabled": False} if drift_too else {})}
    with Serving(settings={**off, "models": [f"{MODEL}@1"]}) as server:
        done = advise(server)
        if drift_too:
            assert done.returncode == 2
            assert "feedback.enabled is false" in done.stderr
            assert "drift.enabled is false" in done.stderr
        else:
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("fraud 1: not known")
    assert advise(server).returncode == 1  # nobody answers any more
