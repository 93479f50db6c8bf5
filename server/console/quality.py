"""How well the models do, as far as outcomes tell: the latest reports, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from server.console.words import text

MAX_REPORTS = 12
MAX_METRICS = 20  # of one report
ORDER = ("matured", "labelled", "estimated")  # the surest first


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


class QualityReader:
    """Reads reports. Not safe from several threads: its owner locks."""

    def __init__(self) -> None:
        self._reports: Sequence[Any] = ()
        self._last: list[Quality] = []

    def read(self, reports: Sequence[Any]) -> list[Quality]:
        """Return reports by model, version and arm, the surest first.

        Parameters
        ----------
        reports
            With the members of scoregate.v1.QualityReport. An evaluation that is replaced is
            another sequence: of the same one, the same list is returned.
        """
        if reports is not self._reports:
            found = [_report(one) for one in reports]
            found.sort(key=lambda one: (one.model, one.version, one.arm, _rank(one.cohort)))
            self._last = found[:MAX_REPORTS]
            self._reports = reports
        return self._last


def _rank(cohort: str) -> int:
    return ORDER.index(cohort) if cohort in ORDER else len(ORDER)


def _report(one: Any) -> Quality:
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
