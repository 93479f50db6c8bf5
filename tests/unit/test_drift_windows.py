"""The two windows: what they keep, what they forget, and clocks that jump."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from server.drift import DriftSettings
from server.drift.fast import FastWindow
from server.drift.hours import hour_of_week, same_hours
from server.drift.slow import SlowWindow
from server.errors import InputError
from tests.support.drift import (
    FEATURES,
    MINUTE_MS,
    START_MS,
    feed,
    make_monitor,
    make_rows,
    raw_of,
    sources_of,
)

LAW = settings(max_examples=40, deadline=None, derandomize=True)
HOUR_MS = 60 * MINUTE_MS


def add(window: FastWindow, times: np.ndarray, value: np.ndarray) -> None:
    window.add(np.stack([value, value]).astype(np.float32), np.zeros((1, len(times)), bool), times)


def test_little_traffic_is_kept_whole() -> None:
    window = FastWindow(2, 1, 200, 600_000)
    times = START_MS + np.arange(500) * 30_000
    for start in range(0, 500, 7):
        add(window, times[start : start + 7], np.arange(start, min(start + 7, 500)))
    values, fallback, kept = window.rows()
    assert values[0].tolist() == list(range(300, 500))
    assert kept.tolist() == times[300:].tolist()
    assert fallback.shape == (1, 200)
    assert window.first_row == 300


def test_much_traffic_is_thinned_evenly_over_the_span() -> None:
    window = FastWindow(2, 1, 2000, 600_000)
    n = 200_000  # over twenty minutes
    times = START_MS + np.arange(n) * 1_200_000 // n
    for start in range(0, n, 900):
        add(window, times[start : start + 900], np.arange(start, min(start + 900, n)))
    values, _, _ = window.rows()
    assert window.n_rows == 2000
    assert 600_000 <= window.span_ms <= 800_000
    kept = np.sort(values[0])
    assert len(np.unique(kept)) == 2000
    # A uniform sample of what each slot saw: no gap of more than a few slots' luck.
    first = int(kept[0])
    position = (kept - first) / (n - first)
    assert np.abs(position - np.linspace(0, 1, 2000)).max() < 0.05
    # Nor are a slot's first rows likelier than its last.
    slot_ms = -(-600_000 // 18)
    slot = times[kept.astype(int)] // slot_ms
    for one in np.unique(slot)[1:-1]:
        rows = np.flatnonzero(times // slot_ms == one)
        place = (kept[slot == one] - rows[0]) / len(rows)
        assert len(place) == 100
        assert kstest(place, "uniform").pvalue > 1e-4


@LAW
@given(st.lists(st.integers(1, 400), min_size=1, max_size=20), st.integers(1, 3000))
def test_a_full_window_spans_its_time_however_rows_come(batches: list[int], gap_ms: int) -> None:
    window = FastWindow(2, 1, 100, 60_000)
    now = START_MS
    for n in batches * 4:
        times = now + np.arange(n) * gap_ms // 10
        now = int(times[-1]) + gap_ms
        add(window, times, np.arange(n))
        assert window.n_rows <= 100
    if window.n_rows == 100:
        assert window.span_ms >= 60_000


@LAW
@given(st.integers(0, 1000), st.lists(st.integers(0, 90), min_size=2, max_size=12))
def test_panes_add_up_to_the_histogram_of_all_rows(seed: int, gaps: list[int]) -> None:
    _, _, reference = make_monitor()
    columns = reference.columns
    slow = SlowWindow(columns, 24 * HOUR_MS, 30 * MINUTE_MS)
    rng = np.random.default_rng(seed)
    rows = make_rows(rng, 50 * len(gaps))
    rows[rng.random(rows.shape) < 0.05] = np.nan
    values, fallback = columns.tidy(rows, raw_of(np.nan_to_num(rows)), None)
    now = START_MS
    for i, gap in enumerate(gaps):
        now += gap * MINUTE_MS
        part = slice(50 * i, 50 * i + 50)
        slow.add(values[:, part], fallback[:, part], np.full(50, now))
    assert np.array_equal(slow.total, columns.count(values, fallback))
    assert slow.n_rows == len(rows)
    assert slow.span_ms == (now - START_MS - gaps[0] * MINUTE_MS)


def test_a_day_later_a_pane_is_gone() -> None:
    monitor, clock, _ = make_monitor()
    rng = np.random.default_rng(0)
    feed(monitor, clock, make_rows(rng, 1000), minutes=60)
    clock.now_ms += 30 * HOUR_MS
    feed(monitor, clock, make_rows(rng, 700), minutes=20)
    evaluation = monitor.evaluate(force=True)
    assert evaluation is not None
    assert (evaluation.slow.n_rows, evaluation.fast.n_rows) == (700, 700)
    assert evaluation.fast.span_s <= 20 * 60


def test_clocks_that_jump_never_make_a_negative_span() -> None:
    monitor, clock, _ = make_monitor(DriftSettings(min_span_s=60))
    rng = np.random.default_rng(1)
    jumps = (0, -5 * HOUR_MS, 40, 3 * HOUR_MS, -2 * MINUTE_MS, 50 * HOUR_MS, -50 * HOUR_MS, 0)
    for jump in jumps:
        clock.now_ms += jump
        feed(monitor, clock, make_rows(rng, 300), minutes=5)
        evaluation = monitor.evaluate(force=True)
        assert evaluation is not None
        assert 0 <= evaluation.fast.span_s <= 24 * 3600
        assert 0 <= evaluation.slow.span_s <= 25 * 3600
    assert monitor.n_rebased == 2
    # Minutes after the last jump it watches as if nothing had been.
    for _ in range(3):
        feed(monitor, clock, make_rows(rng, 300), minutes=5)
    evaluation = monitor.evaluate(force=True)
    assert evaluation is not None
    assert evaluation.state == "stable"


def test_times_from_the_future_and_the_past_count_as_of_now() -> None:
    monitor, clock, _ = make_monitor()
    rng = np.random.default_rng(2)
    rows = make_rows(rng, 4)
    times = np.array([START_MS, START_MS + 10 * HOUR_MS, START_MS - 1000, 0])
    clock.now_ms = START_MS + 5
    monitor.observe(rows, raw_of(rows), None, times)
    assert (monitor.n_ahead, monitor.n_late, monitor.n_rebased) == (1, 0, 0)
    monitor.observe(rows, raw_of(rows), None, np.full(4, START_MS - 60_000))
    assert (monitor.n_late, monitor.n_rebased) == (4, 0)
    evaluation = monitor.evaluate(force=True)
    assert evaluation is not None
    assert evaluation.fast.span_s == 0.005
    # An evaluation is due when the clock has gone back, too.
    assert monitor.evaluate(clock.now_ms - 9 * HOUR_MS) is not None
    assert monitor.evaluate(clock.now_ms - 9 * HOUR_MS + 1) is None


@LAW
@given(st.integers(0, 1000), st.lists(st.integers(1, 900), min_size=0, max_size=6))
def test_what_was_kept_is_taken_up_whole(seed: int, sizes: list[int]) -> None:
    monitor, clock, _ = make_monitor(DriftSettings(n_rows=500, min_rows=100, min_span_s=60))
    twin, twin_clock, _ = make_monitor(monitor.settings)
    rng = np.random.default_rng(seed)
    for n in sizes:
        feed(monitor, clock, make_rows(rng, n), minutes=7)
        monitor.evaluate(force=True)
    kept = monitor.to_bytes()
    twin.restore(kept)
    assert twin.to_bytes() == kept
    assert twin.state == monitor.state
    # And both go on alike.
    twin_clock.now_ms = clock.now_ms
    more = make_rows(rng, 300)
    feed(monitor, clock, more, minutes=3)
    feed(twin, twin_clock, more, minutes=3)
    assert twin.to_bytes() == monitor.to_bytes()
    ours, theirs = monitor.evaluate(force=True), twin.evaluate(force=True)
    assert ours is not None
    assert theirs is not None
    assert (ours.features, ours.fast, ours.slow) == (theirs.features, theirs.fast, theirs.slow) or (
        ours.state == theirs.state == "warming"
    )


def test_what_cannot_be_taken_up_is_refused_and_changes_nothing() -> None:
    monitor, clock, _ = make_monitor()
    feed(monitor, clock, make_rows(np.random.default_rng(3), 800), minutes=30)
    kept = monitor.to_bytes()
    other, _, _ = make_monitor(seed=1)
    with pytest.raises(InputError, match="of another reference"):
        other.restore(kept)
    assert other.to_bytes() != kept
    for bad in (b"", kept[:-1], kept[:100] + b"\0" + kept[101:], b"x" + kept[1:]):
        with pytest.raises(InputError, match="kept drift windows"):
            monitor.restore(bad)
    hourly, _, _ = make_monitor(DriftSettings(pane_s=3600))
    with pytest.raises(InputError, match="panes"):
        hourly.restore(kept)
    assert monitor.to_bytes() == kept


def test_wrong_shapes_are_refused() -> None:
    monitor, _, _ = make_monitor()
    rows = make_rows(np.random.default_rng(0), 5)
    times = np.full(5, START_MS)
    with pytest.raises(ValueError, match="rows are needed"):
        monitor.observe(rows[:, :3], raw_of(rows), None, times)
    with pytest.raises(ValueError, match="rows are needed"):
        monitor.observe(rows, raw_of(rows), sources_of(4), times)
    monitor.observe(rows[:0], raw_of(rows[:0]), None, times[:0])
    assert monitor.n_observed == 0


def test_hours_of_the_week() -> None:
    monday = 1_704_067_200_000  # 2024-01-01 00:00 UTC, a Monday
    times = monday + np.array([0, HOUR_MS - 1, HOUR_MS, 5 * 24 * HOUR_MS, 7 * 24 * HOUR_MS - 1])
    assert hour_of_week(times).tolist() == [0, 0, 1, 120, 167]


def test_same_hours_mix_the_reference_as_the_window_is_mixed() -> None:
    reference = np.zeros((168, 2), np.int64)
    reference[10], reference[11], reference[12] = (90, 10), (0, 100), (1, 1)
    window = np.zeros((168, 2), np.int64)
    window[10], window[11] = (30, 0), (0, 10)
    same = same_hours(window, reference)
    assert same is not None
    assert (same.expected / same.expected.sum()).tolist() == pytest.approx([0.675, 0.325])
    assert same.n_reference == pytest.approx(1 / (0.75**2 / 100 + 0.25**2 / 100))
    assert same.window.tolist() == [30, 10]
    window[12] = (50, 0)  # the reference has two rows there: most of the window is unknown
    assert same_hours(window, reference) is None


def test_features_have_the_space_that_they_need() -> None:
    _, _, reference = make_monitor()
    assert [reference.columns.n_categories[j] for j in range(len(FEATURES))] == [0, 2, 3, 0]
