"""Prometheus metrics of the process itself: where a call's time goes, how busy its loops are.

Rules are those of `collector`. A loop's busy ratio is over the last `WINDOW_S` or a little more,
whoever asks how often: scrapes share a few samples, taken at most once a second, and none moves
another's window. Until there are samples that old it is since the start; where nobody has asked
for longer, since somebody did.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from fastpath.loop import LoopGroup
from fastpath.metrics import Snapshot
from fastpath.timings import TIMING_BOUNDS_NS
from server.lifecycle import Lifecycle

WINDOW_S = 10.0
SAMPLE_S = 1.0  # least time between two samples
BOUNDS = [*(format(bound / 1e9, "g") for bound in TIMING_BOUNDS_NS), "+Inf"]

Timing = tuple[tuple[int, ...], int]  # counts by bound, sum in ns


class BusyRatios:
    """Shares of time that loops were not waiting; safe from any thread.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, tuple[int, ...]]] = deque([(clock(), ())])

    def update(self, busy_ns: Sequence[int]) -> list[float]:
        """Take every loop's busy time so far, and return its ratio, 0 to 1."""
        with self._lock:
            now = self._clock()
            # The newest one that is old enough is what is compared with.
            while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW_S:
                self._samples.popleft()
            then, before = self._samples[0]
            if now - self._samples[-1][0] >= SAMPLE_S:
                self._samples.append((now, tuple(busy_ns)))
        if now <= then:
            return [0.0] * len(busy_ns)
        # At first there is no sample: nothing was busy when this was made.
        before = before or (0,) * len(busy_ns)
        return [
            min(1.0, max(0.0, (busy - was) / 1e9 / (now - then)))
            for busy, was in zip(busy_ns, before, strict=True)
        ]


class Health:
    """Readiness and loops of a serving process."""

    def __init__(self, loops: LoopGroup, lifecycle: Lifecycle) -> None:
        self._loops = loops
        self._lifecycle = lifecycle
        self._ratios = BusyRatios()

    def families(self) -> Iterator[Metric]:
        """Yield their families."""
        yield GaugeMetricFamily(
            "scoregate_ready",
            "1 while /readyz says ok, else 0: starting, without a model, or draining. `scoregate "
            "status` says why.",
            value=float(self._lifecycle.is_serving),
        )
        yield from loop_families(self._loops.stats(), self._loops.iterations(), self._ratios)


def stage_families(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield the histograms of stages and of the queue."""
    stages = HistogramMetricFamily(
        "scoregate_stage_duration_seconds",
        "Time of one row in each stage, of one call in 61. score and encode: the batch's time over "
        "its rows. features: with the wait for stores, until the iteration goes on with the row. "
        "encode: with decision, capture and hand-over to the connection. What grows says where to "
        "look: docs/runbooks/errors-and-latency.md.",
        labels=["stage"],
    )
    for stage, timing in snapshot.stages.items():
        add_histogram(stages, [stage], timing)
    yield stages
    queue = HistogramMetricFamily(
        "scoregate_queue_delay_seconds",
        "From the start of the loop iteration that brought a call, or its last stored record, to "
        "the start of its batch's scoring, of one call in 61. Time in the kernel's buffers before "
        "that is not seen: it is up to the iteration before. High: more loops, or smaller bursts.",
        labels=[],
    )
    add_histogram(queue, [], snapshot.queue)
    yield queue


def loop_families(
    loops: Sequence[Mapping[str, int]], iterations: Sequence[Timing], ratios: BusyRatios
) -> Iterator[Metric]:
    """Yield what says how busy loops are.

    Parameters
    ----------
    loops : sequence of mapping
        `LoopGroup.stats`.
    iterations : sequence of (counts, sum)
        `LoopGroup.iterations`.
    ratios : BusyRatios
        Always the same one.
    """
    lengths = HistogramMetricFamily(
        "scoregate_loop_iteration_seconds",
        "Time from one wait of a loop to the next: what a call that arrives meanwhile waits at "
        "most. Long ones: large batches, a slow model, or a core that others use.",
        labels=["loop"],
    )
    for index, timing in enumerate(iterations):
        add_histogram(lengths, [str(index)], timing)
    yield lengths
    busy = CounterMetricFamily(
        "scoregate_loop_busy_seconds",
        "Time that a loop was not waiting. A loop that polls (fast.spin_us) waits.",
        labels=["loop"],
    )
    ratio = GaugeMetricFamily(
        "scoregate_loop_busy_ratio",
        "Share of the last 10 s or more that a loop was not waiting, 0 to 1. Over 0.9: add loops "
        "where cores are free, else servers.",
        labels=["loop"],
    )
    busy_ns = [loop["busy_ns"] for loop in loops]
    for index, (total, share) in enumerate(zip(busy_ns, ratios.update(busy_ns), strict=True)):
        busy.add_metric([str(index)], total / 1e9)
        ratio.add_metric([str(index)], share)
    yield busy
    yield ratio


def add_histogram(family: HistogramMetricFamily, labels: Sequence[str], timing: Timing) -> None:
    """Add one histogram's buckets, made cumulative, and its sum."""
    counts, sum_ns = timing
    cumulative = [float(count) for count in accumulate(counts)]
    family.add_metric(labels, list(zip(BOUNDS, cumulative, strict=True)), sum_ns / 1e9)
