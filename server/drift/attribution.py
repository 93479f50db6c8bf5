"""How a feature changed: quantiles of numbers, shares of categories, before and now."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.drift.columns import Float32Array
from server.drift.evaluation import CategoryShare
from server.drift.settings import MonitoredFeature

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
TOP = 5


def quantile_changes(
    window: Float32Array, reference: Float32Array
) -> dict[str, tuple[float, float]]:
    """Return percentiles of sorted values, as {"50": (before, now)}: actual values, not means."""
    return {str(p): (_percentile(reference, p), _percentile(window, p)) for p in PERCENTILES}


def _percentile(values: Float32Array, percent: int) -> float:
    return float(values[max(0, -(-len(values) * percent // 100) - 1)])


def share_changes(
    feature: MonitoredFeature, window: NDArray[Any], reference: NDArray[Any]
) -> tuple[CategoryShare, ...]:
    """Return the categories that are among the most frequent before or now, most changed first."""
    now, before = window / window.sum(), reference / reference.sum()
    top = {int(i) for shares in (now, before) for i in np.argsort(-shares, kind="stable")[:TOP]}
    found = [
        CategoryShare(name=feature.category(i), window=float(now[i]), reference=float(before[i]))
        for i in sorted(top)
        if now[i] or before[i]
    ]
    return tuple(sorted(found, key=lambda c: -abs(c.window - c.reference)))
