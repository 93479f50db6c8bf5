"""Quality from a real server's decisions: explored, reported, matured, asked for, scraped."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from server.pb.scoregate.v1 import feedback_pb2 as pb
from server.pb.scoregate.v1 import feedback_pb2_grpc, scoring_pb2, scoring_pb2_grpc
from tests.support.serving import ROOT, Serving, example_rows

N_ROWS = 1500
SHARE = 0.4
PATIENCE_S = 30.0
# Decisions mature at once; a segment takes a second's.
QUICK = {
    "feedback.drain_s": 0.05,
    "feedback.records_per_s": 1e6,  # all, however quickly a machine asks
    "feedback.interval_s": 0.2,
    "feedback.maturity_s": 1.0,
    "feedback.window_s": 3600.0,
}


class World(NamedTuple):
    server: Serving
    fraud: NDArray[np.bool_]
    raw: NDArray[np.float32]
    decision: NDArray[np.str_]
    propensity: NDArray[np.float64]

    @property
    def is_seen(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.decision != "decline"
        return found


def scoregate(server: Serving, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "server", *args, "--address", server.control],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def reports(server: Serving) -> dict[str, dict[str, Any]]:
    found = json.loads(scoregate(server, "quality", "fraud", "--json"))["reports"]
    return {one["cohort"]: one for one in found}


def metric(report: dict[str, Any], name: str, threshold: str = "") -> dict[str, float]:
    [one] = [m for m in report["metrics"] if (m["name"], m["threshold"]) == (name, threshold)]
    return {key: float(one[key]) for key in ("value", "low", "high")}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    rows, fraud = example_rows(N_ROWS, 7)
    with Serving(settings=QUICK) as server:
        scoregate(server, "explore", "set", str(SHARE), "--why", "to see what is declined")
        answers = []
        with grpc.insecure_channel(server.fast) as channel:
            scoring = scoring_pb2_grpc.ScoringStub(channel)  # type: ignore[no-untyped-call]
            for i, row in enumerate(rows.to_dict("records")):
                request = scoring_pb2.ScoreRequest(
                    request_id=f"q-{i}", routing_key=f"card-{i % 300}"
                )
                for name, value in row.items():
                    request.named.values[str(name)].number = float(value)
                answers.append(scoring.Score(request))
        world = World(
            server,
            fraud,
            np.array([one.raw_score for one in answers], np.float32),
            np.array([one.decision for one in answers]),
            np.array([one.decision_propensity for one in answers]),
        )
        assert {one.explored for one in answers} == {False, True}
        seen = np.flatnonzero(fraud & world.is_seen).tolist()
        outcomes = [
            pb.Outcome(request_id=f"q-{i}", label=pb.LABEL_POSITIVE, amount=10.0 + i) for i in seen
        ]
        with grpc.insecure_channel(server.control) as channel:
            feedback = feedback_pb2_grpc.FeedbackStub(channel)  # type: ignore[no-untyped-call]
            requests = iter([pb.ReportOutcomesRequest(outcomes=outcomes)])
            [answer] = feedback.ReportOutcomes(requests, timeout=30)
        assert answer.accepted == len(outcomes)
        end = time.monotonic() + PATIENCE_S
        while True:
            found = reports(server)
            counts = [found.get("matured", {}).get(name) for name in ("n_decisions", "n_labels")]
            if counts == [str(N_ROWS), str(len(outcomes))]:
                break
            assert time.monotonic() < end, f"{counts} of {N_ROWS}: {server.stderr()}"
            time.sleep(0.2)
        yield world


def test_the_server_weighs_what_it_explored(world: World) -> None:
    found = reports(world.server)["matured"]
    seen, fraud = world.is_seen, world.fraud
    # Its own words: what was answered is what is counted with.
    weight = 1 / world.propensity[seen]
    assert set(np.round(world.propensity, 6)) == {SHARE, 1 - SHARE, 1.0}
    lowest = world.raw[world.propensity < 1].min()  # the lowest of all may well be explored
    declined = world.raw >= lowest  # as policy had it, explored or not
    said = declined[seen]
    for name, expected, truth in (
        ("recall", recall_score(fraud[seen], said, sample_weight=weight),
         recall_score(fraud, declined)),
        ("precision", precision_score(fraud[seen], said, sample_weight=weight),
         precision_score(fraud, declined)),
    ):  # fmt: skip
        figure = metric(found, name, "decline")
        assert figure["value"] == pytest.approx(expected, abs=1e-6)
        assert figure["low"] < truth < figure["high"]
    auc = metric(found, "auc")
    expected = roc_auc_score(fraud[seen], world.raw[seen], sample_weight=weight)
    assert auc["value"] == pytest.approx(expected, abs=0.005)
    assert auc["low"] < auc["value"] < auc["high"]
    assert "allowed traffic only" not in found["note"]
    assert f"of {N_ROWS:,} decisions have a label" in found["note"]
    assert not metric(found, "brier")["value"] > 0.3


def test_prometheus_and_people_are_told_the_same(world: World) -> None:
    recall = metric(reports(world.server)["matured"], "recall", "decline")
    labels = {"model": "fraud", "model_version": "2", "arm": "champion", "cohort": "matured"}
    for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
        scraped = world.server.metric(f"ml_model_recall{end}", threshold="decline", **labels)
        assert scraped == pytest.approx(recall[key])
    assert world.server.metric("ml_quality_evaluations_total", result="failed") == 0
    text = scoregate(world.server, "quality", "fraud", "2", "--curves")
    said = f"{recall['value']:.2f} [{recall['low']:.2f}, {recall['high']:.2f}]"
    [line] = [one for one in text.splitlines() if one.startswith("  recall at decline")]
    assert said in line
    assert "matured, weighted:" in text


def test_estimates_are_told_for_decisions_that_are_young(world: World) -> None:
    found = reports(world.server)["estimated"]
    # All have matured: nothing is left to estimate, and that is no zero.
    assert found["n_decisions"] == "0"
    assert math.isnan(metric(found, "recall", "decline")["value"])
