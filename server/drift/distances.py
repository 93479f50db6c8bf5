"""Distances between a window and a reference: pure functions of values or counts.

Kolmogorov-Smirnov's D for numbers, from sorted values (exact) or from histograms on common bins
(mergeable; never above the exact D, and below it by at most the reference's mass of one bin);
Jensen-Shannon for categories; the population stability index beside them, for people who are used
to it. None of these says whether a distance is more than chance: `critical.py` and `rates.py` do.
numpy only: the serving process runs this.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

PSI_PSEUDO_COUNT = 0.5
DECILES = np.arange(1, 10) / 10

Counts = NDArray[np.int64]


def ks_distance(window: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return D = sup |F_window - F_reference| of two samples.

    Between two neighbouring window values F_window is constant and F_reference ascends, so the
    supremum is at a window value or just below one: only those are looked at.

    Parameters
    ----------
    window, reference : array of float32, sorted ascending, without NaN, not empty

    Notes
    -----
    The statistic of Smirnov (1939), as `scipy.stats.ks_2samp` has it.
    """
    n = len(window)
    # Of equal window values the last has F at the value, the first has F just below it.
    last = np.flatnonzero(np.append(window[1:] != window[:-1], True))
    first = np.append(0, last[:-1] + 1)
    distinct = window[last]
    at = np.searchsorted(reference, distinct, side="right")
    below = at.copy()
    # Just below a value the reference differs only where it has that value too: of continuous
    # values hardly any, and of others there are few distinct ones.
    shared = np.flatnonzero(reference[np.maximum(at - 1, 0)] == distinct)
    below[shared] = np.searchsorted(reference, distinct[shared], side="left")
    m = len(reference)
    above = np.abs((last + 1) / n - at / m).max()
    return float(max(above, np.abs(first / n - below / m).max()))


def histogram_distance(window: Counts, reference: NDArray[Any]) -> float:
    """Return D at the common bounds of two histograms.

    Within a bin either distribution function can only ascend by its mass there, so the exact D is
    at most this plus the reference's largest mass in a bin of more than one value: with B bins of
    equal mass the error is at most 1/B. Bins of single values (atoms, categories) add no error.

    Parameters
    ----------
    window : array of int, shape (n_bins,)
    reference : array of int or float, shape (n_bins,)
        Counts, or expected shares of any sum; neither sums to 0.
    """
    f = np.cumsum(window) / window.sum()
    g = np.cumsum(reference) / reference.sum()
    return float(np.abs(f - g).max())


def psi(window: Counts, reference: NDArray[Any]) -> float:
    """Return the population stability index, sum of (p - q) ln(p / q).

    Half a row is added to every cell, so that an empty one is finite. Without drift its mean is
    about (n_cells - 1)(1/n + 1/m) (Yurdakul 2018): the usual limits .1 and .25 mean different
    things at different sizes, which is why nothing here is decided by it.
    """
    p = window + PSI_PSEUDO_COUNT
    q = reference + PSI_PSEUDO_COUNT
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def decile_counts(
    window: NDArray[np.float32], reference: NDArray[np.float32]
) -> tuple[Counts, Counts]:
    """Count both samples between the reference's deciles.

    Parameters
    ----------
    window, reference : array of float32, sorted ascending, without NaN, not empty

    Returns
    -------
    tuple of two arrays of int64
        Ten cells each, fewer where deciles coincide.
    """
    places = np.ceil(DECILES * len(reference)).astype(np.intp) - 1
    bounds = np.unique(reference[np.maximum(places, 0)])
    return _between(window, bounds), _between(reference, bounds)


def _between(values: NDArray[np.float32], bounds: NDArray[np.float32]) -> Counts:
    below = np.searchsorted(values, bounds, side="right")
    return np.diff(below, prepend=0, append=len(values)).astype(np.int64)


def coarse_counts(window: Counts, reference: Counts) -> tuple[Counts, Counts]:
    """Merge the bins of two histograms to about the reference's deciles, for the index."""
    rank = np.cumsum(reference) / reference.sum()
    # A bin goes to the decile that its upper bound reaches.
    group = np.minimum(np.ceil(rank * 10 - 1e-9), 10).astype(np.intp)
    size = int(group.max()) + 1
    merged_window = np.bincount(group, window, size).astype(np.int64)
    merged_reference = np.bincount(group, reference, size).astype(np.int64)
    used = (merged_window + merged_reference) > 0
    return merged_window[used], merged_reference[used]


def js_divergence(window: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the Jensen-Shannon divergence, base 2: 0 when equal, 1 when disjoint.

    Lin (1991). scipy's `jensenshannon` is the root of this, with the natural logarithm unless told
    otherwise.
    """
    p = window / window.sum()
    q = reference / reference.sum()
    middle = (p + q) / 2
    return float(max(0.0, (_relative(p, middle) + _relative(q, middle)) / 2))


def _relative(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    used = p > 0
    return float((p[used] * np.log2(p[used] / q[used])).sum())


def js_bias(n_cells: int, n_window: float, n_reference: float) -> float:
    """Return the mean divergence (base 2) of two samples of one distribution.

    8 ln 2 times the divergence is asymptotically chi-square over n m / (n + m), so its mean is
    (k - 1)(1/n + 1/m) / (8 ln 2) (Grosse et al. 2002).
    """
    return (n_cells - 1) * (1 / n_window + 1 / n_reference) / (8 * math.log(2))


def js_distance(window: NDArray[Any], reference: NDArray[Any], design_effect: float = 1.0) -> float:
    """Return the Jensen-Shannon distance in [0, 1], its bias subtracted before the root.

    Parameters
    ----------
    window, reference : array, shape (n_cells,)
        Counts; cells that are empty in both do not count as cells.
    design_effect : float
        What sizes are divided by, where rows are not independent.
    """
    used = (window + reference) > 0
    bias = js_bias(int(used.sum()), window.sum() / design_effect, reference.sum() / design_effect)
    return math.sqrt(max(0.0, js_divergence(window, reference) - bias))
