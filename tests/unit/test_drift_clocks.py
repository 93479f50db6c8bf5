"""Clocks that jump, of the process and of whoever sends: what a monitor holds stays sound."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from server.drift import DriftSettings
from tests.support.drift import START_MS, make_monitor, make_rows, raw_of, sources_of

HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS
SPAN_S = 7200
SETTINGS = DriftSettings(n_rows=300, min_rows=100, min_span_s=60, slow_span_s=SPAN_S, pane_s=600)

# Minutes and hours as a clock is corrected; years as one that lost its battery.
JUMPS = st.one_of(
    st.integers(-90 * 60_000, 90 * 60_000),
    st.integers(-30 * HOUR_MS, 30 * HOUR_MS),
    st.sampled_from([-40 * YEAR_MS, -YEAR_MS, 0, YEAR_MS, 100 * YEAR_MS]),
)
TIMES = st.one_of(
    st.just("none"),  # the sender says no time
    st.just("clock"),
    JUMPS,  # beside the clock
    st.sampled_from([2**63 - 1, -(2**63), 1, 0]),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps=st.lists(st.tuples(JUMPS, TIMES, st.integers(1, 250)), min_size=1, max_size=8))
def test_windows_are_sound_after_any_jumps(steps: list[tuple[int, int | str, int]]) -> None:
    monitor, clock, _ = make_monitor(SETTINGS)
    rng = np.random.default_rng(len(steps))
    for i, (jump, moment, n) in enumerate(steps):
        clock.now_ms = max(1, clock.now_ms + jump)
        if moment == "none":
            times = np.zeros(n, np.int64)
        elif moment == "clock":
            times = clock.now_ms + np.arange(n)
        elif isinstance(moment, int) and abs(moment) < 200 * YEAR_MS:
            times = clock.now_ms + moment + np.arange(n)
        else:
            times = np.full(n, moment)
        rows = make_rows(rng, n)
        monitor.observe(rows, raw_of(rows), sources_of(n), times.astype(np.int64))
        evaluation = monitor.evaluate(force=True)
        assert evaluation is not None
        fast, slow = evaluation.fast, evaluation.slow
        # What came just now is there, unless so much came in one moment that it was thinned.
        assert 1 <= fast.n_rows <= SETTINGS.n_rows
        assert n <= slow.n_rows <= sum(step[2] for step in steps[: i + 1])
        assert 0 <= fast.span_s <= SPAN_S
        assert 0 <= slow.span_s <= SPAN_S
        assert evaluation.state != "warming" or not fast.is_ready
        kept = monitor.to_bytes()
        twin, _, _ = make_monitor(SETTINGS)
        twin.restore(kept)
        assert twin.to_bytes() == kept


@settings(max_examples=20, deadline=None, derandomize=True)
@given(jump=JUMPS)
def test_after_a_jump_a_monitor_finds_back_by_itself(jump: int) -> None:
    monitor, clock, _ = make_monitor(SETTINGS)
    rng = np.random.default_rng(1)

    def pass_minutes(minutes: int) -> None:
        for _ in range(minutes):
            clock.now_ms += 60_000
            rows = make_rows(rng, 20)
            monitor.observe(rows, raw_of(rows), sources_of(20), np.zeros(20, np.int64))

    pass_minutes(30)
    clock.now_ms = max(START_MS - 50 * YEAR_MS, clock.now_ms + jump)
    pass_minutes(100)  # up to an hour back is taken for a late stream: as of the newest time seen
    evaluation = monitor.evaluate()
    assert evaluation is not None
    assert evaluation.state == "stable"
    assert evaluation.fast.span_s >= 60
    assert evaluation.slow.n_rows >= 2000
