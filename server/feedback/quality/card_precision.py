"""Card precision at k: of the k most suspicious cards of a day, the share that had a fraud.

As "Reproducible Machine Learning for Credit Card Fraud Detection: Practical Handbook" (Le Borgne,
Siblini, Lebichot, Bontempi, 2022, chapter 4.4) defines it: a card's score of a day is the highest
of its transactions; a card whose fraud was found on one day is not looked at on later days; the
figure is the mean of the days. k is what is divided by, even where a day has fewer cards.

Days are UTC's. Cards are resampled for the interval, as `bootstrap` does.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.feedback.quality.bootstrap import Drawing, Replicates

Float64Array = NDArray[np.float64]

DAY_MS = 86_400_000
SPARE = 4  # cards a day that resampling may need, in k
AT_ONCE = 20  # replicates


class _Day(NamedTuple):
    card: NDArray[np.intp]  # the most suspicious first
    is_fraud: NDArray[np.bool_]
    is_ranked: NDArray[np.bool_]  # which come before every card that is not here


def card_precision(
    entity: NDArray[np.int64],
    time_ms: NDArray[np.int64],
    score: NDArray[np.float32],
    label: NDArray[np.int8],
    k: int,
    *,
    n_replicates: int = 0,
    seed: int = 0,
    all_from: float = -math.inf,
) -> Replicates:
    """Return the figure, and replicates of it.

    Parameters
    ----------
    entity, time_ms : array of int64, shape (n,)
    score : array of float32, shape (n,)
        Of any scale: only the order counts.
    label : array of int8, shape (n,)
        0 or 1.
    k
        Cards that are looked at each day.
    n_replicates
        0: none.
    seed
    all_from
        The score from which on rows are all here; of those below it, the positive ones. Where a
        day has fewer than k cards that reach it, and that have not been found before, it is not
        known who follows: NaN.
    """
    unknown = Replicates(math.nan, np.full(n_replicates, np.nan))
    n_cards, days = _looked_at(_days(entity, time_ms, score, label, all_from), k)
    if not days or k <= 0:
        return unknown
    point, n_least = _precision(np.ones((1, n_cards)), days, k)
    if all_from > -math.inf and n_least < k:
        return unknown
    drawing = Drawing(n_cards, seed)
    values = []
    for at in range(0, n_replicates, AT_ONCE):
        n = min(AT_ONCE, n_replicates - at)
        values.append(_precision(np.stack([drawing.draw() for _ in range(n)]), days, k)[0])
    return Replicates(float(point[0]), np.concatenate(values) if values else np.empty(0))


def _days(
    entity: NDArray[np.int64],
    time_ms: NDArray[np.int64],
    score: NDArray[np.float32],
    label: NDArray[np.int8],
    all_from: float,
) -> list[_Day]:
    """Return each day's cards, by number, the most suspicious first."""
    cards, card = np.unique(entity, return_inverse=True)
    day = time_ms // DAY_MS
    # A card's best row of a day first; of equal scores the card with the smaller hash first.
    order = np.lexsort((card, -score.astype(np.float64), day))
    days = []
    for start, stop in _runs(day[order]):
        rows = order[start:stop]
        _, first = np.unique(card[rows], return_index=True)
        best = rows[np.sort(first)]
        ranked = card[best]
        fraud = np.zeros(len(cards), np.bool_)
        fraud[card[rows[label[rows] == 1]]] = True
        days.append(_Day(ranked, fraud[ranked], score[best] >= np.float32(all_from)))
    return days


def _runs(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return where runs of equal values begin and end."""
    if not len(values):
        return []
    cuts = np.flatnonzero(np.diff(values)) + 1
    ends = [0, *cuts.tolist(), len(values)]
    return list(pairwise(ends))


def _looked_at(days: list[_Day], k: int) -> tuple[int, list[_Day]]:
    """Return the days with no more cards than can be looked at, numbered anew.

    Cards with a fraud may be found, and not looked at later: they are kept beside.
    """
    n_cards = max((int(day.card.max()) + 1 for day in days), default=0)
    may_be_found = np.zeros(n_cards, np.bool_)
    kept = []
    for day in days:
        n_new = np.cumsum(~may_be_found[day.card])
        n = int(np.searchsorted(n_new, SPARE * k + 100)) + 1
        kept.append(_Day(day.card[:n], day.is_fraud[:n], day.is_ranked[:n]))
        may_be_found[kept[-1].card[kept[-1].is_fraud]] = True
    if not kept:
        return 0, []
    used, number = np.unique(np.concatenate([day.card for day in kept]), return_inverse=True)
    numbers = np.split(number, np.cumsum([len(day.card) for day in kept])[:-1])
    return len(used), [day._replace(card=card) for card, day in zip(numbers, kept, strict=True)]


def _precision(drawn: Float64Array, days: list[_Day], k: int) -> tuple[Float64Array, int]:
    """Return the mean over days of every replicate, and the fewest cards of a day."""
    found = np.zeros(drawn.shape, np.bool_)  # cards whose fraud was found before
    total = np.zeros(len(drawn))
    n_least = np.iinfo(np.int64).max
    for day in days:
        weight = drawn[:, day.card] * ~found[:, day.card]
        before = np.cumsum(weight, axis=1) - weight
        looked_at = np.clip(k - before, 0.0, weight)
        total += (looked_at * day.is_fraud).sum(axis=1) / k
        found[:, day.card] |= (looked_at > 0) & day.is_fraud
        n_least = min(n_least, int((weight[0] > 0)[day.is_ranked].sum()))
    return total / len(days), n_least
