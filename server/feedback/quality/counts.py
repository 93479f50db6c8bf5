"""What the bins of raw scores hold, by what is known of the outcome.

Six sums a bin and kind of outcome: rows, weights w and their squares, w * score, w * score^2 and
w * amount. Everything that `from_bins` computes needs no more, and the Brier score is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
Float32Array = NDArray[np.float32]

N_SUMS = 6  # in the order of the store's tallies: rows, w, w2, score, score2, amount


@dataclass(frozen=True)
class Sums:
    """Of one kind of outcome, by bin; `table` is float64 of shape (n_bins, 6)."""

    table: Float64Array

    @property
    def rows(self) -> Float64Array:
        """Return how many rows."""
        return self.table[:, 0]

    @property
    def weight(self) -> Float64Array:
        """Return the sums of weights."""
        return self.table[:, 1]

    @property
    def weight2(self) -> Float64Array:
        """Return the sums of squared weights."""
        return self.table[:, 2]

    @property
    def score(self) -> Float64Array:
        """Return the weighted sums of scores."""
        return self.table[:, 3]

    @property
    def score2(self) -> Float64Array:
        """Return the weighted sums of squared scores."""
        return self.table[:, 4]

    @property
    def amount(self) -> Float64Array:
        """Return the weighted sums of amounts."""
        return self.table[:, 5]

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.table + other.table)


@dataclass(frozen=True)
class ScoreCounts:
    """Decisions of one version, by bin of the raw score: n edges make n + 1 bins."""

    edges: Float32Array
    negative: Sums
    positive: Sums
    unknown: Sums  # counted, and in no figure

    @property
    def known(self) -> Sums:
        """Return both kinds that figures are made of."""
        return self.negative + self.positive

    def first_above(self, raw: float) -> int:
        """Return the first bin of scores that reach a threshold; exact where it is an edge."""
        return int(np.searchsorted(self.edges, np.float32(raw), side="right"))


def count_rows(
    edges: Float32Array,
    raw: NDArray[np.float32],
    score: NDArray[np.float32],
    label: NDArray[np.int8],
    weight: Float64Array,
    amount: Float64Array,
) -> ScoreCounts:
    """Count rows as the store counts decisions.

    Parameters
    ----------
    edges : array of float32
    raw, score : array of float32, shape (n,)
    label : array of int8, shape (n,)
        0, 1, or anything else: not known.
    weight, amount : array of float64, shape (n,)
        NaN: no amount.
    """
    bins = np.searchsorted(edges, raw, side="right")
    exact = score.astype(np.float64)
    columns = (
        np.ones_like(weight), weight, weight**2, weight * exact, weight * exact**2,
        weight * np.nan_to_num(amount),
    )  # fmt: skip

    def sums(mine: NDArray[np.bool_]) -> Sums:
        n = len(edges) + 1
        return Sums(
            np.column_stack([np.bincount(bins[mine], c[mine], minlength=n) for c in columns])
        )

    negative, positive = label == 0, label == 1
    return ScoreCounts(edges, sums(negative), sums(positive), sums(~negative & ~positive))


def rebinning(old: Float32Array, new: Float32Array) -> Float64Array:
    """Return which share of each old bin belongs to each new one.

    A bin that a new edge cuts is shared out by length, as if its rows were spread evenly; an open
    one belongs to the new bin beside its only edge.

    Returns
    -------
    array of float64, shape (len(old) + 1, len(new) + 1)
        Rows sum to 1.
    """
    shares = np.zeros((len(old) + 1, len(new) + 1))
    if not len(old):
        shares[0, np.searchsorted(new, np.float32(0.0), side="right")] = 1.0
        return shares
    below = np.searchsorted(new, old, side="left")  # new bin of what is just below an old edge
    at = np.searchsorted(new, old, side="right")  # and of the edge itself
    shares[0, below[0]] = 1.0
    shares[-1, at[-1]] = 1.0
    exact = new.astype(np.float64)
    for i, (low, high) in enumerate(zip(old[:-1].tolist(), old[1:].tolist(), strict=True), 1):
        first, last = at[i - 1], below[i]
        cuts = np.concatenate([[low], exact[first:last], [high]])
        shares[i, first : last + 1] = np.diff(cuts) / (high - low)
    return shares
