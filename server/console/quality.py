"""How well the models do, as far as outcomes tell: the latest reports, with their intervals.

Curves are those of one report of each version in an arm: of the surest cohort that has labels. They
are drawn, and not told as data: GetQuality has the bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from server.console.curves import Curves, curves_of
from server.console.words import text
from server.feedback.quality import QualityReport

MAX_REPORTS = 12
MAX_METRICS = 20  # of one report
ORDER = ("matured", "labelled", "estimated")  # the surest first

# (model, version, arm) -> decisions and the scores from which they are taken.
Thresholds: TypeAlias = "Mapping[tuple[str, str, str], Sequence[tuple[str, float]]]"


class Metric(Struct, frozen=True):
    """One figure and its 95 % interval; what is not known is NaN."""

    name: str
    threshold: str
    value: float
    low: float
    high: float
    interval: str


class Quality(Struct, frozen=True):
    """One version in one arm, of one cohort."""

    model: str
    version: str
    arm: str
    cohort: str
    from_time_ms: int
    to_time_ms: int
    evaluated_time_ms: int
    n_decisions: int
    n_labels: int
    n_positive: int
    n_effective: float
    note: str
    metrics: list[Metric]


class Shown(NamedTuple):
    """A report, and what is drawn of it."""

    quality: Quality
    curves: Curves | None  # None: another cohort is drawn, or there is nothing to draw


class QualityReader:
    """Reads reports. Not safe from several threads: its owner locks."""

    def __init__(self) -> None:
        self._reports: Sequence[QualityReport] = ()
        self._thresholds: Thresholds = {}
        self._last: list[Shown] = []

    def read(self, reports: Sequence[QualityReport], thresholds: Thresholds) -> list[Shown]:
        """Return reports by model, version and arm, the surest first.

        Parameters
        ----------
        reports
            An evaluation that is replaced is another sequence: of the same one, with the same
            thresholds, the same list is returned.
        thresholds
            Those in force, of what serves.
        """
        if reports is not self._reports or thresholds != self._thresholds:
            found = sorted(reports, key=lambda one: (*_key(one), _rank(one.cohort)))
            self._last = [
                Shown(_report(one), curves_of(one, thresholds.get(key, ())) if is_drawn else None)
                for key, mine in groupby(found[:MAX_REPORTS], key=_key)
                for one, is_drawn in _surest(list(mine))
            ]
            self._reports, self._thresholds = reports, thresholds
        return self._last


def _key(one: QualityReport) -> tuple[str, str, str]:
    return one.model, one.version, one.arm


def _surest(cohorts: list[QualityReport]) -> list[tuple[QualityReport, bool]]:
    """Return cohorts, and which one is drawn: the first with labels, or the largest."""
    drawn = next((one for one in cohorts if one.n_labels), None)
    if drawn is None:
        drawn = max(cohorts, key=lambda one: one.n_decisions)
    return [(one, one is drawn) for one in cohorts]


def _rank(cohort: str) -> int:
    return ORDER.index(cohort) if cohort in ORDER else len(ORDER)


def _report(one: QualityReport) -> Quality:
    return Quality(
        model=text(one.model),
        version=text(one.version),
        arm=text(one.arm),
        cohort=text(one.cohort, 40),
        from_time_ms=one.from_time_ms,
        to_time_ms=one.to_time_ms,
        evaluated_time_ms=one.evaluated_time_ms,
        n_decisions=one.n_decisions,
        n_labels=one.n_labels,
        n_positive=one.n_positive,
        n_effective=one.n_effective,
        note=text(one.note),
        metrics=[
            Metric(
                name=text(metric.name, 60),
                threshold=text(metric.threshold, 60),
                value=metric.value,
                low=metric.low,
                high=metric.high,
                interval=metric.interval,
            )
            for metric in one.metrics[:MAX_METRICS]
        ],
    )
