"""The monitor: what it says of rows that changed, and how seldom it speaks without cause."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from server.drift import DriftSettings, Evaluation, Monitor, MonitoredFeature, reference_from_arrays
from server.drift.comparison import compare
from server.drift.hours import hour_of_week
from server.export.baseline import baseline_arrays
from server.export.reference import build_reference, reference_arrays
from tests.support.drift import (
    FEATURES,
    START_MS,
    Clock,
    feed,
    make_monitor,
    make_rows,
    raw_of,
    sources_of,
)

# A slow window of two hours, so that a test can fill it.
QUICK = DriftSettings(n_rows=1000, slow_span_s=7200, pane_s=600)


def running(settings: DriftSettings = QUICK) -> tuple[Monitor, Clock, np.random.Generator]:
    """Return a monitor after two and a half quiet hours."""
    monitor, clock, _ = make_monitor(settings)
    rng = np.random.default_rng(7)
    for _ in range(15):
        feed(monitor, clock, make_rows(rng, 400), minutes=10)
    assert look(monitor).state == "stable"
    return monitor, clock, rng


def look(monitor: Monitor) -> Evaluation:
    evaluation = monitor.evaluate(force=True)
    assert evaluation is not None
    return evaluation


def test_an_evaluation_is_plain_data() -> None:
    monitor, clock, _ = make_monitor()
    feed(monitor, clock, make_rows(np.random.default_rng(0), 1000), minutes=30)
    assert b'"n_rows":1000' in msgspec.json.encode(look(monitor))


def test_warming_says_nothing_not_zero() -> None:
    monitor, clock, _ = make_monitor()
    rng = np.random.default_rng(0)
    assert (monitor.state, monitor.evaluation) == ("warming", None)
    feed(monitor, clock, make_rows(rng, 599), minutes=30)
    evaluation = look(monitor)
    assert evaluation.state == "warming"
    assert np.isnan(evaluation.score)
    assert evaluation.reasons == ("599 of 600 rows, 10 of 10 minutes",)
    feed(monitor, clock, make_rows(rng, 1), minutes=0.01)
    assert look(monitor).state == "stable"
    # Enough rows, too short a time.
    hasty, clock, _ = make_monitor()
    feed(hasty, clock, make_rows(rng, 50_000), minutes=9)
    assert look(hasty).state == "warming"
    feed(hasty, clock, make_rows(rng, 50_000), minutes=2)
    assert look(hasty).state == "stable"
    assert look(hasty).fast.span_s >= 600


def test_no_change_is_stable_and_told_in_json() -> None:
    monitor, clock, rng = running()
    feed(monitor, clock, make_rows(rng, 1000), minutes=10)
    evaluation = look(monitor)
    assert (evaluation.state, evaluation.score, evaluation.drifted_share) == ("stable", 0, 0)
    assert evaluation.reasons == ()
    assert evaluation.slow.is_ready
    assert [f.measure for f in evaluation.features] == ["ks", "js", "js", "ks"]
    assert evaluation.features[0].psi < 0.1
    plain = msgspec.json.decode(msgspec.json.encode(evaluation))
    assert plain["features"][2]["categories"][0]["name"] in {"web", "pos", "phone"}
    assert len(plain["features"][0]["quantiles"]["50"]) == 2


def test_a_unit_change_is_a_warning_and_then_a_retrain_that_names_the_feature() -> None:
    monitor, clock, rng = running()
    seen = []
    for _ in range(16):
        rows = make_rows(rng, 400)
        rows[:, 0] *= 100
        feed(monitor, clock, rows, minutes=10)
        seen.append(look(monitor))
    states = [e.state for e in seen]
    assert states[0] == "warning"
    assert states[-1] == "retrain"
    # Never before two windows that share no row: 1,000 rows each, all of them changed or not.
    first = states.index("retrain")
    assert first >= 3
    assert set(states[:first]) == {"warning"}
    assert set(states[first:]) == {"retrain"}
    last = seen[-1]
    assert last.reasons[0].startswith("amount: KS distance")
    before, now = last.features[0].quantiles["50"]
    assert now / before == pytest.approx(100, rel=0.2)
    assert last.features[0].score > 0.9 > 0.1 > last.features[3].score
    assert 0.2 < last.mean < last.score
    assert last.drifted_share == 0.25


def test_a_retrain_waits_for_the_slow_window() -> None:
    monitor, clock, _ = make_monitor(DriftSettings(n_rows=1000))
    rng = np.random.default_rng(1)
    for _ in range(10):  # changed from the start, but for two hours only
        rows = make_rows(rng, 500)
        rows[:, 0] *= 100
        feed(monitor, clock, rows, minutes=12)
        evaluation = look(monitor)
    assert evaluation.state == "warning"
    assert "slow window is not full yet" in evaluation.reasons[-1]
    # A burst that the day does not bear out.
    monitor, clock, rng = running(msgspec.structs.replace(QUICK, slow_agreement=0.9))
    for _ in range(4):
        rows = make_rows(rng, 500)
        rows[:, 0] *= 100
        feed(monitor, clock, rows, minutes=6)
        evaluation = look(monitor)
    assert evaluation.state == "warning"
    assert "does not agree" in evaluation.reasons[-1]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("missing", "amount: missing values in 100.0% of rows, 0.0% before"),
        ("fallback", "n_day: fallbacks in 100.0% of rows, 0.0% before"),
        ("unseen", "channel: unseen categories in"),
        ("code", "channel: unseen categories in"),
        ("stuck", "n_day: the same value in nearly every row"),
    ],
)
def test_faults_of_the_pipeline_are_not_a_reason_to_retrain(fault: str, reason: str) -> None:
    monitor, clock, rng = running()
    for _ in range(12):
        rows = make_rows(rng, 400)
        sources = sources_of(400)
        if fault == "missing":
            sources[:, 0], rows[:, 0] = 4, 1.0
        elif fault == "fallback":
            sources[:, 3] = 3
        elif fault == "unseen":
            sources[rng.random(400) < 0.2, 2] = 5
        elif fault == "code":
            rows[rng.random(400) < 0.2, 2] = 3
        else:
            rows[:, 3] = 2
        feed(monitor, clock, rows, minutes=10, sources=sources)
        evaluation = look(monitor)
    assert evaluation.state == "broken"
    assert evaluation.reasons[0].startswith(reason)
    assert evaluation.score >= 0.1
    # Mended, it is forgotten with the window.
    for _ in range(4):
        feed(monitor, clock, make_rows(rng, 400), minutes=10)
    assert look(monitor).state == "stable"


def test_a_default_is_a_missing_value_not_a_drift() -> None:
    monitor, clock, rng = running()
    for _ in range(4):
        rows, sources = make_rows(rng, 400), sources_of(400)
        gone = rng.random(400) < 0.06
        rows[gone, 0], sources[gone, 0] = 1e6, 4
        feed(monitor, clock, rows, minutes=10, sources=sources)
    evaluation = look(monitor)
    amount = evaluation.features[0]
    assert evaluation.state == "stable"
    assert amount.missing.score == pytest.approx(0.06, abs=0.03)
    assert not amount.is_significant
    assert amount.n_window == 1000 - round(1000 * amount.missing.window)


def test_a_number_that_was_mostly_one_value_is_not_stuck() -> None:
    feature = (MonitoredFeature(name="risk"),)
    rng = np.random.default_rng(9)

    def state(share: float) -> str:
        rows = (rng.random((8000, 1)) * (rng.random((8000, 1)) > share)).astype(np.float32)
        reference = reference_from_arrays(
            build_reference(rows, rows[:, 0].copy(), feature), feature
        )
        monitor = Monitor(reference, feature, DriftSettings(min_span_s=0), lambda: START_MS)
        same = np.zeros((1500, 1), np.float32)
        monitor.observe(same, rows[:1500, 0].copy(), None, np.full(1500, START_MS))
        evaluation = look(monitor)
        assert evaluation.features[0].is_significant
        return evaluation.state

    assert state(0.92) == "stable"
    assert state(0.85) == "broken"


def test_weight_off_and_mean() -> None:
    rng = np.random.default_rng(3)
    rows = make_rows(rng, 8000)
    now = make_rows(rng, 1000)
    now[:, 0] *= 3

    def scores(**change: object) -> tuple[float, float]:
        features = (msgspec.structs.replace(FEATURES[0], **change), *FEATURES[1:])
        reference = reference_from_arrays(build_reference(rows, raw_of(rows), features), features)
        counts = reference.columns.count(
            *reference.columns.tidy(now, np.ones(1000, np.float32), None)
        )
        found = compare(reference, counts, DriftSettings())
        return found.features[0].score, found.mean

    full, mean = scores()
    assert 0.3 < full < 1
    assert mean == pytest.approx(full / 4)
    assert scores(weight=0.25)[0] == pytest.approx(full / 4)
    assert scores(weight=10.0)[0] == 1
    assert scores(weight=0.0)[0] == 0
    assert np.isnan(scores(monitor="off")[0])
    by_mean = msgspec.structs.replace(QUICK, aggregate="mean")
    monitor, clock, rng = running(by_mean)
    changed = make_rows(rng, 1000)
    changed[:, 0] *= 3
    feed(monitor, clock, changed, minutes=30)
    evaluation = look(monitor)
    assert evaluation.score == evaluation.mean < evaluation.features[0].score / 3


def test_calendar_features_are_compared_with_the_same_hours() -> None:
    features = (
        MonitoredFeature(name="amount"),
        MonitoredFeature(name="night", type="boolean", monitor="calendar"),
    )
    rng = np.random.default_rng(4)

    def rows_at(times: np.ndarray) -> np.ndarray:
        night = hour_of_week(times) % 24 < 6
        return np.column_stack([rng.lognormal(size=len(times)), night]).astype(np.float32)

    week = START_MS + np.sort(rng.integers(0, 7 * 86_400_000, 20_000))
    rows = rows_at(week)
    arrays = build_reference(rows, rows[:, 0] + 3 * rows[:, 1], features, week)
    midnight = (START_MS // 86_400_000 + 30) * 86_400_000
    times = midnight + np.sort(rng.integers(0, 5 * 3_600_000, 1500))  # night only
    for shown, is_told in (("as it is", False), ("shifted by half a day", True)):
        now = rows_at(times + (43_200_000 if is_told else 0))
        monitor = Monitor(
            reference_from_arrays(arrays, features),
            features,
            DriftSettings(),
            lambda: int(times[-1]),
        )
        monitor.observe(now, now[:, 0] + 3 * now[:, 1], None, times)
        evaluation = look(monitor)
        assert (evaluation.features[1].score > 0.9) == is_told, shown
        # The raw score follows the flag through the model.
        assert evaluation.raw_score is not None
        assert (evaluation.raw_score.score > 0.5) == is_told, shown
        assert (evaluation.state == "stable") == (not is_told)
    # Without hours: told, and kept out.
    without = {k: v for k, v in arrays.items() if not k.startswith("hour_")}
    monitor = Monitor(
        reference_from_arrays(without, features), features, DriftSettings(), lambda: int(times[-1])
    )
    now = rows_at(times)
    monitor.observe(now, now[:, 0].copy(), None, times)
    night = look(monitor).features[1]
    assert (night.score, night.in_aggregate) == (0, False)
    assert "no hours of the week" in night.note


def test_false_alarms_are_as_rare_as_promised() -> None:
    """One cell of the grid in docs/monitoring.md, through the whole comparison.

    At a true rate of alpha, 400 windows would exceed this bound once in ten thousand runs; at ten
    times alpha nine in ten runs would.
    """
    n_windows, alpha = 400, 0.01
    settings = DriftSettings(alpha=alpha)
    rng = np.random.default_rng(5)
    features = (
        tuple(MonitoredFeature(name=f"f{j}", stored=j == 0) for j in range(8)) + FEATURES[1:3]
    )

    def sample(n: int) -> np.ndarray:
        common = rng.normal(size=(n, 1))
        numbers = np.sqrt(0.5) * common + np.sqrt(0.5) * rng.normal(size=(n, 8))
        return np.column_stack([numbers, make_rows(rng, n)[:, 1:3]]).astype(np.float32)

    base = build_reference(sample(1500), rng.normal(size=1500).astype(np.float32), features)
    alarms = warnings = 0
    for _ in range(n_windows):
        rows = sample(4000)
        arrays = _without_tables(rows, features, base)
        reference = reference_from_arrays(arrays, features)
        window = sample(600)
        values, fallback = reference.columns.tidy(window, window[:, 0].copy(), None)
        present = [np.sort(column) for column in values]
        found = compare(
            reference, reference.columns.count(values, fallback), settings, values=present
        )
        alarms += found.largest > 0
        warnings += found.largest >= settings.warn
    assert alarms <= binom.isf(1e-4, n_windows, alpha)
    assert warnings <= alarms
    assert binom.cdf(binom.isf(1e-4, n_windows, alpha), n_windows, 10 * alpha) < 0.1


def _without_tables(
    rows: np.ndarray, features: tuple[MonitoredFeature, ...], base: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Make a reference's data; the critical values do not depend on it and are dear."""
    from unittest.mock import patch

    with patch("server.export.reference.kstwo"):
        arrays = reference_arrays(
            rows,
            rows[:, 0].copy(),
            [f.type == "boolean" for f in features],
            n_categories=[f.n_categories for f in features],
        )
    tables = {name: array for name, array in base.items() if name.startswith("ks_")}
    return arrays | tables


