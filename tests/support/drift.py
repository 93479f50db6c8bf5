"""References and rows for tests of drift."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.drift import DriftSettings, Monitor, MonitoredFeature, Reference, reference_from_arrays
from server.export.reference import build_reference

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
FEATURES = (
    MonitoredFeature(name="amount"),
    MonitoredFeature(name="foreign", type="boolean"),
    MonitoredFeature(name="channel", type="categorical", vocabulary=("web", "pos", "phone")),
    MonitoredFeature(name="n_day", stored=True),
)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def make_rows(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Rows of FEATURES: a skewed number, a flag, a category, counts with ties."""
    return np.column_stack(
        [
            rng.lognormal(size=n),
            rng.random(n) < 0.2,
            rng.choice(3, size=n, p=(0.6, 0.3, 0.1)),
            rng.poisson(3, size=n),
        ]
    ).astype(np.float32)


def raw_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.log1p(rows[:, 0]) + rows[:, 1])


def sources_of(n: int, features: Sequence[MonitoredFeature] = FEATURES) -> NDArray[np.uint8]:
    """Every value came from where it is meant to come from."""
    return np.tile(np.array([2 if f.stored else 1 for f in features], np.uint8), (n, 1))


def make_arrays(
    rng: np.random.Generator,
    n: int = 10_000,
    features: Sequence[MonitoredFeature] = FEATURES,
    time_ms: NDArray[np.int64] | None = None,
) -> dict[str, NDArray[Any]]:
    rows = make_rows(rng, n)
    return build_reference(rows, raw_of(rows), features, time_ms)


@cache
def make_reference(seed: int = 0) -> Reference:
    return reference_from_arrays(make_arrays(np.random.default_rng(seed)), FEATURES)


def make_monitor(
    settings: DriftSettings | None = None, seed: int = 0
) -> tuple[Monitor, Clock, Reference]:
    reference = make_reference(seed)
    clock = Clock()
    return Monitor(reference, FEATURES, settings or DriftSettings(), clock), clock, reference


def feed(
    monitor: Monitor,
    clock: Clock,
    rows: NDArray[np.float32],
    *,
    minutes: float,
    sources: NDArray[np.uint8] | None = None,
) -> None:
    """Show rows evenly over so many minutes; the clock moves along."""
    step = minutes * MINUTE_MS / len(rows)
    times = clock.now_ms + np.ceil(step * (1 + np.arange(len(rows)))).astype(np.int64)
    clock.now_ms = int(times[-1])
    monitor.observe(
        rows, raw_of(rows), sources_of(len(rows)) if sources is None else sources, times
    )
