"""How many independent rows a weighted share is worth.

Kish's number takes weights for unrelated to the outcome. Here they are not: explored decisions,
which have large weights, all lie above the strictest threshold, and of the frauds of a model with
little recall they are few. So the number is that of independent rows whose share would vary as much
as this one does: n = p (1 - p) / var, with the variance of a ratio of sums, linearised (Hajek;
effective sample sizes of Korn and Graubard 1998). Without weights it is the number of rows.
"""

from __future__ import annotations

from server.feedback.quality.counts import ScoreCounts
from server.feedback.quality.from_bins import kish


def share_trials(part: float, part2: float, rest: float, rest2: float) -> float:
    """Return the effective number of rows of the share part / (part + rest).

    Parameters
    ----------
    part, rest
        Sums of weights.
    part2, rest2
        Sums of their squares.
    """
    whole = part + rest
    if not (part > 0 and rest > 0):
        return whole**2 / (part2 + rest2) if whole > 0 else 0.0
    share = part / whole
    variance = ((1 - share) ** 2 * part2 + share**2 * rest2) / whole**2
    return share * (1 - share) / variance


def accuracy_trials(counts: ScoreCounts, first: int) -> float:
    """Return that of accuracy, with bins from `first` on taken for positive."""
    right, wrong = (counts.positive, counts.negative), (counts.negative, counts.positive)
    sums = [
        float(above[first:].sum() + below[:first].sum())
        for kinds in (right, wrong)
        for above, below in (
            (kinds[0].weight, kinds[1].weight),
            (kinds[0].weight2, kinds[1].weight2),
        )
    ]
    return share_trials(*sums)


def precision_trials(counts: ScoreCounts, first: int) -> float:
    """Return that of precision."""
    positive, negative = counts.positive, counts.negative
    return share_trials(
        float(positive.weight[first:].sum()),
        float(positive.weight2[first:].sum()),
        float(negative.weight[first:].sum()),
        float(negative.weight2[first:].sum()),
    )


def recall_trials(counts: ScoreCounts, first: int) -> float:
    """Return that of recall.

    Where all positives, or none, reach the threshold, those of the other side would have had the
    weights of the negatives there.
    """
    positive, known = counts.positive, counts.known
    above, below = slice(first, None), slice(None, first)
    sums = [
        float(column[side].sum())
        for side in (above, below)
        for column in (positive.weight, positive.weight2)
    ]
    n = share_trials(*sums)
    if sums[0] > 0 and sums[2] > 0:
        return n
    empty = below if sums[0] > 0 else above
    worth = kish(known.weight[empty], known.weight2[empty])
    if not worth:
        return n
    typical = float(known.weight[empty].sum()) / worth
    return min(n, (sums[0] + sums[2]) / typical)
