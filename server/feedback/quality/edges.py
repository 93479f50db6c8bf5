"""Where raw scores are cut into bins.

Nearly all transactions have nearly the same score: bins of equal width would hold 98 % of rows in
one, and say nothing of the few that matter. Edges are quantiles of the reference's raw scores, of
which the top 1 % gets as many as the rest has for itself, and the thresholds exactly: a count over
a threshold is then a count, not a guess. A value that many rows share (an atom, as forests have)
gets a bin of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]

N_BODY = 150  # levels up to the 99th percentile
N_TOP = 100  # levels of the top 1 %
FEW = 250  # distinct values: each is an edge
MAX_EDGES = 1000


def score_edges(raw_values: Float32Array, cuts: Sequence[float]) -> Float32Array:
    """Return the edges of bins: n edges make n + 1 bins, and a score at an edge is above it.

    Parameters
    ----------
    raw_values : array of float32, shape (n,)
        The reference's raw scores, ascending; may be empty.
    cuts : sequence of float
        Thresholds of the raw score; each that is finite is an edge.

    Returns
    -------
    array of float32
        Ascending and distinct; about 300 of them.

    Raises
    ------
    ValueError
        The values do not ascend, or are not finite.
    """
    values = np.asarray(raw_values, np.float32)
    if values.ndim != 1 or not np.isfinite(values).all() or (np.diff(values) < 0).any():
        raise ValueError("raw scores of the reference: finite and ascending values are expected")
    exact = np.asarray([cut for cut in cuts if np.isfinite(cut)], np.float32)
    if len(exact) > MAX_EDGES:
        raise ValueError(f"{len(exact)} thresholds: {MAX_EDGES} at most have bins")
    return np.unique(np.concatenate([_quantiles(values), exact]))


def _quantiles(values: Float32Array) -> Float32Array:
    if not len(values):
        return np.empty(0, np.float32)
    distinct, count = np.unique(values, return_counts=True)
    if len(distinct) <= FEW:
        return distinct
    levels = np.concatenate(
        [np.linspace(0.0, 0.99, N_BODY, endpoint=False), np.linspace(0.99, 1.0, N_TOP)]
    )
    quantiles = values[np.rint(levels * (len(values) - 1)).astype(np.intp)]
    atoms = distinct[count >= len(values) / N_BODY]
    # An edge right above an atom closes its bin.
    return np.concatenate([quantiles, atoms, np.nextafter(atoms, np.float32(np.inf))])
