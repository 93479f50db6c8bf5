"""How busy loops are: windows that no second scraper moves; histograms that Prometheus reads."""

from __future__ import annotations

import math
import shutil
import subprocess
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from fastpath.echo import EchoService
from fastpath.loop import LoopGroup
from fastpath.metrics import STAGES, Metrics
from fastpath.timings import TIMING_BOUNDS_NS
from server.health_metrics import WINDOW_S, BusyRatios, Health, stage_families
from server.lifecycle import Lifecycle, State


class Clock:
    """A clock that is moved, and a loop that was busy for a known share of every second."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.busy_ns = 0

    def __call__(self) -> float:
        return self.now_s

    def run(self, seconds: float, share: float) -> None:
        self.now_s += seconds
        self.busy_ns += round(seconds * share * 1e9)


def ratio(ratios: BusyRatios, clock: Clock) -> float:
    [found] = ratios.update([clock.busy_ns])
    return found


def test_one_scraper_sees_the_time_since_its_last_scrape() -> None:
    clock = Clock()
    ratios = BusyRatios(clock)
    for share in (0.2, 0.9, 0.0, 1.0):
        clock.run(15.0, share)
        assert ratio(ratios, clock) == pytest.approx(share)


def test_the_first_scrape_sees_the_time_since_the_start() -> None:
    clock = Clock()
    ratios = BusyRatios(clock)
    assert ratio(ratios, clock) == 0.0
    clock.run(2.0, 0.5)
    assert ratio(ratios, clock) == pytest.approx(0.5)


@pytest.mark.parametrize("others_s", [0.1, 1.0, 3.0, 7.0])
def test_another_scraper_moves_no_window(others_s: float) -> None:
    clock = Clock()
    ratios = BusyRatios(clock)
    # A busy half minute, then a quiet one: whoever asks, the last ten seconds or so count.
    for share in (0.8, 0.1):
        for _ in range(round(30 / others_s)):
            clock.run(others_s, share)
            ratio(ratios, clock)
        assert ratio(ratios, clock) == pytest.approx(share, abs=1e-6)
        # At once again: the same answer, not that of no time at all.
        assert ratio(ratios, clock) == pytest.approx(share, abs=1e-6)


def test_the_window_is_no_shorter_than_promised_and_little_longer() -> None:
    clock = Clock()
    ratios = BusyRatios(clock)
    for _ in range(300):
        clock.run(0.1, 0.0)
        ratio(ratios, clock)
    clock.run(1.0, 1.0)
    assert 1 / (WINDOW_S + 2.2) <= ratio(ratios, clock) <= 1 / WINDOW_S


def test_each_loop_has_its_own() -> None:
    clock = Clock()
    ratios = BusyRatios(clock)
    ratios.update([0, 0])
    clock.run(20.0, 0.0)
    assert ratios.update([10 * 10**9, 0]) == [pytest.approx(0.5), 0.0]


class Families(Collector):
    """The families of a real loop group and of empty stages."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics

    def collect(self):  # type: ignore[no-untyped-def]
        yield from self._health.families()
        yield from stage_families(self._metrics.snapshot())


def test_families_of_a_real_loop_are_what_prometheus_takes() -> None:
    loops = LoopGroup([EchoService(), EchoService()])
    loops.listen("127.0.0.1", 0)
    loops.start()
    lifecycle = Lifecycle()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families(Health(loops, lifecycle), Metrics(1)))
    try:
        for _ in range(20):
            loops.call("/scoregate.bench.Echo/Echo", b"x", 10.0)
        before = generate_latest(registry).decode()
        lifecycle.move(State.SERVING)
        time.sleep(0.01)
        text = generate_latest(registry).decode()
    finally:
        loops.stop()
    assert "scoregate_ready 0.0\n" in before
    assert "scoregate_ready 1.0\n" in text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {name: family.type for name, family in families.items()} == {
        "scoregate_ready": "gauge",
        "scoregate_loop_iteration_seconds": "histogram",
        "scoregate_loop_busy_seconds": "counter",
        "scoregate_loop_busy_ratio": "gauge",
        "scoregate_stage_duration_seconds": "histogram",
        "scoregate_queue_delay_seconds": "histogram",
    }
    edges = [*(bound / 1e9 for bound in TIMING_BOUNDS_NS), math.inf]
    for name, label, values in (
        ("scoregate_loop_iteration_seconds", "loop", ("0", "1")),
        ("scoregate_stage_duration_seconds", "stage", STAGES),
    ):
        for value in values:
            found = [
                (float(sample.labels["le"]), sample.value)
                for sample in families[name].samples
                if sample.name.endswith("_bucket") and sample.labels[label] == value
            ]
            assert [edge for edge, _ in found] == edges
            assert [n for _, n in found] == sorted(n for _, n in found)
    for sample in families["scoregate_loop_busy_ratio"].samples:
        assert 0.0 <= sample.value <= 1.0
    assert sum(s.value for s in families["scoregate_loop_busy_seconds"].samples) > 0
    if shutil.which("promtool") is not None:
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
