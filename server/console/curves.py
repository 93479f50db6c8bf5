"""What the plots of a report show: numbers alone, on an axis of log odds.

Rules
-----
* Scores are probabilities, on an axis of log10(p / (1 - p)): fraud is rare, and most scores lie
  where a linear axis has its first pixel, those that block where a logarithmic one has its last.
  The axis has whole decades of odds; what lies beyond an end stands at it.
* The bins of a report are about equally full, so their counts say nothing to the eye. They are
  shared out over bars that are equally wide, by length, as bins are whose thresholds moved. A bin
  reaches halfway to the mean score of its neighbour, to the threshold where one lies between them,
  and not far where its neighbour is empty.
* Scores that are no probabilities have no curves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.console.words import text
from server.feedback.quality import QualityReport
from server.feedback.quality.reports import CalibrationGroup

Float64Array = NDArray[np.float64]

STEP = 0.1  # decades of odds that a bar is wide
LOWEST, HIGHEST = -6, 3  # decades of odds
FEW = 0.01  # of all decisions, that may lie beyond an end of the axis
_LEAST = 1e-12  # of a width, or what lacks to 0 or 1: so that there are quotients


class Reached(NamedTuple):
    """A threshold, and what reaches it."""

    name: str
    score: float
    share: float  # of decisions
    caught: float  # of positives; NaN: there are none


class Curves(NamedTuple):
    """Of one version in one arm."""

    low: int  # decades of odds between which the axis of scores goes
    high: int
    groups: tuple[CalibrationGroup, ...]  # ascending; none: not known
    decisions: list[float]  # by bar, ascending
    positives: list[float]
    n_positive: float
    median: float  # of the scores
    thresholds: list[Reached]  # ascending


def log_odds(share: float) -> float:
    """Return log10(p / (1 - p)); infinite at 0 and at 1."""
    if 0 < share < 1:
        return math.log10(share / (1 - share))
    return math.inf if share >= 1 else -math.inf


def curves_of(report: QualityReport, thresholds: Sequence[tuple[str, float]]) -> Curves | None:
    """Return the curves of a report; None where there is nothing to draw.

    Parameters
    ----------
    report
    thresholds
        Decisions and the scores from which they are taken.
    """
    mean, n, positive = (
        np.array([getattr(one, name) for one in report.bins], np.float64)
        for name in ("mean_score", "n_decisions", "n_positive")
    )
    held = np.flatnonzero(np.isfinite(mean))
    mean, n, positive = mean[held], n[held], positive[held]
    total = float(n.sum())
    if not total > 0 or mean.min() < 0 or mean.max() > 1:
        return None
    cuts = sorted((score, name) for name, score in thresholds if 0 < score < 1)
    inner = np.clip(mean, _LEAST, 1 - _LEAST)
    at = np.maximum.accumulate(np.log10(inner / (1 - inner)))
    places = np.array([log_odds(score) for score, _ in cuts])
    below = np.cumsum(n) / total
    seen = [float(at[int(np.searchsorted(below, part))]) for part in (FEW, 1 - FEW)]
    low, high = _range([*seen, *places.tolist()], report.calibration)
    left, right = _ends(at, held, places)
    parts = _parts(left, right, low, high)
    n_positive = float(positive.sum())
    return Curves(
        low=low,
        high=high,
        groups=report.calibration,
        decisions=(parts @ n).tolist(),
        positives=(parts @ positive).tolist(),
        n_positive=n_positive,
        median=float(mean[int(np.searchsorted(below, 0.5))]),
        thresholds=[
            Reached(
                text(name, 60),
                score,
                float(n[mean >= score].sum()) / total,
                float(positive[mean >= score].sum()) / n_positive if n_positive else math.nan,
            )
            for score, name in cuts
        ],
    )


def _range(places: list[float], groups: Sequence[CalibrationGroup]) -> tuple[int, int]:
    """Return the decades between which everything of weight is seen."""
    drawn = [log_odds(x) for one in groups for x in (one.mean_score, one.positive_share)]
    places = [*places, *filter(math.isfinite, drawn)]
    low, high = math.floor(min(places)), math.ceil(max(places))
    return min(max(low, LOWEST), -1), max(min(high, HIGHEST), 0)


def _ends(
    at: Float64Array, number: NDArray[np.intp], cuts: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Return where bins begin and end, by the place of their mean scores and their numbers."""
    half = np.diff(at) / 2
    is_beside = np.diff(number) == 1
    reach = np.where(is_beside, half, np.minimum(half, STEP / 2))
    left = np.concatenate([[at[0] - STEP / 2], at[1:] - reach])
    right = np.concatenate([at[:-1] + reach, [at[-1] + STEP / 2]])
    for cut in cuts.tolist():
        above = int(np.searchsorted(at, cut))  # the first bin that reaches the threshold
        if 0 < above < len(at) and is_beside[above - 1]:
            right[above - 1] = left[above] = cut
        else:
            right[:above] = np.minimum(right[:above], cut)
            left[above:] = np.maximum(left[above:], cut)
    return left, right


def _parts(left: Float64Array, right: Float64Array, low: int, high: int) -> Float64Array:
    """Return which part of each bin lies in each bar: shape (bars, bins), columns sum to 1."""
    grid = np.linspace(low, high, round((high - low) / STEP) + 1)
    # A bin without width, or off the axis, is a point in the bar that it touches.
    left = np.clip(left, low, high - _LEAST)
    right = np.maximum(np.clip(right, low, high), left + _LEAST)
    ends = np.minimum(right, grid[1:, None]) - np.maximum(left, grid[:-1, None])
    parts = np.maximum(ends, 0.0)
    return parts / parts.sum(axis=0)  # type: ignore[no-any-return]
