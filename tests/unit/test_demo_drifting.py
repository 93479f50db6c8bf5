"""The demo of drift without processes: faults, windows of its clock, its Prometheus' files."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.config import load_settings
from server.demo.drift_state import DriftProbe
from server.demo.drift_words import drift_line, drift_news, drift_rows
from server.demo.drifting import DriftStory
from server.demo.faults import FAULTS, KINDS, FaultKind
from server.demo.prometheus import write_config
from server.demo.traffic import WEEK_MS, Rows, Traffic
from server.pb.scoregate.v1 import control_pb2
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.prometheus import promtool

NAMES = ("TX_AMOUNT", "TX_DURING_WEEKEND", "TX_DURING_NIGHT")
COLUMNS = [(name, "boolean" if "DURING" in name else "numeric") for name in NAMES]
N_ROWS = 40
DAY_MS = 86_400_000


@pytest.fixture
def rows() -> Rows:
    rng = np.random.default_rng(1)
    features = np.column_stack([rng.uniform(1, 99, N_ROWS), rng.integers(0, 2, (N_ROWS, 2))])
    ids = np.arange(N_ROWS).astype(np.str_)
    return Rows(
        names=np.array(NAMES),
        features=features.astype(np.float32),
        fraud=np.zeros(N_ROWS, np.bool_),
        transaction=ids,
        customer=ids,
        terminal=ids,
        event_time_ms=np.linspace(0, 6.9 * DAY_MS, N_ROWS).astype(np.int64),
        versions=np.array(["1.0"]),
        raw_score=np.zeros((1, N_ROWS), np.float32),
    )


def values(traffic: Traffic, call: int) -> list[float]:
    """Return what a call sends, in the order of the columns; NaN: it does not."""
    turn, row = divmod(call, N_ROWS)
    request = pb.ScoreRequest.FromString(traffic.request(row, turn))
    if request.HasField("dense"):
        return list(request.dense.values)
    named = request.named.values
    return [
        (float(named[name].flag) if kind == "boolean" else named[name].number)
        if name in named
        else np.nan
        for name, kind in COLUMNS
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_faults_begin_when_they_should_and_touch_nothing_else(rows: Rows, kind: FaultKind) -> None:
    first = N_ROWS + 7  # in the second turn
    traffic = Traffic(rows, COLUMNS, 1, incomplete_share=0.0, fault=kind, first_faulty=first)
    sent = np.array([values(traffic, call) for call in range(3 * N_ROWS)], np.float32)
    expected = np.tile(rows.features, (3, 1))
    if kind == "amount":
        expected[first:, 0] *= np.float32(100)
    elif kind == "dropped":
        expected[first:, 2] = np.nan
    elif kind == "stuck":
        expected[first:, 0] = expected[first, 0]
    np.testing.assert_array_equal(sent, expected)
    assert [traffic.is_faulty(call) for call in (first - 1, first)] == [False, kind != "none"]
    assert FAULTS[kind].feature in ("", *NAMES)


def test_a_turn_is_whole_weeks_later_than_the_one_before(rows: Rows) -> None:
    assert rows.period_ms == WEEK_MS
    traffic = Traffic(rows, COLUMNS, 1, period_ms=rows.period_ms)

    def sent_ms(row: int, turn: int) -> int:
        return pb.ScoreRequest.FromString(traffic.request(row, turn)).event_time_ms

    assert sent_ms(3, 0) == rows.event_time_ms[3]
    assert sent_ms(3, 2) - sent_ms(3, 0) == 2 * WEEK_MS
    assert sent_ms(0, 1) > sent_ms(N_ROWS - 1, 0)


@pytest.mark.parametrize("rate", [0.1, 40.0, 500.0, 20_000.0])
@pytest.mark.parametrize("n_test", [50, 4_000, 70_000])
def test_windows_are_what_a_server_takes(rate: float, n_test: int) -> None:
    story = DriftStory("amount", rate, rate * 7 * 86_400 / n_test)
    options = story.serve_options
    flags = {
        flag.removeprefix("--").replace("-", ".", 1).replace("-", "_"): text
        for flag, text in zip(options[::2], options[1::2], strict=True)
    }
    drift = load_settings(flags=flags).settings.drift
    rows_per_s = min(rate, drift.rows_per_s)
    fast_s = drift.window_rows / rows_per_s
    # The calm is long enough for the fast window, and for the slow one to be full.
    assert fast_s < story.after_s
    assert drift.min_span_s <= fast_s * story.speed / 2
    if drift.slow_span_s > 60:  # else the replay is slower than time
        assert drift.slow_span_s / story.speed < story.after_s
    assert drift.pane_s * 12 <= drift.slow_span_s
    assert 3600 % drift.pane_s == 0


def test_the_users_moment_counts() -> None:
    assert DriftStory("amount", 500, 4000, 7.5).after_s == 7.5
    assert any("after 7.5 s, " in line for line in DriftStory("amount", 500, 1, 7.5).lines("", ""))


def test_prometheus_files_are_ours_with_another_target(tmp_path: Path) -> None:
    config = write_config(tmp_path / "p", "127.0.0.1:1234")
    text = config.read_text()
    assert '"127.0.0.1:1234"' in text
    assert "9464" not in text
    assert text.count(": 1s") == 2
    drift = (tmp_path / "p" / "rules" / "drift.yml").read_text()
    assert re.findall(r"(?m)^ +for: (.*)$", drift)[:2] == ["5s", "10s"]
    server = (tmp_path / "p" / "rules" / "server.yml").read_text()
    assert "for: 2m" in server
    done = promtool("check", "config", config)
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------------------------- words


def drift_report(state: str, score: float, amount: float) -> control_pb2.DriftReport:
    return control_pb2.DriftReport(
        version="1.0",
        state=state,
        score=score,
        warn=0.1,
        reasons=["raw score: moved", "TX_AMOUNT: moved too"] if amount else [],
        features=[
            control_pb2.FeatureDrift(name="TX_DURING_NIGHT", score=0.01),
            control_pb2.FeatureDrift(name="TX_AMOUNT", score=amount),
        ],
    )


def state_of(probe: DriftProbe, at_s: float, *, is_begun: bool, **more: Any) -> dict[str, Any]:
    drift = probe.look(at_s) | {"kind": "amount", "after_s": 15.0, "is_begun": is_begun}
    return {"drift": drift, "elapsed_s": at_s, "faulty": {}, "alerts": [], **more}


def test_what_happens_is_told_once_and_in_order() -> None:
    answers = iter(
        [
            drift_report("warming", float("nan"), 0.0),
            drift_report("stable", 0.0, 0.0),
            drift_report("warning", 0.4, 0.4),
            drift_report("warning", 0.6, 0.6),
        ]
    )

    def get_drift(_request: object, *, timeout: float) -> object:
        assert timeout > 0
        return SimpleNamespace(reports=[next(answers)])

    probe = DriftProbe(get_drift)  # type: ignore[arg-type]  # all that it reads is `reports`
    state = state_of(probe, 0.5, is_begun=False)
    assert "warming" in drift_line(state)
    assert "score" not in drift_line(state)
    state = state_of(probe, 1.0, is_begun=False)
    assert ("injected", "in 14 s: " + FAULTS["amount"].words, "") in drift_rows(state, live=True)
    state_of(probe, 15.5, is_begun=True)
    state = state_of(probe, 16.0, is_begun=True, alerts=[["ScoregateModelDrift", "firing"]])
    assert drift_news(state) == [
        "    0.5 s  drift of 1.0: warming",
        "    1.0 s  drift of 1.0: warming -> stable",
        f"   15.0 s  from now on, {FAULTS['amount'].words}",
        "   15.5 s  drift of 1.0: stable -> warning (TX_AMOUNT: moved too)",
        "  alert ScoregateModelDrift is firing",
    ]
    told = list(drift_rows(state, live=False))
    assert told[0] == ("alerts", "ScoregateModelDrift firing", "red")
    assert ("drift of 1.0", "warning, score 0.60: TX_AMOUNT 0.60", "yellow") in told
    assert told[-1][1] == "warming at 0.5 s, stable at 1.0 s, warning at 15.5 s"


def test_a_demo_that_is_not_about_drift_says_nothing_of_it() -> None:
    state = {"elapsed_s": 1.0, "faulty": {}, "alerts": []}
    assert list(drift_rows(state, live=True)) == []
    assert drift_news(state) == []
    assert drift_line(state) == ""
