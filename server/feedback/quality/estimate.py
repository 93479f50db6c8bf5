"""What quality would be if calibrated scores told the truth: figures before outcomes.

Confidence-based performance estimation (CBPE, NannyML): a row with probability p is p of a positive
and 1 - p of a negative, so that at a threshold TP = sum of p above it, FP = sum of 1 - p above it,
FN = sum of p below it. It sees changes in who comes. It is blind to changes in what fraud looks
like (concept drift): probabilities are those of the validation rows. Read it as what the model
believes of itself.

Probabilities come from the bundle's calibration, not from scores: those rank, and need not be
probabilities. Without a calibration there is no estimate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.feedback.quality.counts import ScoreCounts

Float64Array = NDArray[np.float64]
Calibration = tuple[NDArray[np.float64], NDArray[np.float64]]


def calibrated(calibration: Calibration, raw: NDArray[np.float32]) -> Float64Array:
    """Return the probability of a positive at raw scores."""
    return np.interp(raw.astype(np.float64), *calibration)


def bin_probabilities(
    calibration: Calibration, edges: NDArray[np.float32], raw: NDArray[np.float32]
) -> Float64Array:
    """Return the mean probability of each bin's rows.

    Parameters
    ----------
    calibration : tuple of two arrays
        Points (raw, probability).
    edges : array of float32
    raw : array of float32, shape (n,)
        A sample of the rows. A bin that none of them is in gets the probability of its middle, or,
        at the ends, of its only edge.

    Returns
    -------
    array of float64, shape (len(edges) + 1,)
    """
    if len(edges):
        outer = np.concatenate([edges[:1], edges, edges[-1:]]).astype(np.float64)
        middle = (outer[:-1] + outer[1:]) / 2
    else:
        middle = np.zeros(1)
    bins = np.searchsorted(edges, raw, side="right")
    n = np.bincount(bins, minlength=len(middle))
    sums = np.bincount(bins, calibrated(calibration, raw), minlength=len(middle))
    guess = np.interp(middle, *calibration)
    return np.where(n > 0, sums / np.maximum(n, 1), guess)


def expected(counts: ScoreCounts, probability: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the expected weights of negatives and positives by bin.

    Parameters
    ----------
    counts
        Whose rows of unknown outcome are shared out.
    probability : array of float64, shape (n_bins,)
    """
    weight = counts.unknown.weight
    return weight * (1 - probability), weight * probability