def test_null_quantiles_tell_what_chunks_would_have_scored() -> None:
    rng = np.random.default_rng(6)
    rows = make_rows(rng, 6000)
    rows[3000:4000, 0] *= 2  # one hour of six was another
    arrays = reference_arrays(
        rows, raw_of(rows), [False, True, False, False], n_categories=[0, 2, 3, 0]
    )
    found = baseline_arrays(arrays, rows, raw_of(rows), FEATURES, None)
    assert found["null_chunks"].tolist() == [1000, 6]
    assert found["null_quantile"][-1] > 0.15
    assert found["null_quantile"][0] < 0.1


def test_the_serving_process_never_imports_scipy() -> None:
    code = (
        "import sys, server.drift, server.drift.monitor\n"
        "heavy = {'scipy', 'sklearn', 'pandas', 'onnx', 'onnxruntime'}\n"
        "sys.exit(bool(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_thirty_features_fit_the_memory_that_was_promised() -> None:
    rng = np.random.default_rng(8)
    features = tuple(MonitoredFeature(name=f"f{j}") for j in range(30))
    rows = rng.normal(size=(12_000, 30)).astype(np.float32)
    reference = reference_from_arrays(build_reference(rows, rows[:, 0].copy(), features), features)
    monitor = Monitor(reference, features, DriftSettings(n_rows=5000))
    assert 2e6 < monitor.n_bytes <= 16e6
