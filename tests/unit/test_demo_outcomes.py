"""The demo's outcomes without processes: who is told what and when, the truth, and the words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from server.config import load_settings
from server.demo.outcomes import (
    CONFIRMED_SHARE,
    MISTAKEN_SHARE,
    MOST_AT_ONCE,
    Due,
    OutcomeStory,
    Reporter,
)
from server.demo.quality_state import QualityProbe
from server.demo.quality_words import quality_line, quality_rows
from server.demo.traffic import Rows
from server.demo.truth import Truth, figures
from server.pb.scoregate.v1 import feedback_pb2 as pb
from server.pb.scoregate.v1 import scoring_pb2

N_ROWS = 4_000
CUTS = {"review": 1.0, "block": 2.0}


class Failure(grpc.RpcError):
    """A call that failed."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "gone"


class Server:
    """Takes outcomes, as the control port does; or does not."""

    def __init__(self) -> None:
        self.outcomes: list[pb.Outcome] = []
        self.batches: list[int] = []
        self.fails = False

    def report(
        self, requests: Iterator[pb.ReportOutcomesRequest], timeout: float
    ) -> Iterator[pb.ReportOutcomesResponse]:
        assert timeout > 0
        for request in requests:
            if self.fails:
                raise Failure
            self.batches.append(len(request.outcomes))
            self.outcomes += request.outcomes
            yield pb.ReportOutcomesResponse(accepted=len(request.outcomes), revised=1)


@pytest.fixture
def rows() -> Rows:
    rng = np.random.default_rng(2)
    ids = np.arange(N_ROWS).astype(np.str_)
    amount = rng.uniform(1, 99, (N_ROWS, 1)).astype(np.float32)
    amount[5] = np.nan
    return Rows(
        names=np.array(["TX_AMOUNT"]),
        features=amount,
        fraud=rng.random(N_ROWS) < 0.25,
        transaction=ids,
        customer=ids,
        terminal=ids,
        event_time_ms=np.arange(N_ROWS),
        versions=np.array(["1.0"]),
        raw_score=np.zeros((1, N_ROWS), np.float32),
    )


def answer(row: int, decision: str, raw: float = 0.0) -> scoring_pb2.ScoreResponse:
    return scoring_pb2.ScoreResponse(
        request_id=f"{row}-0", decision=decision, raw_score=raw, version="1.0", arm="champion"
    )


def reporter(rows: Rows, server: Server, now: list[float]) -> Reporter:
    return Reporter(
        server.report, Truth(rows), blocked="block", default="approve", clock=lambda: now[0]
    )


def told(rows: Rows, decision: str) -> tuple[Server, dict[str, Any], list[list[pb.Outcome]]]:
    """Let all rows have one decision; return what was said of each, in the order of time."""
    server, now = Server(), [0.0]
    made = reporter(rows, server, now)
    for row in range(N_ROWS):
        made.decided(row, answer(row, decision))
    made.send()
    assert server.outcomes == [], "nothing is known at once"
    while made.state()["waiting"]:
        now[0] += 0.25
        made.send()
        assert now[0] < 60
    said: list[list[pb.Outcome]] = [[] for _ in range(N_ROWS)]
    for outcome in server.outcomes:
        said[int(outcome.request_id.removesuffix("-0"))].append(outcome)
    return server, made.state(), said


def test_nearly_all_frauds_are_disputed_and_silence_means_genuine(rows: Rows) -> None:
    server, state, said = told(rows, "approve")
    frauds = np.flatnonzero(rows.fraud)
    disputed = [row for row in frauds if said[row]]
    assert 0.9 < len(disputed) / len(frauds) < 1
    assert state["unnoticed"] == len(frauds) - len(disputed)
    genuine = np.flatnonzero(~rows.fraud)
    confirmed = sum(bool(said[row]) for row in genuine)
    assert confirmed / len(genuine) == pytest.approx(CONFIRMED_SHARE, abs=0.02)
    for row, outcomes in enumerate(said):
        labels = [outcome.label for outcome in outcomes]
        if rows.fraud[row]:
            assert labels in ([], [pb.LABEL_POSITIVE])
        else:  # perhaps disputed, and then remembered
            assert labels in ([], [pb.LABEL_NEGATIVE], [pb.LABEL_POSITIVE, pb.LABEL_NEGATIVE])
        amount = float(np.nan_to_num(rows.features[row, 0]))
        assert all(outcome.amount == amount for outcome in outcomes)
    n_taken_back = sum(len(outcomes) == 2 for outcomes in said)
    assert 0 < n_taken_back < len(genuine) / 100
    assert max(server.batches) <= MOST_AT_ONCE
    assert state["reported"] == len(server.outcomes)
    assert state["frauds"] == len(disputed) + n_taken_back
    assert state["revised"] == len(server.batches)  # as the server says


