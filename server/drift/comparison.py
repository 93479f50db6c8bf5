"""Holds a window against the reference: every feature, the raw score, and their aggregate.

A feature's score is the largest of its parts, each 0 unless chance is ruled out at alpha / K:

* its distance times its weight: D for numbers, the Jensen-Shannon distance for categories;
* the changes of its missing rate, of its fallback rate (stored features) and of its unseen share
  (categories; only an increase counts).

A number that stands still (one value in 99 % of rows, and not so before) is a broken pipeline, not
a drift, whatever its distance.

The drift score is the largest of all features' and the raw score's, or their mean if so set. A
mean hides one broken feature among thirty; the largest does not.

K counts every test that could have been made, so it does not depend on the data. Features with
`monitor: off` are not looked at; calendar features are held against the same hours of the week,
and where that cannot be done they are reported but kept out of the score. The raw score follows
calendar features through the model, so it is held against the same hours where they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.drift import distances
from server.drift.attribution import quantile_changes, share_changes
from server.drift.columns import Counts, Float32Array
from server.drift.critical import (
    CriticalCurve,
    bonferroni,
    effective_size,
    homogeneity_p_value,
)
from server.drift.evaluation import Comparison, FeatureDrift, RateChange
from server.drift.hours import same_hours
from server.drift.rates import rate_p_value
from server.drift.reference import Reference
from server.drift.settings import DriftSettings, MonitoredFeature, n_tests

RAW_SCORE = "raw score"
STUCK_BEFORE = 0.9  # of the reference's values: a number that mostly was so is not stuck
LEAST_VALUES = 25  # present in window and reference, for their distributions to be compared


class _Window:
    """A window's counts beside the reference's, and how tests on them are made."""

    def __init__(
        self,
        reference: Reference,
        counts: Counts,
        settings: DriftSettings,
        values: Sequence[Float32Array] | None,
        hours: Mapping[int, NDArray[np.int64]],
        baseline: Counts,
    ) -> None:
        self.reference = reference
        self.columns = reference.columns
        self.counts = counts
        self.settings = settings
        self.values = values
        self.hours = hours
        self.baseline = baseline
        self.tail = bonferroni(settings.alpha, n_tests(reference.features))
        self.curve = CriticalCurve(self.tail, reference.critical)
        self.n = self.columns.n_rows(counts)
        self.m = self.columns.n_rows(baseline)
        self.missing = self.columns.missing(counts)
        self.baseline_missing = self.columns.missing(baseline)

    def design_effect(self, j: int) -> float:
        """Return what sizes of column j are divided by."""
        chosen = self.settings.design_effect
        return chosen if chosen > 0 else float(self.reference.design_effect[j])

    def rate(
        self, j: int, count: int, n: int, baseline: int, m: int, *, only_more: bool = False
    ) -> RateChange:
        """Compare a share of the window's rows with the reference's."""
        if not n or not m:
            return RateChange()
        now, before = count / n, baseline / m
        change = max(0.0, now - before) if only_more else abs(now - before)
        if not change:
            return RateChange(window=now, reference=before)
        effect = self.design_effect(j)
        p = rate_p_value(
            round(count / effect), round(n / effect), round(baseline / effect), round(m / effect)
        )
        return RateChange(
            window=now, reference=before, p_value=p, score=change if p <= self.tail else 0.0
        )


def compare(
    reference: Reference,
    counts: Counts,
    settings: DriftSettings,
    *,
    values: Sequence[Float32Array] | None = None,
    hours: Mapping[int, NDArray[np.int64]] | None = None,
    baseline: Counts | None = None,
) -> Comparison:
    """Compare a window with the reference.

    Parameters
    ----------
    reference : Reference
    counts : array of int64, shape (reference.columns.size,)
        The window, as `Columns.count` counts it.
    settings : DriftSettings
    values : sequence of F + 1 arrays of float32, or None
        Sorted present values of each number column (of others: unused). With them D is exact and
        quantiles are told; without, D comes from the histograms.
    hours : mapping of int to array of int64, shape (168, n_bins)
        Calendar features' bins by hour of the week.
    baseline : array of int64 or None
        Counts to compare with instead of the reference's own: then D comes from histograms.
    """
    window = _Window(
        reference,
        counts,
        settings,
        values if baseline is None else None,
        hours or {},
        reference.counts if baseline is None else baseline,
    )
    features = tuple(_feature(window, j, f) for j, f in enumerate(reference.features))
    raw = _raw_score(window)
    watched = [f.score for f in features if f.monitor != "off"]
    scores = np.array([*watched, raw.score])
    return Comparison(
        features=features,
        raw_score=raw,
        largest=float(scores.max()),
        mean=float(np.mean(watched)) if watched else 0.0,
        drifted_share=float(np.mean(np.array(watched) >= settings.warn)) if watched else 0.0,
        broken=tuple(line for f in features for line in _breaches(f, settings)),
    )


def _feature(window: _Window, j: int, feature: MonitoredFeature) -> FeatureDrift:
    found: dict[str, Any] = {
        "name": feature.name,
        "type": feature.type,
        "monitor": feature.monitor,
        "weight": feature.weight,
        "n_window": window.n - int(window.missing[j]),
        "n_reference": float(window.m - window.baseline_missing[j]),
        "design_effect": window.design_effect(j),
    }
    if feature.monitor == "off":
        return FeatureDrift(**found, in_aggregate=False)
    columns = window.columns
    found["missing"] = window.rate(
        j, int(window.missing[j]), window.n, int(window.baseline_missing[j]), window.m
    )
    if feature.stored:
        now = int(columns.fallback(window.counts)[j])
        before = int(columns.fallback(window.baseline)[j])
        found["fallback"] = window.rate(j, now, window.n, before, window.m)
    if feature.type == "categorical":
        found["unseen"] = window.rate(
            j,
            int(columns.bins(window.counts, j)[-1]),
            found["n_window"],
            int(columns.bins(window.baseline, j)[-1]),
            int(found["n_reference"]),
            only_more=True,
        )
    found |= _distribution(window, j, found["n_window"], found["n_reference"])
    if feature.monitor == "calendar" and found.get("note"):
        found["in_aggregate"] = False
    drift = FeatureDrift(**found)
    parts = [drift.distribution_score, drift.rate_score]
    return FeatureDrift(**{**found, "score": min(1.0, max(parts))})


def _raw_score(window: _Window) -> FeatureDrift:
    j = window.columns.n_features
    found: dict[str, Any] = {
        "name": RAW_SCORE,
        "type": "numeric",
        "n_window": window.n - int(window.missing[j]),
        "n_reference": float(window.m - window.baseline_missing[j]),
        "design_effect": window.design_effect(j),
    }
    found |= _distribution(window, j, found["n_window"], found["n_reference"])
    return FeatureDrift(**found, score=FeatureDrift(**found).distribution_score)


def _distribution(window: _Window, j: int, n: int, m: float) -> dict[str, Any]:
    """Compare column j's present values; returns fields of FeatureDrift."""
    columns = window.columns
    if n < LEAST_VALUES or m < LEAST_VALUES:
        return {"note": f"{n} values in the window, {m:.0f} in the reference: too few to compare"}
    now, before = columns.bins(window.counts, j), columns.bins(window.baseline, j)
    if j < columns.n_features and columns.features[j].monitor == "calendar":
        return _calendar(window, j)
    if j == columns.n_features and j in window.hours:
        found = _calendar(window, j)
        if "note" not in found:
            return found | _told(window, j)
    effect = window.design_effect(j)
    if columns.is_category[j]:
        if columns.n_categories[j] and not before[:-1].any():
            return {"note": "the reference has no category counts"}
        return _categories(window, j, now, before, effect)
    if window.values is None:
        distance = distances.histogram_distance(now, before)
        cells = distances.coarse_counts(now, before)
    else:
        values, known = window.values[j], window.reference.values[j]
        m = float(len(known))
        distance = distances.ks_distance(values, known)
        cells = distances.decile_counts(values, known)
    found = _numbers(window, distance, n, m, effect)
    if window.values is not None and j < columns.n_features:
        found["is_stuck"] = found["is_significant"] and _is_stuck(values, known)
    return {**found, "n_reference": m, "psi": distances.psi(*cells), **_told(window, j)}


