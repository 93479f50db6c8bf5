"""The handbook's test week, served, and its outcomes from a file: quality is the published one.

A logistic regression of the published protocol scores every transaction of the week through the
fast door. Then `scoregate outcomes load` tells what they were, and what the server makes of it is
held against scikit-learn's figures of the same rows, and the handbook's. Skips where the file of
transactions is absent.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.generator import Generator, Message
from fastpath.spec import layout_fingerprint
from server.export import ExportOptions, export_model
from server.pb.scoregate.v1 import feedback_pb2, feedback_pb2_grpc, scoring_pb2
from tests.support.clients import SCORE
from tests.support.handbook import FEATURES, Weeks, needs_handbook, read_weeks
from tests.support.serving import ROOT, Serving

pytestmark = needs_handbook

PUBLISHED = {"auc": 0.871, "average_precision": 0.606}
WITHIN = 0.01
REVIEW = 0.1
LIMIT_S = 60.0
ENV = {key: value for key, value in os.environ.items() if not key.startswith("SCOREG")}


class Served(NamedTuple):
    """A server that has scored the week."""

    server: Serving
    ids: list[str]
    fraud: npt.NDArray[np.bool_]
    amount: npt.NDArray[np.float32]
    score: npt.NDArray[np.float64]  # scikit-learn's own


def requests(weeks: Weeks, ids: list[str]) -> list[Message]:
    x = weeks.features(weeks.test).to_numpy()
    layout = layout_fingerprint([(name, "numeric") for name in FEATURES])
    made = []
    for id_, customer, row in zip(ids, weeks.test["CUSTOMER_ID"], x.tolist(), strict=True):
        request = scoring_pb2.ScoreRequest(request_id=id_)
        request.entities.add(role="payer", type="customer", id=str(customer))
        request.dense.layout = layout
        request.dense.values.extend(row)
        made.append(Message(SCORE, request.SerializeToString()))
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("handbook")
    weeks = read_weeks()
    train, test = weeks.features(weeks.train), weeks.features(weeks.test)
    model = make_pipeline(StandardScaler(), LogisticRegression(random_state=0))
    model.fit(train, weeks.train["TX_FRAUD"])
    options = ExportOptions(thresholds={"review": REVIEW}, target="TX_FRAUD")
    out = folder / "repository" / "fraud" / "1"
    target = weeks.train["TX_FRAUD"], weeks.test["TX_FRAUD"]
    export_model(model, train, target[0], test, target[1], out=out, options=options)
    ids = [f"handbook-{id_}" for id_ in weeks.test["TRANSACTION_ID"]]
    settings: dict[str, Any] = {
        "feedback.directory": str(folder / "decisions"),
        "feedback.records_per_s": 1e6,  # all of them
        "feedback.ring_records": 1 << 17,
        "feedback.maturity_s": 1.0,
        "feedback.window_s": 3600.0,
        "feedback.interval_s": 0.5,
        # A replay: whatever was decided, what came of it is known.
        "feedback.unseen_decisions": ["none"],
    }
    with Serving(folder / "repository", settings) as server:
        result = Generator(server.fast, requests(weeks, ids), order="cycle").run_closed(
            n_calls=len(ids)
        )
        assert result.status_counts == {"OK": len(ids)}
        yield Served(
            server,
            ids,
            weeks.test["TX_FRAUD"].to_numpy(np.bool_),
            weeks.test["TX_AMOUNT"].to_numpy(np.float32),
            model.predict_proba(test)[:, 1],
        )


def outcomes(served: Served, path: Path, chosen: npt.NDArray[np.bool_]) -> None:
    """Report the outcomes of some rows from a file, as an operator would."""
    pd.DataFrame(
        {
            "request_id": np.array(served.ids)[chosen],
            "label": served.fraud[chosen].astype(int),
            "amount": served.amount[chosen].round(2),
        }
    ).to_csv(path, index=False)
    command = [sys.executable, "-m", "server", "outcomes", "load", str(path)]
    done = subprocess.run(
        [*command, "--address", served.server.control],
        cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def quality(served: Served, cohort: str, n_labels: int) -> feedback_pb2.QualityReport:
    """Return the report of a cohort once it has all decisions, and as many labels."""
    limit = time.monotonic() + LIMIT_S
    with grpc.insecure_channel(served.server.control) as channel:
        stub: Any = feedback_pb2_grpc.FeedbackStub(channel)  # type: ignore[no-untyped-call]
        while True:
            found = stub.GetQuality(feedback_pb2.GetQualityRequest(), timeout=10).reports
            for report in found:
                whole = cohort == "labelled" or report.n_decisions == len(served.ids)
                if report.cohort == cohort and whole and report.n_labels == n_labels:
                    return feedback_pb2.QualityReport.FromString(report.SerializeToString())
            assert time.monotonic() < limit, f"{found}\n{served.server.stderr()}"
            time.sleep(0.2)


def value(report: feedback_pb2.QualityReport, name: str, threshold: str = "") -> float:
    [found] = [m for m in report.metrics if (m.name, m.threshold) == (name, threshold)]
    assert math.isnan(found.low) or found.low <= found.value <= found.high
    return found.value


def check(report: feedback_pb2.QualityReport, served: Served) -> None:
    """Hold a report of the whole week against scikit-learn's and the published figures."""
    fraud, score = served.fraud, served.score
    offline = {
        "auc": roc_auc_score(fraud, score),
        "average_precision": average_precision_score(fraud, score),
    }
    for name, expected in offline.items():
        assert value(report, name) == pytest.approx(expected, abs=WITHIN)
        assert value(report, name) == pytest.approx(PUBLISHED[name], abs=WITHIN)
    # Counted over a threshold, which is an edge of a bin: no approximation.
    recall = recall_score(fraud, score >= REVIEW)
    assert value(report, "recall", "review") == pytest.approx(recall, abs=1e-6)
    assert report.n_positive == fraud.sum()


def test_frauds_alone_and_silence_give_the_published_quality(
    served: Served, tmp_path: Path
) -> None:
    outcomes(served, tmp_path / "frauds.csv", served.fraud)
    check(quality(served, "matured", int(served.fraud.sum())), served)


def test_a_file_of_all_outcomes_gives_the_published_quality(served: Served, tmp_path: Path) -> None:
    every = np.ones(len(served.ids), np.bool_)
    outcomes(served, tmp_path / "week.csv", every)  # frauds a second time: nothing changes
    check(quality(served, "labelled", len(every)), served)
    check(quality(served, "matured", len(every)), served)
    assert served.server.metric("ml_feedback_records_dropped_total", reason="ring") == 0