def test_what_is_blocked_is_asked_about_and_few_do_not_answer(rows: Rows) -> None:
    _, state, said = told(rows, "block")
    share = np.mean([bool(outcomes) for outcomes in said])
    assert 0.9 < share < 1
    for row, outcomes in enumerate(said):
        label = pb.LABEL_POSITIVE if rows.fraud[row] else pb.LABEL_NEGATIVE
        assert [(o.label, o.source) for o in outcomes] in ([], [(label, "cardholder")])
    assert state["unnoticed"] == sum(not said[row] for row in np.flatnonzero(rows.fraud))


def test_an_analyst_may_be_wrong_and_a_dispute_comes_later(rows: Rows) -> None:
    _, _, said = told(rows, "review")
    assert all(outcomes[0].source == "analyst" for outcomes in said)
    first = np.array([outcomes[0].label == pb.LABEL_POSITIVE for outcomes in said])
    assert np.mean(first != rows.fraud) == pytest.approx(MISTAKEN_SHARE, abs=0.01)
    disputes = [outcomes[-1] for outcomes, fraud in zip(said, rows.fraud, strict=True) if fraud]
    assert Counter(o.source for o in disputes)["chargeback"] > 0.9 * len(disputes)
    assert all(len(outcomes) <= 3 for outcomes in said)


def test_what_cannot_be_sent_is_sent_again(rows: Rows) -> None:
    server, now = Server(), [0.0]
    made = reporter(rows, server, now)
    for row in range(100):
        made.decided(row, answer(row, "block"))
    now[0], server.fails = 30.0, True
    made.send()
    state = made.state()
    assert state["trouble"] == "UNAVAILABLE: gone"
    assert state["waiting"] > 0
    assert "reported" not in state
    server.fails = False
    made.send()
    assert made.state()["trouble"] == ""
    assert made.state()["reported"] == len(server.outcomes) == state["waiting"]
    assert made.state()["waiting"] == 0


def test_outcomes_of_one_moment_are_in_the_order_they_were_drawn() -> None:
    dues = [Due(1.0, n, "a", True, math.nan, "") for n in (2, 1)]
    assert sorted(dues)[0].number == 1


# ----------------------------------------------------------------------------- truth


def test_the_truth_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    fraud = rng.random(3_000) < 0.1
    raw = (rng.normal(size=3_000) + fraud).astype(np.float32).round(2)
    found = figures(raw, fraud, CUTS)
    assert (found["n"], found["frauds"]) == (3_000, fraud.sum())
    assert found["auc"] == pytest.approx(roc_auc_score(fraud, raw))
    assert found["average_precision"] == pytest.approx(average_precision_score(fraud, raw))
    for name, cut in CUTS.items():
        assert found[f"recall:{name}"] == pytest.approx(recall_score(fraud, raw >= cut))
        assert found[f"precision:{name}"] == pytest.approx(precision_score(fraud, raw >= cut))
    nothing = figures(raw[:0], fraud[:0], CUTS)
    assert nothing == {"n": 0, "frauds": 0}


def test_the_truth_is_of_a_version_an_arm_and_a_time(rows: Rows) -> None:
    now = [0]
    truth = Truth(rows, most_rows=100, now_ms=lambda: now[0])
    for call in range(300):
        now[0] = call
        made = answer(call % N_ROWS, "approve", raw=call)
        made.version = "2.0" if call % 2 else "1.0"
        assert truth.decided(call % N_ROWS, made) == rows.fraud[call]

    def n(version: str, from_ms: int, to_ms: int, arm: str = "champion") -> int:
        found = truth.quality(version, arm, from_ms=from_ms, to_ms=to_ms, cuts={})
        return int(found["n"])

    assert n("1.0", 0, 1_000) == n("2.0", 0, 1_000) == 50  # the newest hundred
    assert n("1.0", 250, 259) == 5
    assert n("1.0", 250, 260) == 6
    assert n("1.0", 0, 1_000, "canary") == n("3.0", 0, 1_000) == 0


# ------------------------------------------------------------------- probe and words


def report(cohort: str = "matured", **more: Any) -> pb.QualityReport:
    metrics = [
        pb.QualityMetric(name="auc", value=0.9, low=0.85, high=0.95),
        pb.QualityMetric(name="average_precision", value=0.7, low=math.nan, high=math.nan),
        pb.QualityMetric(name="recall", threshold="review", value=0.5, low=0.4, high=0.6),
        pb.QualityMetric(name="precision", threshold="review", value=math.nan),
    ]
    made = pb.QualityReport(
        version="1.0", arm="champion", cohort=cohort, n_decisions=120, n_labels=7, n_positive=3,
        from_time_ms=0, to_time_ms=1_000, evaluated_time_ms=5, metrics=metrics,
    )  # fmt: skip
    made.MergeFrom(pb.QualityReport(**more))
    return made


