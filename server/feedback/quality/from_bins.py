"""Figures from counts by bin of the raw score; pure functions of arrays.

Thresholds are edges, so precision, recall and accuracy are those of the rows, exactly; so is the
Brier score, from sums of scores. The area under the ROC curve counts pairs within a bin as half
won, so that it is off by at most half of the share of such pairs; average precision takes a bin as
one threshold, as scikit-learn takes a tie.

`negative` and `positive` are weights by bin, ascending in the raw score, of shape (..., n_bins):
leading axes are replicates. What is not defined (nothing to divide by) is NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.feedback.quality.counts import Sums

Float64Array = NDArray[np.float64]

N_GROUPS = 20  # of calibration


class Confusion(NamedTuple):
    """Weights of the four cases at one threshold."""

    tp: Float64Array
    fp: Float64Array
    fn: Float64Array
    tn: Float64Array

    @property
    def precision(self) -> Float64Array:
        """Return the share of positives among what reaches the threshold."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> Float64Array:
        """Return the share of positives that reach the threshold."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def accuracy(self) -> Float64Array:
        """Return the share of rows on their side of the threshold."""
        return ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)


def ratio(part: Float64Array, whole: Float64Array) -> Float64Array:
    """Return part / whole; NaN where there is no whole."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    out = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def confusion(negative: Float64Array, positive: Float64Array, first: int) -> Confusion:
    """Return the four cases when bins from `first` on are taken for positive."""
    return Confusion(
        tp=positive[..., first:].sum(-1),
        fp=negative[..., first:].sum(-1),
        fn=positive[..., :first].sum(-1),
        tn=negative[..., :first].sum(-1),
    )


def auc(negative: Float64Array, positive: Float64Array) -> Float64Array:
    """Return the area under the ROC curve: the trapezoids' sum."""
    below = np.cumsum(negative, -1) - negative / 2
    return ratio((positive * below).sum(-1), positive.sum(-1) * negative.sum(-1))


def tied_share(negative: Float64Array, positive: Float64Array) -> Float64Array:
    """Return the share of pairs of a negative and a positive that lie in one bin."""
    return ratio((positive * negative).sum(-1), positive.sum(-1) * negative.sum(-1))


def average_precision(negative: Float64Array, positive: Float64Array) -> Float64Array:
    """Return the sum over bins, from the top, of precision times the gain in recall."""
    tp = np.cumsum(positive[..., ::-1], -1)
    fp = np.cumsum(negative[..., ::-1], -1)
    precision = np.nan_to_num(ratio(tp, tp + fp))
    return ratio((precision * positive[..., ::-1]).sum(-1), positive.sum(-1))


def value_recall(amount: Float64Array, first: int) -> Float64Array:
    """Return the share of the positives' amounts in bins from `first` on."""
    return ratio(amount[..., first:].sum(-1), amount.sum(-1))


def brier(negative: Sums, positive: Sums) -> float:
    """Return the mean of (score - outcome)^2, exactly."""
    lost = negative.score2.sum() + (positive.weight - 2 * positive.score + positive.score2).sum()
    return float(ratio(lost, negative.weight.sum() + positive.weight.sum()))


class Reliability(NamedTuple):
    """What scores promise and what came, by group of neighbouring bins."""

    weight: Float64Array
    mean_score: Float64Array
    positive_share: Float64Array


def calibration_groups(negative: Sums, positive: Sums) -> NDArray[np.intp]:
    """Return the group of each bin: up to 20, each with about as much of the traffic and the score.

    Groups of equal traffic alone would put every fraud into the last one, groups of equal score
    alone would be a handful of rows each: what is shared out equally is the mean of both shares.
    """
    weight = negative.weight + positive.weight
    score = negative.score + positive.score
    if not weight.sum() > 0:
        return np.zeros(len(weight), np.intp)
    part = weight / weight.sum()
    part = (part + (score / score.sum() if score.sum() > 0 else part)) / 2
    middle = np.cumsum(part) - part / 2
    group: NDArray[np.intp] = np.minimum((middle * N_GROUPS).astype(np.intp), N_GROUPS - 1)
    return group


def reliability(negative: Sums, positive: Sums) -> Reliability:
    """Return the groups that hold something."""
    weight = negative.weight + positive.weight
    score = negative.score + positive.score
    group = calibration_groups(negative, positive)
    columns = (weight, score, positive.weight)
    sums: Float64Array = np.stack([np.bincount(group, c, minlength=N_GROUPS) for c in columns])
    weights, scores, positives = sums[:, sums[0] > 0]
    return Reliability(weights, scores / weights, positives / weights)


def calibration_error(groups: Reliability) -> float:
    """Return the expected calibration error: the weighted mean of |promised - came|."""
    off = (groups.weight * np.abs(groups.mean_score - groups.positive_share)).sum()
    return float(ratio(off, groups.weight.sum()))


def kish(weight: Float64Array, weight2: Float64Array) -> float:
    """Return Kish's effective number of rows, (sum w)^2 / sum w^2; 0 without rows."""
    total = float(weight2.sum())
    return float(weight.sum()) ** 2 / total if total > 0 else 0.0
