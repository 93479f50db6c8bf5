"""Histograms for people: a few bins per column, of the reference and of both windows.

The bins are unions of the reference's own bins, because that is all the slow window knows. Of
numbers they are as even in value as those allow, between the reference's 1st and 99th percentile,
and open at both ends; where that would put most rows into one bin, they hold equal shares of the
reference instead. Of few distinct values each has its own. Categories beyond the most frequent are
one bin.

Calendar columns are shown as they are compared: the reference mixed by the hour of the week, as the
fast window is. For the slow window, which has other hours, such a column has no counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.drift.columns import Columns, Counts, Float32Array
from server.drift.hours import same_hours
from server.drift.reference import Reference

MAX_BINS = 24
INNER_PERCENT = (1, 99)  # between which bins of numbers are even
MOST_IN_ONE = 0.5  # of the reference's rows, in one bin of many
OTHERS = "(others)"


@dataclass(frozen=True)
class Histogram:
    """One column's counts.

    Attributes
    ----------
    edges : array of float32, shape (n_bins - 1,)
        Inclusive upper bounds of all bins but the last, of numbers; else empty.
    names : tuple of str
        Of the bins of booleans and categories; else empty.
    reference, window : array of float64, shape (n_bins,)
    slow : array of float64, shape (n_bins,) or (0,)
    """

    edges: Float32Array
    names: tuple[str, ...]
    reference: NDArray[np.float64]
    window: NDArray[np.float64]
    slow: NDArray[np.float64]


def histograms(
    reference: Reference,
    fast: Counts,
    slow: Counts,
    hours: Mapping[int, NDArray[np.int64]],
) -> tuple[Histogram, ...]:
    """Return one histogram per column: features, then the raw score.

    Parameters
    ----------
    reference : Reference
    fast, slow : array of int64, shape (reference.columns.size,)
        The windows' counts.
    hours : mapping of int to array of int64, shape (168, n_bins)
        The fast window's bins by hour of the week, of columns that are compared by hours.
    """
    return tuple(
        _histogram(reference, j, fast, slow, hours.get(j))
        for j in range(reference.columns.n_columns)
    )


def _histogram(
    reference: Reference, j: int, fast: Counts, slow: Counts, hours: NDArray[np.int64] | None
) -> Histogram:
    columns = reference.columns
    before: NDArray[Any] = columns.bins(reference.counts, j)
    now, day = columns.bins(fast, j), columns.bins(slow, j)
    known = reference.hours.get(j)
    if hours is not None and known is not None:
        same = same_hours(hours, known)
        if same is not None:
            before, now, day = same.expected, same.window, day[:0]
    group, edges, names = _groups(columns, j, reference.values[j], before, now)
    return Histogram(edges, names, *(_merged(counts, group) for counts in (before, now, day)))


def _merged(counts: NDArray[Any], group: NDArray[np.intp]) -> NDArray[np.float64]:
    if not len(counts):
        return np.empty(0)
    return np.bincount(group, counts, int(group[-1]) + 1 if len(group) else 0).astype(np.float64)


def _groups(
    columns: Columns,
    j: int,
    values: Float32Array,
    before: NDArray[Any],
    now: NDArray[Any],
) -> tuple[NDArray[np.intp], Float32Array, tuple[str, ...]]:
    """Return the display bin of each bin, the edges, and the names."""
    if columns.is_category[j]:
        return _category_groups(columns, j, before, now)
    chosen = _edges(columns.bounds[j], values, before)
    group = np.searchsorted(chosen, np.arange(len(before)), side="left")
    return group, columns.bounds[j][chosen], ()


def _edges(bounds: Float32Array, values: Float32Array, before: NDArray[Any]) -> NDArray[np.intp]:
    """Return which of the bounds are edges of display bins."""
    if not len(bounds):
        return np.empty(0, np.intp)
    # A bound right below the next one only sets a frequent value apart.
    below = np.nextafter(bounds[1:], np.float32(-np.inf))
    places = np.flatnonzero(np.append(bounds[:-1] != below, True))
    if len(places) < MAX_BINS:
        return places
    low, high = (values[(len(values) - 1) * percent // 100] for percent in INNER_PERCENT)
    even = _nearest(bounds[places], np.linspace(low, high, MAX_BINS - 1, dtype=np.float64))
    found: NDArray[np.intp] = places[even]
    counts = np.bincount(np.searchsorted(found, np.arange(len(before))), before)
    if counts.max() > MOST_IN_ONE * counts.sum():
        ranks = np.linspace(0, len(places) - 1, MAX_BINS + 1)[1:-1]
        found = places[np.unique(np.rint(ranks).astype(np.intp))]
    return found


def _nearest(sorted_values: Float32Array, wanted: NDArray[np.float64]) -> NDArray[np.intp]:
    after = np.clip(np.searchsorted(sorted_values, wanted), 1, len(sorted_values) - 1)
    left, right = sorted_values[after - 1], sorted_values[after]
    return np.unique(np.where(wanted - left <= right - wanted, after - 1, after))


def _category_groups(
    columns: Columns, j: int, before: NDArray[Any], now: NDArray[Any]
) -> tuple[NDArray[np.intp], Float32Array, tuple[str, ...]]:
    feature, n = columns.features[j], len(before)
    no_edges = np.empty(0, np.float32)
    group = np.arange(n, dtype=np.intp)
    if n <= MAX_BINS:
        return group, no_edges, tuple(feature.category(code) for code in range(n))
    share = np.maximum(before / max(1, before.sum()), now / max(1, now.sum()))
    # The last is "unseen": always told.
    shown = np.sort(np.argsort(-share[:-1], kind="stable")[: MAX_BINS - 2])
    group = np.full(n, len(shown), np.intp)
    group[shown] = np.arange(len(shown))
    group[-1] = len(shown) + 1
    names = (*(feature.category(int(code)) for code in shown), OTHERS, feature.category(n - 1))
    return group, no_edges, names
