"""Rates of capture follow the traffic: a steady number of rows, all where there is little."""

from __future__ import annotations

import pytest

from server.monitoring.sampling import Sampler


def test_little_traffic_is_captured_whole_and_much_in_proportion() -> None:
    sampler = Sampler(20.0)
    assert sampler.rates({1: 0, 2: 0}, 0.0) == {1: 0.02, 2: 0.02}
    assert sampler.rates({1: 10, 2: 2_000}, 1.0) == {1: 1.0, 2: pytest.approx(0.01)}


def test_a_rate_settles_where_the_traffic_does() -> None:
    sampler = Sampler(20.0)
    count, rates = 0, {}
    for per_s in [100] * 20 + [10_000] * 40:
        rates = sampler.rates({1: count}, 1.0)
        count += per_s
    assert rates[1] == pytest.approx(20 / 10_000, rel=0.01)


def test_a_version_that_comes_later_begins_carefully() -> None:
    sampler = Sampler(20.0)
    sampler.rates({1: 0}, 0.0)
    sampler.rates({1: 50_000}, 1.0)
    assert sampler.rates({1: 100_000, 7: 1_000_000}, 1.0)[7] == 0.02


def test_bursts_are_met_with_the_rate_of_bursts() -> None:
    sampler = Sampler(20.0)
    count, rates, largest = 0, {}, 0.0
    for second in range(600):
        rates = sampler.rates({1: count}, 1.0)
        bursting = second % 10 < 2
        if bursting and second > 60:
            largest = max(largest, rates[1])
        count += 10_000 if bursting else 0
    assert largest < 10 * 20 / 10_000  # and not the 1.0 that the quiet seconds ask for


def test_when_traffic_ends_for_good_everything_is_captured_again() -> None:
    sampler = Sampler(20.0)
    count, rates = 0, {}
    for per_s in [10_000] * 20 + [10] * 600:
        rates = sampler.rates({1: count}, 1.0)
        count += per_s
    assert rates[1] == 1.0
