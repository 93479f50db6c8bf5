"""Five minutes of counters: bounded, honest about what was not looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from fastpath.metrics import DURATION_BOUNDS_NS, Metrics, SlotSnapshot
from server.console.history import GAP_S, RATE_S, SPAN_S, TrafficHistory
from server.console.svg import over_time
from server.console.traffic import Point

VERSION = ("fraud", "2")
N_BUCKETS = len(DURATION_BOUNDS_NS) + 1


@dataclass
class Counters:
    """Counters that a test sets, and a clock that it moves."""

    calls: int = 0
    errors: int = 0
    now_s: float = 50.0
    n_snapshots: int = 0
    versions: list[tuple[str, str]] = field(default_factory=lambda: [VERSION])

    def snapshot(self) -> SimpleNamespace:
        self.n_snapshots += 1
        slots = [
            SlotSnapshot(
                model, version, self.calls, 0, 0, (0, self.calls, *[0] * (N_BUCKETS - 2)),
                {}, {}, {"approve": self.calls, "decline": 0},
                {("default", "cards"): 2 * self.calls},
            )
            for model, version in self.versions
        ]  # fmt: skip
        return SimpleNamespace(slots=slots, errors=(0, self.errors))

    def history(self) -> TrafficHistory:
        return TrafficHistory(cast("Metrics", self), lambda: self.now_s)


def test_rates_are_of_the_last_seconds_and_shares_of_all_that_is_known() -> None:
    counters = Counters()
    history = counters.history()
    for _ in range(31):
        history.look([VERSION], 7)
        counters.now_s += 2
        counters.calls += 20
    counters.now_s -= 2
    counters.calls -= 20
    recent = history.change(VERSION, history.recent)
    assert recent is not None
    assert recent.seconds == pytest.approx(RATE_S)
    assert recent.calls == 100
    assert recent.buckets[:3] == [0, 100, 0]
    wide = history.change(VERSION, history.oldest)
    assert wide is not None
    assert wide.calls == 600
    assert wide.of("decision") == {("approve",): 600, ("decline",): 0}
    assert wide.of("fallback") == {("default", "cards"): 1200}
    since = history.change(VERSION, history.since_change())
    assert since is not None
    assert since.calls == 600
    intervals = history.intervals(VERSION)
    assert len(intervals) == 30
    assert intervals[-1][:2] == (2.0, 0.0)
    assert {change.calls for _, _, change in intervals} == {20}


def test_memory_is_bounded_and_nobody_who_looks_is_no_work() -> None:
    counters = Counters()
    history = counters.history()
    assert counters.n_snapshots == 0
    for _ in range(20_000):
        history.look([VERSION], 1)
        counters.now_s += 0.1
        counters.calls += 1
    assert counters.n_snapshots <= 2000 / GAP_S + 2
    assert len(history._samples) <= SPAN_S / GAP_S + 3
    names = {id(sample.counts[VERSION].names) for sample in history._samples}
    assert len(names) == 1  # the names are many times the size of the numbers
    oldest = history.now.time_s - history.oldest.time_s
    assert SPAN_S <= oldest <= SPAN_S + 2 * GAP_S


def test_the_first_look_tells_what_there_was_since_the_start() -> None:
    counters = Counters()
    history = counters.history()
    counters.now_s += 100
    counters.calls = 500
    history.look([VERSION], 7)
    change = history.change(VERSION, history.recent)
    assert change is not None
    assert (change.seconds, change.calls) == (100.0, 500)
    [(from_s, to_s, whole)] = history.intervals(VERSION)
    assert (from_s, to_s, whole.calls) == (100.0, 0.0, 500)


def test_a_long_past_is_told_until_looks_tell_enough() -> None:
    counters = Counters()
    history = counters.history()
    counters.now_s += 86_400
    counters.calls = 8640
    spans = []
    for _ in range(20):
        history.look([VERSION], 7)
        counters.now_s += 2
        change = history.change(VERSION, history.oldest)
        assert change is not None
        spans.append(change.seconds)
    assert spans[0] == 86_400
    assert spans[14] == pytest.approx(86_428)
    assert spans[15] == pytest.approx(30)
    assert [change.seconds for _, _, change in history.intervals(VERSION)] == [2] * 19


def test_a_version_that_comes_back_does_not_bring_its_past() -> None:
    counters = Counters(calls=1_000_000)
    history = counters.history()
    history.look([], 7)
    counters.now_s += 5
    history.look([VERSION], 8)
    assert history.change(VERSION, history.recent) is None
    counters.now_s += 5
    counters.calls += 50
    history.look([VERSION], 8)
    change = history.change(VERSION, history.since_change())
    assert change is not None
    assert change.calls == 50


def test_observed_shares_begin_with_the_plan() -> None:
    counters = Counters()
    history = counters.history()
    for generation in (1, 1, 2, 2):
        history.look([VERSION], generation)
        counters.now_s += 10
        counters.calls += 10
    change = history.change(VERSION, history.since_change())
    assert change is not None
    assert change.seconds == pytest.approx(10)


def test_errors_are_told_by_code() -> None:
    counters = Counters()
    history = counters.history()
    history.look([VERSION], 1)
    counters.now_s += 10
    counters.errors = 5
    history.look([VERSION], 1)
    assert history.errors(history.recent) == {1: 0.5}


def test_a_gap_in_looking_is_a_gap_in_the_picture() -> None:
    points = [Point(300, 298, 5.0, 1.0), Point(298, 100, 1.0, 1.0), Point(100, 90, 5.0, 1.0)]
    drawn = over_time("calls", points, [point.calls_per_s for point in points])
    [line] = [
        c for c in drawn.children if not isinstance(c, str) and c.attributes.get("class") == "line"
    ]
    assert line.attributes["d"].count("M") == 2


def test_what_is_drawn_stays_small() -> None:
    rng = np.random.default_rng(0)
    points = [Point(300 - 2 * i, 298 - 2 * i, float(rng.random()), 1.0) for i in range(150)]
    drawn = over_time("calls", points, [point.calls_per_s for point in points])
    for child in drawn.children:
        assert isinstance(child, str) or len(child.attributes.get("d", "")) < 600
