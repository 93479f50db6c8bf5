"""Intervals of what is no proportion of independent rows: resampling cards, with all of their rows.

Each replicate gives every card a weight from Poisson(1), the limit of drawing cards with
replacement, and computes the figures anew from the weighted rows (Efron 1979; for clusters, Field
and Welsh 2007). The seed is fixed: the same rows give the same interval.

Where the rows are a part of those that a figure was made of, replicates vary as much as the part
does; their distance from the part's own figure is scaled by the root of the part's share (the
m out of n bootstrap; Bickel, Goetze, van Zwet 1997) and put around the figure.

With few cards that had a fraud the resampled figures say little of the real spread, and intervals
come out too narrow: under 10 of them there is none.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.feedback.quality.from_bins import auc, average_precision, ratio, value_recall
from server.feedback.quality.intervals import UNKNOWN, Interval
from server.feedback.quality.rows import LabelledRows

Float64Array = NDArray[np.float64]

N_REPLICATES = 200
MIN_POSITIVE_CARDS = 10
LEVELS = (0.025, 0.975)


def _poisson_table() -> NDArray[np.int8]:
    """Return counts of Poisson(1) by 16 uniform bits: ten times faster than drawing them."""
    p = np.exp(-1.0) / np.cumprod(np.concatenate([[1.0], np.arange(1.0, 12.0)]))
    return np.searchsorted(np.cumsum(p), (np.arange(65_536) + 0.5) / 65_536).astype(np.int8)


_POISSON = _poisson_table()


class Replicates(NamedTuple):
    """A figure of the rows, and of each replicate."""

    point: float
    values: Float64Array


class Drawing:
    """Weights of cards, replicate by replicate.

    Parameters
    ----------
    n_cards
    seed
    """

    def __init__(self, n_cards: int, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._n_cards = n_cards

    def draw(self) -> Float64Array:
        """Return the next replicate's weights, shape (n_cards,)."""
        bits = self._random.integers(0, 65_536, self._n_cards, dtype=np.uint16)
        return _POISSON[bits].astype(np.float64)


def interval(value: float, found: Replicates | None, share: float = 1.0) -> Interval:
    """Return the 95 % interval of a figure between 0 and 1.

    Parameters
    ----------
    value
        The figure.
    found
        Of the rows; None: there are too few.
    share
        Rows that were resampled, of those that the figure is made of.
    """
    if found is None or math.isnan(value) or math.isnan(found.point):
        return UNKNOWN
    values = found.values[~np.isnan(found.values)]
    if len(values) < N_REPLICATES // 2:
        return UNKNOWN
    ends = value + (np.quantile(values, LEVELS) - found.point) * math.sqrt(min(1.0, share))
    low, high = (float(end) for end in ends)
    return Interval(min(max(low, 0.0), value), max(min(high, 1.0), value))


class Spread(NamedTuple):
    """Replicates of the figures that are made of bins."""

    auc: Replicates
    average_precision: Replicates
    brier: Replicates
    value_recall: tuple[Replicates, ...]  # by threshold


def resample(
    rows: LabelledRows,
    edges: NDArray[np.float32],
    firsts: tuple[int, ...] = (),
    *,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> Spread | None:
    """Return replicates of the figures; None where too few cards had a fraud.

    Parameters
    ----------
    rows
    edges
        Of the bins.
    firsts
        The first bin above each threshold.
    n_replicates
    seed
    """
    positive = rows.label == 1
    cards, card = np.unique(rows.entity, return_inverse=True)
    if len(np.unique(card[positive])) < MIN_POSITIVE_CARDS:
        return None
    n_bins = len(edges) + 1
    bins = np.searchsorted(edges, rows.raw, side="right")
    place = bins + n_bins * positive
    lost = (rows.score.astype(np.float64) - positive) ** 2
    of_value = positive & ~np.isnan(rows.amount)
    amount = rows.amount[of_value]

    kinds = np.empty((n_replicates + 1, 2, n_bins))
    amounts = np.empty((n_replicates + 1, n_bins))
    briers = np.empty(n_replicates + 1)
    drawing = Drawing(len(cards), seed)
    for replicate in range(n_replicates + 1):
        drawn = rows.weight if not replicate else rows.weight * drawing.draw()[card]
        kinds[replicate] = np.bincount(place, drawn, minlength=2 * n_bins).reshape(2, n_bins)
        amounts[replicate] = np.bincount(bins[of_value], drawn[of_value] * amount, minlength=n_bins)
        # Not `drawn @ lost`: BLAS would take every core for it.
        briers[replicate] = ratio((drawn * lost).sum(), drawn.sum())
    negatives, positives = kinds[:, 0], kinds[:, 1]
    return Spread(
        _split(auc(negatives, positives)),
        _split(average_precision(negatives, positives)),
        _split(briers),
        tuple(_split(value_recall(amounts, first)) for first in firsts),
    )


def _split(values: Float64Array) -> Replicates:
    return Replicates(float(values[0]), values[1:])
