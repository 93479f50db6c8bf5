"""Drift of a served model: silent while nothing changes, loud and right when something does."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pandas as pd

from server.pb.scoregate.v1 import scoring_pb2 as pb
from server.pb.scoregate.v1 import scoring_pb2_grpc as pb_grpc
from tests.support.serving import FEATURES, MODEL, Serving, example_rows

LABEL = {"model": MODEL, "model_version": "2"}
SETTINGS = {
    "drift.min_span_s": 0.1,
    "drift.interval_s": 0.2,
    "drift.drain_s": 0.05,
    "drift.window_rows": 1000,
    "drift.rows_per_s": 100_000,
}
WAIT_S = 30.0


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)


class Traffic:
    """Transactions for a server, as they were at validation or changed."""

    def __init__(self, server: Serving, label: dict[str, str] = LABEL) -> None:
        self.server = server
        self.label = label
        self.sent = 0
        # Decisions before the monitor stands are nobody's, and its rate is set a moment later:
        # before it is looked at again.
        until(lambda: "ml_drift_state{" in server.http("/metrics")[1])
        until(lambda: server.metric("ml_drift_evaluations_total", **label, result="ok") >= 1)

    def send(self, rows: pd.DataFrame) -> None:
        with grpc.insecure_channel(self.server.fast) as channel:
            stub = pb_grpc.ScoringStub(channel)  # type: ignore[no-untyped-call]
            for _, row in rows.iterrows():
                request = pb.ScoreRequest()
                for name in FEATURES:
                    if not math.isnan(row[name]):
                        request.named.values[name].number = float(row[name])
                stub.Score(request)
        self.sent += len(rows)
        until(lambda: self.server.metric("ml_drift_samples_total") >= self.sent)

    def state(self) -> str:
        # Of one scrape: between two the state may change.
        label = ",".join(f'{name}="{value}"' for name, value in self.label.items())
        page = self.server.http("/metrics")[1]
        [state] = re.findall(rf'^ml_drift_state{{{label},state="(\w+)"}} 1\.0$', page, re.MULTILINE)
        return str(state)


def usual(n_rows: int, seed: int) -> pd.DataFrame:
    return example_rows(n_rows, seed)[0].astype(np.float64)


def test_no_alarm_without_drift_and_the_right_feature_with_it() -> None:
    with Serving(settings=SETTINGS) as server:
        traffic = Traffic(server)
        assert math.isnan(server.metric("ml_data_drift_score", **LABEL))
        assert traffic.state() == "warming"
        traffic.send(usual(1500, 11))
        until(lambda: traffic.state() == "stable")
        assert server.metric("ml_data_drift_score", **LABEL) < 0.1
        cents = usual(1500, 12)
        cents["amount"] *= 100.0
        traffic.send(cents)
        until(lambda: traffic.state() in ("warning", "retrain"))
        scores = {
            name: server.metric("ml_feature_drift_score", **LABEL, feature=name)
            for name in FEATURES
        }
        assert max(scores, key=scores.__getitem__) == "amount"
        assert scores["amount"] > 0.3
        assert scores["risk"] < 0.1
        assert server.metric("ml_drift_evaluations_total", **LABEL, result="failed") == 0
        assert server.metric("ml_drift_samples_dropped_total") == 0


def test_a_feature_that_stays_away_is_a_broken_pipeline() -> None:
    with Serving(settings=SETTINGS) as server:
        traffic = Traffic(server)
        silent = usual(1500, 13)
        silent["risk"] = math.nan
        traffic.send(silent)
        until(lambda: traffic.state() == "broken")
        assert server.metric("ml_feature_missing_ratio", **LABEL, feature="risk") > 0.5


def test_windows_survive_a_restart(tmp_path: Path) -> None:
    settings = {**SETTINGS, "rollout.journal": str(tmp_path / "journal.db")}
    with Serving(settings=settings) as server:
        Traffic(server).send(usual(1200, 14))
    with Serving(settings=settings) as server:
        Traffic(server)
        window = {**LABEL, "window": "slow"}
        until(lambda: server.metric("ml_drift_window_observations", **window) == 1200)


def test_it_can_be_switched_off() -> None:
    with Serving(settings={"drift.enabled": False}) as server:
        assert "ml_drift" not in server.http("/metrics")[1]
