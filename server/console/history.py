"""Five minutes of counters, sampled when somebody looks.

Rules: a sample is taken when the console, or a scrape of /metrics, asks, and GAP_S after the last
one at the earliest; so the memory is bounded (151 samples of some 300 bytes a version), and without
anybody who asks nothing is done. What happened between two samples is known as a whole only: a gap
in looking is a gap in the picture, never an invention.

A version that was not in the earlier sample has no difference: its counters may be older than that.
The first sample is the process's start, when all was 0.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastpath.metrics import Metrics, SlotSnapshot

SPAN_S = 300.0
GAP_S = 1.9  # a little less than the page's interval
SHORTEST_S = 0.5  # of an interval that is drawn: the first look may follow the start at once
ENOUGH_S = 30.0  # of looking, until shares forget what was before
RATE_S = 10.0  # what "now" means, of rates and quantiles

Version = tuple[str, str]  # model, version


class Counts(NamedTuple):
    """The counters of one version, in the order of their names."""

    names: tuple[tuple[str, ...], ...]
    values: NDArray[np.int64]


class Sample(NamedTuple):
    """Counters of one moment; `generation` is of the plan in force then."""

    time_s: float
    generation: int
    counts: dict[Version, Counts]
    errors: tuple[int, ...]


class Change(NamedTuple):
    """What was counted of one version between two samples."""

    seconds: float
    counted: dict[tuple[str, ...], int]

    @property
    def buckets(self) -> list[int]:
        """Counts of durations, by `DURATION_BOUNDS_NS`."""
        return [value for name, value in self.counted.items() if name[0] == "bucket"]

    def of(self, kind: str) -> dict[tuple[str, ...], int]:
        """Return what was counted of a kind, by the rest of its name."""
        return {name[1:]: value for name, value in self.counted.items() if name[0] == kind}

    @property
    def calls(self) -> int:
        """Rows that were scored."""
        return self.counted["predictions",]


class TrafficHistory:
    """The ring. Not safe from several threads: its owner locks.

    Parameters
    ----------
    metrics
        Whose counters.
    clock
        Monotonic seconds.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._samples: deque[Sample] = deque([Sample(clock(), 0, {}, ())])
        self._has_start = True

    def look(self, serving: Collection[Version], generation: int) -> None:
        """Take a sample, unless one was taken just now.

        Parameters
        ----------
        serving
            The versions that take part.
        generation
            Of the plan in force.
        """
        now_s = self._clock()
        last = self._samples[-1]
        is_first = self._has_start and len(self._samples) == 1
        if now_s - last.time_s < GAP_S and not is_first:
            return
        snapshot = self._metrics.snapshot()
        wanted = set(serving)
        counts = {
            (slot.model, slot.version): _counts(slot, last.counts.get((slot.model, slot.version)))
            for slot in snapshot.slots
            if (slot.model, slot.version) in wanted
        }
        self._samples.append(Sample(now_s, generation, counts, snapshot.errors))
        # One that is older stays: the first interval of the picture begins with it.
        while len(self._samples) > 2 and now_s - self._samples[1].time_s >= SPAN_S:
            self._samples.popleft()
            self._has_start = False

    @property
    def now(self) -> Sample:
        """The newest sample."""
        return self._samples[-1]

    @property
    def recent(self) -> Sample:
        """What rates of now are measured from: RATE_S old, or the newest that is older."""
        samples = self._samples
        for sample in reversed(samples):
            if samples[-1].time_s - sample.time_s >= RATE_S - GAP_S / 2:
                break
        # Since the start is a long time: rather since the first look.
        if self._is_start(sample) and len(samples) > 2:
            return samples[1]
        return sample

    @property
    def oldest(self) -> Sample:
        """What shares are measured from: five minutes ago, or the first look, or the start.

        The start, where that is not longer ago, and until looks tell enough by themselves.
        """
        start = self._samples[0]
        if not self._has_start or len(self._samples) == 2 or self._is_young:
            return start
        first = self._samples[1]
        return first if self.now.time_s - first.time_s >= ENOUGH_S else start

    def since_change(self) -> Sample:
        """Return the oldest sample of the plan in force; the start, where there is but one."""
        now = self.now
        same = [s for s in self._samples if s.generation == now.generation and s is not now]
        if same:
            return same[0]
        return self._samples[0] if len(self._samples) == 2 and self._has_start else now

    def intervals(self, version: Version) -> list[tuple[float, float, Change]]:
        """Return (seconds ago of the beginning, of the end, what was counted), oldest first."""
        samples = list(self._samples)
        if self._has_start and not self._is_young:
            samples = samples[1:]
        now_s = self.now.time_s
        found = []
        for before, after in pairwise(samples):
            change = self.change(version, before, after)
            if change is not None and change.seconds >= SHORTEST_S:
                found.append((now_s - before.time_s, now_s - after.time_s, change))
        return found

    def change(
        self, version: Version, before: Sample, after: Sample | None = None
    ) -> Change | None:
        """Return what was counted of a version from one sample to another; None: not known."""
        after = after or self.now
        new = after.counts.get(version)
        if new is None or after is before:
            return None
        values = new.values
        old = before.counts.get(version)
        if old is not None and old.names == new.names:
            values = values - old.values
        elif not self._is_start(before):
            return None
        return Change(
            max(after.time_s - before.time_s, 1e-9),
            dict(zip(new.names, values.tolist(), strict=True)),
        )

    def errors(self, before: Sample) -> dict[int, float]:
        """Return errors a second since a sample, by gRPC code; codes without any are left out."""
        now = self.now
        old = before.errors or (0,) * len(now.errors)
        seconds = max(now.time_s - before.time_s, 1e-9)
        found = {
            code: (new - was) / seconds
            for code, (new, was) in enumerate(zip(now.errors, old, strict=True))
        }
        return {code: per_s for code, per_s in found.items() if code and per_s}

    @property
    def _is_young(self) -> bool:
        """Whether the five minutes reach back to the process's start."""
        return self._has_start and self.now.time_s - self._samples[0].time_s <= SPAN_S

    def _is_start(self, sample: Sample) -> bool:
        return self._has_start and sample is self._samples[0]


def _counts(slot: SlotSnapshot, last: Counts | None) -> Counts:
    """Return a slot's counters; `last` lends its names, which are many times the numbers' size."""
    named: dict[tuple[str, ...], int] = {
        ("predictions",): slot.predictions,
        ("degraded",): slot.degraded,
        **{("bucket", str(i)): n for i, n in enumerate(slot.duration_buckets)},
        **{("decision", name): n for name, n in slot.decisions.items()},
        **{("fallback", *pair): n for pair, n in slot.fallbacks.items()},
    }
    names = tuple(named)
    if last is not None and last.names == names:
        names = last.names
    return Counts(names, np.fromiter(named.values(), np.int64, len(named)))
