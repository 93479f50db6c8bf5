"""Drift of every version that is watched: what the monitors found last, worst features first.

Rules: evaluations are replaced whole, so they are read without a lock. Histograms are counted for
an evaluation once, and every HISTOGRAM_S at most; the monitor's own lock is held while its windows
are copied (`Monitor.histograms`), never while they are counted. The page has room for so many rows:
each version gets its part of them, the worst features first, and the rest is said.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from operator import is_
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from server.console.words import text
from server.drift import Evaluation, FeatureDrift, Histogram, Monitor, RateChange
from server.monitoring.watch import DriftWatch, Watched
from server.rollout.loaded import Key

HISTOGRAM_S = 5.0
MAX_VERSIONS = 12
MAX_ROWS = 60  # of features, of all versions together
MIN_ROWS = 4  # of one version
MAX_REASONS = 8
RAW_SCORE = "raw score"


class Rate(Struct, frozen=True):
    """A share of rows, before and now."""

    name: str  # "missing", "fallback" or "unseen"
    before: float
    now: float
    is_significant: bool


class Feature(Struct, frozen=True):
    """One feature, or the raw score; what is not known is NaN."""

    name: str
    type: str
    score: float
    distance: float
    measure: str
    psi: float
    is_significant: bool
    is_stuck: bool
    monitor: str
    rates: list[Rate]  # those that are, or were, not 0
    median_before: float
    median_now: float
    note: str


class Window(Struct, frozen=True):
    """How much a window holds, and what it says."""

    n_rows: int
    span_s: float
    is_ready: bool
    score: float


class Drift(Struct, frozen=True):
    """One version."""

    model: str
    version: str
    state: str  # "unwatched", "warming", "stable", "warning", "retrain" or "broken"
    score: float
    mean: float
    drifted_share: float
    warn: float
    retrain: float
    reasons: list[str]
    trouble: str
    reference: str
    n_reference: int
    evaluated_time_ms: int
    fast: Window
    slow: Window
    features: list[Feature]  # the worst first; the raw score is the last
    n_left_out: int


class Drawn(NamedTuple):
    """A version, and the histograms of its features, in their order."""

    drift: Drift
    histograms: tuple[Histogram | None, ...]


class _Cached(NamedTuple):
    evaluation: Evaluation
    n_rows: int
    histograms: tuple[Histogram, ...]
    counted_s: float
    drawn: Drawn


class DriftReader:
    """Reads, and remembers what was counted. Not safe from several threads: its owner locks.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cached: dict[Key, _Cached] = {}
        self._last: list[Drawn] = []

    def read(self, watch: DriftWatch) -> list[Drawn]:
        """Return every watched version, by name; the same list where nothing has changed."""
        watched = watch.watched
        n_rows = max(MIN_ROWS, MAX_ROWS // max(1, min(len(watched), MAX_VERSIONS)))
        # Also of what left: it is forgotten.
        self._cached = {
            one.key: self._cached[one.key] for one in watched if one.key in self._cached
        }
        found = [self._version(one, n_rows) for one in watched[:MAX_VERSIONS]]
        is_same = len(found) == len(self._last) and all(map(is_, found, self._last))
        if not is_same:
            self._last = found
        return self._last

    def _version(self, watched: Watched, n_rows: int) -> Drawn:
        monitor = watched.monitor
        found = None if monitor is None else monitor.evaluation
        if monitor is None or found is None or not found.features:
            return Drawn(_head(watched, monitor, found), ())
        cached = self._cached.get(watched.key)
        if cached is not None and cached.evaluation is found and cached.n_rows == n_rows:
            return cached.drawn
        now_s = self._clock()
        if cached is not None and now_s - cached.counted_s < HISTOGRAM_S:
            histograms, counted_s = cached.histograms, cached.counted_s
        else:
            histograms, counted_s = monitor.histograms(), now_s
        drawn = _drawn(_head(watched, monitor, found), found, histograms, n_rows)
        self._cached[watched.key] = _Cached(found, n_rows, histograms, counted_s, drawn)
        return drawn


def _head(watched: Watched, monitor: Monitor | None, found: Evaluation | None) -> Drift:
    """Return what is known of a version, without its features."""
    key = watched.key
    empty = Window(0, 0.0, False, math.nan)
    if monitor is None:
        return Drift(
            text(key.model), text(key.version), "unwatched", math.nan, math.nan, math.nan, 0.0, 0.0,
            [], text(watched.trouble), "", 0, 0, empty, empty, [], 0,
        )  # fmt: skip
    fast = slow = empty
    reasons = ["not evaluated yet"]
    if found is not None:
        fast, slow = (
            Window(one.n_rows, one.span_s, one.is_ready, one.score)
            for one in (found.fast, found.slow)
        )
        reasons = [text(reason) for reason in found.reasons[:MAX_REASONS]]
        if len(found.reasons) > MAX_REASONS:
            reasons.append(f"and {len(found.reasons) - MAX_REASONS} more")
    settings, reference = monitor.settings, monitor.reference
    return Drift(
        model=text(key.model),
        version=text(key.version),
        state="warming" if found is None else found.state,
        score=math.nan if found is None else found.score,
        mean=math.nan if found is None else found.mean,
        drifted_share=math.nan if found is None else found.drifted_share,
        warn=settings.warn,
        retrain=settings.retrain,
        reasons=reasons,
        trouble=text(watched.trouble),
        reference=text(reference.name),
        n_reference=reference.n_rows,
        evaluated_time_ms=0 if found is None else found.time_ms,
        fast=fast,
        slow=slow,
        features=[],
        n_left_out=0,
    )


def _drawn(head: Drift, found: Evaluation, histograms: Sequence[Histogram], n_rows: int) -> Drawn:
    order = sorted(
        range(len(found.features)),
        key=lambda j: _gravity(found.features[j]),
        reverse=True,
    )
    shown = order[:n_rows]
    columns: list[tuple[FeatureDrift, Histogram | None]] = [
        (found.features[j], _at(histograms, j)) for j in shown
    ]
    if found.raw_score is not None:
        columns.append((found.raw_score, _at(histograms, len(found.features))))
    features = [_feature(one, i == len(shown)) for i, (one, _) in enumerate(columns)]
    drift = replace(head, features=features, n_left_out=len(order) - len(shown))
    return Drawn(drift, tuple(histogram for _, histogram in columns))


def _at(histograms: Sequence[Histogram], j: int) -> Histogram | None:
    return histograms[j] if j < len(histograms) else None


def _gravity(one: FeatureDrift) -> tuple[float, float]:
    return tuple(-1.0 if math.isnan(x) else x for x in (one.score, one.distance))  # type: ignore[return-value]


def _feature(one: FeatureDrift, is_raw_score: bool) -> Feature:
    medians = one.quantiles.get("50", (math.nan, math.nan))
    return Feature(
        name=RAW_SCORE if is_raw_score else text(one.name, 80),
        type=one.type,
        score=one.score,
        distance=one.distance,
        measure=one.measure,
        psi=one.psi,
        is_significant=one.is_significant,
        is_stuck=one.is_stuck,
        monitor=one.monitor,
        rates=[
            Rate(name, rate.reference, rate.window, rate.score > 0)
            for name, rate in _rates(one)
            if rate.reference or rate.window
        ],
        median_before=medians[0],
        median_now=medians[1],
        note=text(one.note),
    )


def _rates(one: FeatureDrift) -> list[tuple[str, RateChange]]:
    return [("missing", one.missing), ("fallback", one.fallback), ("unseen", one.unseen)]
