"""From what is counted of a cohort to its figures, their intervals, and what is not known.

Precision, recall and accuracy are shares of rows: Wilson's interval. The others come from
resampled cards, where there are rows to resample. Calibration error has none: resampling only adds
to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.feedback.keys import Decider
from server.feedback.quality import from_bins, trials
from server.feedback.quality.bootstrap import (
    MIN_POSITIVE_CARDS,
    Replicates,
    Spread,
    interval,
)
from server.feedback.quality.cohorts import Counted
from server.feedback.quality.counts import ScoreCounts
from server.feedback.quality.estimate import expected
from server.feedback.quality.facts import VersionFacts
from server.feedback.quality.intervals import wilson
from server.feedback.quality.reports import (
    BOOTSTRAP,
    LABELLED,
    MATURED,
    NONE,
    WILSON,
    QualityMetric,
    ScoreBin,
)

Float64Array = NDArray[np.float64]

HALF = "0.5"  # the threshold of a version that has none
ALLOWED_ONLY = "allowed traffic only"
FEW_SHARE = 0.01  # of hidden decisions: for fewer nothing need stand
NOT_CALIBRATED = "not calibrated"


class Sampled(NamedTuple):
    """What rows told."""

    spread: Spread | None  # None: too few cards had a fraud
    share: float  # rows that were resampled, of those that count
    cards: tuple[tuple[int, Replicates], ...] = ()  # card precision by k


NOTHING_SAMPLED = Sampled(None, 0.0)


class Judged(NamedTuple):
    """One version in one arm, and what its decisions are held to."""

    model: str
    version: str
    arm: str
    deciders: Mapping[int, Decider]  # by number; of its newest content
    facts: VersionFacts | None
    edges: NDArray[np.float32]
    unseen: frozenset[int]

    @property
    def thresholds(self) -> tuple[tuple[str, float], ...]:
        """Return decisions and raw scores; none where they are not known."""
        return () if self.facts is None else self.facts.thresholds

    def cuts(self, counts: ScoreCounts) -> list[tuple[str, int]]:
        """Return names and first bins above; without thresholds, where scores are half or more."""
        if self.thresholds:
            return [(name, counts.first_above(raw)) for name, raw in self.thresholds]
        every = counts.known + counts.unknown
        held = np.flatnonzero(every.weight > 0)
        over = held[from_bins.ratio(every.score[held], every.weight[held]) >= 0.5]
        return [(HALF, int(over[0]) if len(over) else len(counts.edges) + 1)]


def measured(judged: Judged, counted: Counted, sampled: Sampled) -> tuple[QualityMetric, ...]:
    """Return the figures of a cohort whose outcomes are known."""
    counts, (spread, share, cards) = counted.counts, sampled
    # Where nothing but positives is reported, all that can be told is how many were found.
    one_sided = not counts.negative.rows.sum()
    metrics = []
    for at, (name, first) in enumerate(judged.cuts(counts)):
        found = from_bins.confusion(counts.negative.weight, counts.positive.weight, first)
        for what, value, n in (
            ("accuracy", found.accuracy, trials.accuracy_trials(counts, first)),
            ("precision", found.precision, trials.precision_trials(counts, first)),
            ("recall", found.recall, trials.recall_trials(counts, first)),
        ):
            told = what == "recall" or not one_sided
            metrics.append(_proportion(what, name, float(value) if told else math.nan, n))
        caught = float(from_bins.value_recall(counts.positive.amount, first))
        replicates = spread.value_recall[at] if spread else None
        metrics.append(_resampled("value_recall", name, caught, replicates, share))
    auc, average_precision = _ranking(counts.negative.weight, counts.positive.weight)
    brier = math.nan if one_sided else from_bins.brier(counts.negative, counts.positive)
    groups = from_bins.reliability(counts.negative, counts.positive)
    error = math.nan if one_sided else from_bins.calibration_error(groups)
    metrics += [
        _resampled("auc", "", auc, spread and spread.auc, share),
        _resampled(
            "average_precision", "", average_precision, spread and spread.average_precision, share
        ),
        _resampled("brier", "", brier, spread and spread.brier, share),
        QualityMetric("calibration_error", value=error),
    ]
    metrics += [
        _resampled("card_precision", str(k), found.point, found if spread else None, 1.0)
        for k, found in cards
    ]
    return tuple(metrics)


def estimated(
    judged: Judged, counted: Counted, probability: Float64Array
) -> tuple[QualityMetric, ...]:
    """Return the figures to be expected of a cohort, by the probability of each bin."""
    counts = counted.counts
    negative, positive = expected(counts, probability)
    metrics = []
    for name, first in judged.cuts(counts):
        found = from_bins.confusion(negative, positive, first)
        metrics += [
            QualityMetric("accuracy", name, float(found.accuracy)),
            QualityMetric("precision", name, float(found.precision)),
            QualityMetric("recall", name, float(found.recall)),
        ]
    auc, average_precision = _ranking(negative, positive)
    rows = counts.unknown
    lost = (rows.score2 - 2 * probability * rows.score + positive).sum()
    return (
        *metrics,
        QualityMetric("auc", value=auc),
        QualityMetric("average_precision", value=average_precision),
        QualityMetric("brier", value=float(from_bins.ratio(lost, rows.weight.sum()))),
    )


def score_bins(counted: Counted) -> tuple[ScoreBin, ...]:
    """Return the histogram of scores, by outcome."""
    counts = counted.counts
    every = counts.known + counts.unknown
    mean = from_bins.ratio(every.score, every.weight)
    columns = zip(
        [-math.inf, *counts.edges.tolist()],
        counts.negative.weight.tolist(),
        counts.positive.weight.tolist(),
        counts.unknown.weight.tolist(),
        mean.tolist(),
        counts.positive.amount.tolist(),
        counted.n_by_bin.tolist(),
        strict=True,
    )
    return tuple(ScoreBin(*column) for column in columns)


def notes(judged: Judged, cohort: str, counted: Counted, sampled: Sampled) -> str:
    """Return what is not known, and what has to be known to read the figures."""
    facts = judged.facts
    said = []
    if facts is None:
        said.append("its bundle cannot be read: no thresholds, no estimate")
    if not counted.n_decisions:
        young = "no decision has matured yet" if cohort == MATURED else "no decision"
        return "; ".join([*said, young])
    if cohort not in (MATURED, LABELLED):
        if facts is None or facts.calibration is None:
            said.append(NOT_CALIBRATED)
        return "; ".join(said)
    said.append(f"{counted.n_labels:,} of {counted.n_decisions:,} decisions have a label")
    if counted.n_unseen and not counted.n_explored:
        said.append(ALLOWED_ONLY)
    elif counted.n_unexplored > FEW_SHARE * counted.n_unseen:
        said.append(
            f"{ALLOWED_ONLY}, in part: {counted.n_unexplored:,} of {counted.n_unseen:,} decisions "
            "that hide their outcome were taken while none was explored"
        )
    if counted.n_unseen_labels:
        said.append(
            f"{counted.n_unseen_labels:,} labels of decisions that hide their outcome left out"
        )
    if not counted.counts.positive.rows.sum():
        said.append("no positive outcome that counts")
    elif not counted.counts.negative.rows.sum():
        said.append("only positives are reported: recall is all that can be told")
    elif sampled.spread is None:
        said.append(f"fewer than {MIN_POSITIVE_CARDS} cards with a fraud: not every interval")
    if counted.n_shared:
        said.append(
            f"{round(counted.n_shared):,} decisions were counted under other thresholds: shared "
            "out within their bin"
        )
    if sampled.cards and counted.n_unseen:
        said.append("card precision: of allowed traffic")
    if any(math.isnan(found.point) for _, found in sampled.cards):
        said.append("card precision: too few cards were read")
    return "; ".join(said)


def _ranking(negative: Float64Array, positive: Float64Array) -> tuple[float, float]:
    auc = float(from_bins.auc(negative, positive))
    # Without negatives every ranking is perfect: that says nothing.
    if math.isnan(auc):
        return auc, math.nan
    return auc, float(from_bins.average_precision(negative, positive))


def _proportion(name: str, threshold: str, value: float, n: float) -> QualityMetric:
    low, high = wilson(value, n)
    return QualityMetric(name, threshold, value, low, high, NONE if math.isnan(low) else WILSON)


def _resampled(
    name: str, threshold: str, value: float, found: Replicates | None, share: float
) -> QualityMetric:
    low, high = interval(value, found, share)
    kind = NONE if math.isnan(low) else BOOTSTRAP
    return QualityMetric(name, threshold, value, low, high, kind)
