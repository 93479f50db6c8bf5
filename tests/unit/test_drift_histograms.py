"""Histograms for people: bins that lose no row, in the reference and in both windows."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from server.drift import DriftSettings, Monitor, MonitoredFeature, reference_from_arrays
from server.drift.histograms import MAX_BINS, OTHERS
from server.export.reference import build_reference
from tests.support.drift import START_MS, Clock, feed, make_monitor, make_rows, raw_of

SETTINGS = DriftSettings(n_rows=1000, min_span_s=0)


def monitor_of(
    column: np.ndarray, feature: MonitoredFeature, time_ms: np.ndarray | None = None
) -> tuple[Monitor, Clock]:
    """A monitor of one feature; the raw score is the feature's value."""
    rows = column.astype(np.float32)[:, None]
    arrays = build_reference(rows, rows[:, 0], [feature], time_ms)
    clock = Clock()
    return Monitor(reference_from_arrays(arrays, [feature]), [feature], SETTINGS, clock), clock


def observe(monitor: Monitor, clock: Clock, column: np.ndarray) -> None:
    rows = column.astype(np.float32)[:, None]
    monitor.observe(rows, rows[:, 0], None, np.full(len(rows), clock.now_ms))


def test_every_present_row_is_in_one_bin_of_each_column() -> None:
    monitor, clock, reference = make_monitor(SETTINGS)
    rows = make_rows(np.random.default_rng(1), 1500)
    rows[:100, 0] = np.nan
    feed(monitor, clock, rows[:500], minutes=1)
    feed(monitor, clock, rows[500:], minutes=1)
    found = monitor.histograms()
    assert len(found) == 5
    kept = rows[500:]  # of the fast window
    for j, histogram in enumerate(found):
        column = np.append(rows, raw_of(rows)[:, None], axis=1)[:, j]
        now = np.append(kept, raw_of(kept)[:, None], axis=1)[:, j]
        assert histogram.window.sum() == (~np.isnan(now)).sum()
        assert histogram.slow.sum() == (~np.isnan(column)).sum()
        assert histogram.reference.sum() == reference.n_rows
        sizes = {len(histogram.reference), len(histogram.window), len(histogram.slow)}
        assert sizes == {len(histogram.edges) + 1 if j in (0, 3, 4) else len(histogram.names)}
        assert max(sizes) <= MAX_BINS
    # As numpy counts them, by bins that include their upper edge.
    amount = kept[:, 0]
    place = np.searchsorted(found[0].edges, amount[~np.isnan(amount)], side="left")
    assert found[0].window.tolist() == np.bincount(place, minlength=len(found[0].window)).tolist()
    assert found[2].names == ("web", "pos", "phone", "unseen")
    assert found[2].window.tolist() == [*np.bincount(kept[:, 2].astype(int)), 0]


def test_bins_of_numbers_are_even_in_value() -> None:
    monitor, _ = monitor_of(
        np.random.default_rng(2).normal(size=20_000), MonitoredFeature(name="x")
    )
    edges = monitor.histograms()[0].edges
    assert len(edges) > 15
    assert edges[0] == pytest.approx(-2.33, abs=0.1)
    assert edges[-1] == pytest.approx(2.33, abs=0.1)
    assert np.diff(edges).max() < 2.5 * np.diff(edges).min()


def test_few_values_have_a_bin_each() -> None:
    column = np.random.default_rng(3).integers(0, 6, 5000)
    monitor, clock = monitor_of(column, MonitoredFeature(name="n"))
    observe(monitor, clock, np.full(700, 3))
    [histogram, _] = monitor.histograms()
    assert histogram.edges.tolist()[:5] == [0, 1, 2, 3, 4]
    assert histogram.window.tolist() == [0, 0, 0, 700, *[0] * (len(histogram.window) - 4)]
    counted = np.bincount(column)
    assert histogram.reference[:6].tolist() == counted.tolist()


def test_a_long_tail_does_not_put_most_rows_into_one_bin() -> None:
    column = np.random.default_rng(4).lognormal(sigma=4, size=20_000)
    monitor, _ = monitor_of(column, MonitoredFeature(name="x"))
    counts = monitor.histograms()[0].reference
    assert counts.max() < 0.1 * counts.sum()


def test_rare_categories_are_one_bin_and_unseen_is_told() -> None:
    names = tuple(f"c{i}" for i in range(60))
    rng = np.random.default_rng(5)
    feature = MonitoredFeature(name="c", type="categorical", vocabulary=names)
    monitor, clock = monitor_of(rng.integers(0, 60, 5000), feature)
    observe(monitor, clock, np.append(np.full(600, 59), np.full(100, 60)))
    [histogram, _] = monitor.histograms()
    assert len(histogram.names) == MAX_BINS
    assert histogram.names[-2:] == (OTHERS, "unseen")
    assert dict(zip(histogram.names, histogram.window, strict=True))["c59"] == 600
    assert histogram.window[-1] == 100
    assert histogram.reference.sum() == 5000


def test_calendar_features_are_shown_as_of_the_same_hours() -> None:
    hour_ms = 3_600_000
    times = START_MS + np.arange(168 * 30) * hour_ms // 30
    night = (times // hour_ms % 24 < 6).astype(np.float32)
    feature = MonitoredFeature(name="night", type="boolean", monitor="calendar")
    monitor, clock = monitor_of(night, feature, times)
    clock.now_ms = int(times[np.flatnonzero(night)[40]])  # in a night
    observe(monitor, clock, np.ones(700))
    [histogram, raw] = monitor.histograms()
    assert histogram.reference[0] == 0  # that hour is always night
    assert histogram.window.tolist() == [0, 700, 0]
    assert not len(histogram.slow)
    assert raw.window.sum() == 700


def test_nothing_seen_is_no_failure() -> None:
    monitor, _, reference = make_monitor(SETTINGS)
    for histogram in monitor.histograms():
        assert histogram.window.sum() == 0
        assert histogram.reference.sum() == reference.n_rows


def test_counting_does_not_hold_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, clock, _ = make_monitor(SETTINGS)
    rows = make_rows(np.random.default_rng(6), 1000)
    feed(monitor, clock, rows, minutes=1)
    counting, go_on = threading.Event(), threading.Event()

    def slowly(*_: object) -> tuple[()]:
        counting.set()
        assert go_on.wait(10)
        return ()

    monkeypatch.setattr("server.drift.monitor.histograms", slowly)
    asking = threading.Thread(target=monitor.histograms)
    asking.start()
    assert counting.wait(10)
    started = time.monotonic()
    feed(monitor, clock, rows, minutes=1)  # would wait for ever
    assert time.monotonic() - started < 10
    go_on.set()
    asking.join()
