"""Schedules: what their rates promise, checked by counting and by a KS test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.errors import LoadInputError
from bench.schedule import Schedule

RATES = st.floats(20, 20_000)


def seconds(schedule: Schedule, duration_s: float) -> np.ndarray:
    return schedule.times_ns(duration_s) / 1e9


def test_constant_is_even() -> None:
    times = Schedule.constant(1000).times_ns(2.0)
    assert times.dtype == np.int64
    assert times.flags.c_contiguous
    assert len(times) == 2000
    assert times[0] == 0
    assert set(np.diff(times)) <= {999_999, 1_000_000, 1_000_001}


def test_poisson_gaps_are_exponential() -> None:
    times = seconds(Schedule.poisson(5000, seed=7), 20.0)
    assert abs(len(times) - 100_000) < 5 * math.sqrt(100_000)
    gaps = np.diff(times)
    assert stats.kstest(gaps, "expon", args=(0, 1 / 5000)).pvalue > 0.01
    # Independent: one gap says nothing about the next one.
    assert abs(stats.pearsonr(gaps[:-1], gaps[1:]).statistic) < 0.02
    # Arrivals of a Poisson process are uniform over the duration.
    assert stats.kstest(times / 20.0, "uniform").pvalue > 0.01


def test_the_ks_test_can_fail() -> None:
    gaps = np.diff(seconds(Schedule.constant(5000), 20.0))
    assert stats.kstest(gaps, "expon", args=(0, 1 / 5000)).pvalue < 1e-6


def test_a_seed_repeats_itself_and_another_does_not() -> None:
    first, again, other = (Schedule.poisson(100, seed=s).times_ns(5.0) for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@given(st.floats(0, 5000), st.floats(1, 5000), st.floats(0.5, 20))
@settings(max_examples=60, derandomize=True)
def test_a_ramp_integrates_its_rate(start: float, end: float, duration_s: float) -> None:
    if (start + end) / 2 * duration_s < 2:
        return
    times = seconds(Schedule.ramp(start, end), duration_s)
    grid = np.linspace(0, duration_s, 17)[1:-1]
    promised = start * grid + (end - start) / duration_s * grid**2 / 2
    counted = np.searchsorted(times, grid, side="right")
    # Call i is due when the integral reaches i: the count is its floor, plus the call at 0.
    assert np.all(np.abs(counted - (np.floor(promised + 1e-6) + 1)) <= 1)
    assert abs(len(times) - (start + end) / 2 * duration_s) <= 1.01


def test_a_falling_ramp_ends_in_silence() -> None:
    times = seconds(Schedule.ramp(1000, 0), 10.0)
    assert len(times) == 5000
    assert np.mean(times < 5.0) == pytest.approx(0.75, abs=0.001)


def test_a_random_ramp_has_the_rate_of_the_even_one() -> None:
    times = seconds(Schedule.ramp(0, 20_000, seed=1), 10.0)
    # The square of an arrival in a rising ramp is uniform.
    assert stats.kstest((times / 10.0) ** 2, "uniform").pvalue > 0.01


def test_bursts_open_every_period() -> None:
    times = seconds(Schedule.bursts(100, 2000, period_s=2.0, burst_s=0.5), 5.0)
    counts = np.histogram(times, bins=[0, 0.5, 2, 2.5, 4, 4.5, 5])[0]
    assert np.all(np.abs(counts - np.array([1000, 150, 1000, 150, 1000, 50])) <= 1)


def test_bursts_out_of_nothing() -> None:
    times = seconds(Schedule.bursts(0, 1000, period_s=1.0, burst_s=0.1, seed=5), 10.0)
    assert np.all(times % 1.0 < 0.1)
    assert abs(len(times) - 1000) < 5 * math.sqrt(1000)


@given(
    st.one_of(
        st.builds(Schedule.constant, RATES),
        st.builds(Schedule.poisson, RATES, st.integers(0, 2**63)),
        st.builds(Schedule.ramp, RATES, RATES, st.none() | st.integers(0, 9)),
        st.builds(
            Schedule.bursts, RATES, RATES, st.just(0.7), st.just(0.2), st.none() | st.integers(0, 9)
        ),
    ),
    st.floats(4.0, 6.0),
)
@settings(max_examples=80, derandomize=True)
def test_times_ascend_within_the_duration(schedule: Schedule, duration_s: float) -> None:
    times = schedule.times_ns(duration_s)
    assert times[0] >= 0
    assert times[-1] < duration_s * 1e9
    assert np.all(np.diff(times) >= 0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Schedule.constant(0), "calls_per_s is 0"),
        (lambda: Schedule.constant(-1), "above 0"),
        (lambda: Schedule.constant(math.nan), "nan"),
        (lambda: Schedule.poisson(math.inf, 1), "inf"),
        (lambda: Schedule.constant(1e8), "at most 10000000"),
        (lambda: Schedule.ramp(0, 0), "no calls"),
        (lambda: Schedule.ramp(-1, 5), "start_per_s is -1"),
        (lambda: Schedule.bursts(1, 2, 0.5, 0.6), "no longer than its period"),
        (lambda: Schedule.bursts(1, 2, 0.5, 0.0), "above 0 s"),
        (lambda: Schedule.constant(1).times_ns(0), "0 s"),
        (lambda: Schedule.constant(1).times_ns(math.inf), "inf s"),
        (lambda: Schedule.constant(1e6).times_ns(1e4), "at most 200000000"),
        (lambda: Schedule.poisson(0.001, seed=1).times_ns(1.0), "hold no call"),
    ],
)
def test_impossible_schedules_are_refused(make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(LoadInputError, match=said):
        make()