def _told(window: _Window, j: int) -> dict[str, Any]:
    """Return a number column's quantiles, where the window has values."""
    if window.values is None:
        return {}
    return {"quantiles": quantile_changes(window.values[j], window.reference.values[j])}


def _numbers(window: _Window, distance: float, n: float, m: float, effect: float) -> dict[str, Any]:
    critical = window.curve.at(effective_size(n, m, effect))
    return {
        "measure": "ks",
        "distance": distance,
        "critical": critical,
        "is_significant": distance > critical,
    }


def _categories(
    window: _Window, j: int, now: NDArray[Any], before: NDArray[Any], effect: float
) -> dict[str, Any]:
    p = homogeneity_p_value(now, before, effect)
    return {
        "measure": "js",
        "distance": distances.js_distance(now, before, effect),
        "p_value": p,
        "is_significant": p <= window.tail,
        "psi": distances.psi(now.astype(np.int64), before),
        "categories": share_changes(window.columns.features[j], now, before),
    }


def _is_stuck(values: Float32Array, known: Float32Array) -> bool:
    """Whether all but 1 % of sorted values are one value that few of the reference's are."""
    cut = len(values) // 200
    value = values[cut]
    if value != values[-1 - cut]:
        return False
    same = np.searchsorted(known, value, side="right") - np.searchsorted(known, value)
    return bool(same < STUCK_BEFORE * len(known))


def _calendar(window: _Window, j: int) -> dict[str, Any]:
    """Compare with the same hours of the week."""
    columns = window.columns
    known = window.reference.hours.get(j)
    if known is None or j not in window.hours:
        return {"note": "calendar feature, and the reference has no hours of the week"}
    same = same_hours(window.hours[j], known)
    if same is None:
        return {"note": "calendar feature, and the reference hardly knows these hours of the week"}
    effect = window.design_effect(j)
    n, m = float(same.window.sum()), same.n_reference
    if columns.is_category[j]:
        found = _categories(window, j, same.window, same.expected, effect)
    else:
        distance = distances.histogram_distance(same.window, same.expected)
        found = _numbers(window, distance, n, m, effect)
    return {**found, "n_reference": m}


def _breaches(feature: FeatureDrift, settings: DriftSettings) -> list[str]:
    kinds = (
        ("missing values", feature.missing),
        ("fallbacks", feature.fallback),
        ("unseen categories", feature.unseen),
    )
    stuck = [f"{feature.name}: the same value in nearly every row"] if feature.is_stuck else []
    return stuck + [
        f"{feature.name}: {what} in {rate.window:.1%} of rows, {rate.reference:.1%} before"
        for what, rate in kinds
        if rate.score and rate.score >= settings.broken
    ]


def overall(found: Comparison, settings: DriftSettings) -> float:
    """Return the drift score: the largest of all, or the mean if so set."""
    score = found.mean if settings.aggregate == "mean" else found.largest
    return 0.0 if math.isnan(score) else score
