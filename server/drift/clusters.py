"""Rows that come in clusters, such as a customer's, carry less than their number says.

The design effect is what the variance of a share is multiplied by: n rows tell as much as
n / design effect independent ones. It is set (`DriftSettings.design_effect`), or taken from the
reference, where the export estimated it from time-ordered chunks of the validation rows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# The mean of Kolmogorov's limit distribution squared: what n D^2 is on average, without drift.
MEAN_SQUARED = math.pi**2 / 12


def cluster_design_effect(values: NDArray[np.float32], cluster: NDArray[np.int64]) -> float:
    """Estimate the design effect of the values' distribution, where the clusters are known.

    One-way analysis of variance of the ranks: 1 + (size - 1) rho with the size weighted by rows
    (Kish 1965, section 5.4). At least 1.

    Parameters
    ----------
    values : array of float32, shape (n_rows,), without NaN
    cluster : array of int64, shape (n_rows,)
        Any number per cluster.
    """
    n = len(values)
    _, member, size = np.unique(cluster, return_inverse=True, return_counts=True)
    k = len(size)
    if k < 2 or n <= k:
        return 1.0
    # Ranks, ties sharing their mean: what D looks at does not change with the scale.
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place] / n
    mean = np.bincount(member, rank, k) / size
    between = float((size * np.square(mean - rank.mean())).sum()) / (k - 1)
    within = float(np.square(rank - mean[member]).sum()) / (n - k)
    usual = (n - float(np.square(size).sum()) / n) / (k - 1)
    if within <= 0 and between <= 0:
        return 1.0
    rho = (between - within) / (between + (usual - 1) * within)
    heavy = float(np.square(size).sum()) / n  # rows' own view of their cluster's size
    return max(1.0, 1 + (heavy - 1) * max(0.0, rho))


def chunk_design_effect(distances: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Estimate the design effect from D of chunks against the rest.

    Parameters
    ----------
    distances, sizes : array of float, shape (n_chunks,)
        D of each chunk, and its effective sample size.
    """
    if not len(distances):
        return 1.0
    return max(1.0, float((np.square(distances) * sizes).mean()) / MEAN_SQUARED)
