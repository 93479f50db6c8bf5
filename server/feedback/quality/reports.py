"""What is found of one version in one arm: the messages of GetQuality, without protobuf."""

from __future__ import annotations

import math

from msgspec import Struct

MATURED = "matured"
LABELLED = "labelled"
ESTIMATED = "estimated"
COHORTS = (MATURED, LABELLED, ESTIMATED)

WILSON = "wilson"
BOOTSTRAP = "bootstrap"
NONE = "none"


class QualityMetric(Struct, frozen=True):
    """One figure; NaN where it is not known."""

    name: str
    threshold: str = ""  # the decision's name, or the number of cards
    value: float = math.nan
    low: float = math.nan  # of the 95 % interval
    high: float = math.nan
    interval: str = NONE


class ScoreBin(Struct, frozen=True):
    """One bin of raw scores, weighted."""

    raw_low: float  # -inf: the first
    n_negative: float
    n_positive: float
    n_unknown: float
    mean_score: float  # NaN: empty
    positive_amount: float
    n_decisions: float = math.nan  # weighted; of those that are explored, what they stand for once


class CalibrationGroup(Struct, frozen=True):
    """Neighbouring bins: what their scores promised, and what came."""

    mean_score: float
    positive_share: float
    low: float  # of the 95 % interval of the share
    high: float
    n_effective: float  # independent rows that the share is worth


class QualityReport(Struct, frozen=True, kw_only=True):
    """One version in one arm and one cohort, as `scoregate.v1.QualityReport` has it."""

    model: str
    version: str
    arm: str
    cohort: str
    from_time_ms: int
    to_time_ms: int
    n_decisions: int
    n_labels: int
    n_positive: int
    n_effective: float
    metrics: tuple[QualityMetric, ...] = ()
    note: str = ""
    bins: tuple[ScoreBin, ...] = ()
    calibration: tuple[CalibrationGroup, ...] = ()  # ascending; none: not known
    evaluated_time_ms: int = 0

    def metric(self, name: str, threshold: str = "") -> QualityMetric:
        """Return one figure; an unknown one where it was not measured."""
        for one in self.metrics:
            if one.name == name and one.threshold == threshold:
                return one
        return QualityMetric(name, threshold)