def test_quality_is_told_beside_the_truth_of_the_same_decisions(rows: Rows) -> None:
    now = [0]
    truth = Truth(rows, now_ms=lambda: now[0])
    for call in range(2_000):
        now[0] = call
        truth.decided(call, answer(call, "approve", raw=float(rows.fraud[call])))
    response = pb.GetQualityResponse(reports=[report(), report("labelled")])
    asked: list[int] = []

    def cuts() -> dict[str, dict[str, float]]:
        asked.append(1)
        return {"1.0": CUTS}

    def get_quality(request: pb.GetQualityRequest, timeout: float) -> pb.GetQualityResponse:
        if not response.reports:
            raise Failure
        return response

    probe = QualityProbe(get_quality, truth, cuts)
    found = probe.look()
    [told] = found["reports"]
    assert told["truth"]["n"] == 1_001  # of the report's time
    assert told["truth"]["recall:review"] == 1.0
    assert told["metrics"]["recall:review"] == [0.5, pytest.approx(0.4), pytest.approx(0.6)]
    assert told["metrics"]["average_precision"][1:] == [None, None]
    assert probe.look() == found
    assert asked == [1], "the truth of the same decisions is the same"
    del response.reports[:]
    assert probe.look() == {**found, "trouble": "UNAVAILABLE"}


def state(**more: Any) -> dict[str, Any]:
    told = {
        "version": "1.0", "arm": "champion", "n": 1_200, "labels": 70, "positive": 30, "note": "",
        "metrics": {
            "auc": [0.9, 0.85, 0.95],
            "average_precision": [0.7, None, None],
            "recall:review": [0.5, 0.4, 0.6],
            "precision:review": [None, None, None],
        },
        "truth": {"n": 1_200, "frauds": 31, "auc": 0.89, "recall:review": 0.52},
    }  # fmt: skip
    outcomes = {"reported": 80, "frauds": 31, "revised": 2, "waiting": 9, "trouble": ""}
    return {
        "outcomes": outcomes | more.pop("outcomes", {}),
        "exploring": {"is_hidden": False},
        "live_quality": {"reports": [told | more], "trouble": ""},
    }


def test_words_have_intervals_and_the_truth() -> None:
    lines = [words for _, words, _ in quality_rows(state(), live=False)]
    assert lines == [
        "80 reported, 31 as fraud; 2 took back what was said before; 9 to come",
        "AUC 0.900 [0.850, 0.950] (truth 0.890), average precision 0.700",
        "recall from review 0.500 [0.400, 0.600] (truth 0.520)",
        "of 1,200 decisions as champion, 70 with an outcome, 30 of them fraud (truth: 31)",
    ]
    assert len(list(quality_rows(state(), live=True))) == 3
    compared = state() | {"exploring": {"is_hidden": True}}  # elsewhere, at the end
    assert [words for _, words, _ in quality_rows(compared, live=False)] == [
        *lines[:2],
        lines[3].replace("(truth: 31)", "(truth: 31, with those blocked)"),
    ]
    assert len(list(quality_rows(compared, live=True))) == 3
    assert quality_line(state()) == "  learnt of 1.0: recall 50.0% (truth 52.0%)"


def test_words_say_what_is_not_known() -> None:
    early = state()
    early["live_quality"] = {"reports": [], "trouble": ""}
    rows = list(quality_rows(early, live=True))
    assert rows[-1] == ("learnt", "no decision is old enough yet", "")
    assert quality_line(early) == ""
    unknown = list(quality_rows(state(metrics={}), live=True))
    assert unknown[-1][1] == "1,200 decisions are old enough: too little is known"
    refused = list(quality_rows(state(outcomes={"trouble": "UNAVAILABLE: gone"}), live=True))
    assert refused[1][1:] == ("the control port does not take them: UNAVAILABLE: gone", "yellow")


def test_a_server_takes_the_options() -> None:
    options = OutcomeStory().serve_options("/somewhere", 500.0)
    flags = {
        flag.removeprefix("--").replace("-", ".", 1).replace("-", "_"): text
        for flag, text in zip(options[::2], options[1::2], strict=True)
    }
    feedback = load_settings(flags=flags).settings.feedback
    assert feedback.unseen_decisions == ("none",)
    assert feedback.records_per_s == 1_000
    assert feedback.maturity_s == OutcomeStory.maturity_s
