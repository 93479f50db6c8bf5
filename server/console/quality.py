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


def read_quality(reports: Sequence[Any]) -> list[Quality]:
    """Return the reports as the console tells them: by model, version and arm, surest first."""
    found = [_report(one) for one in reports]
    found.sort(key=lambda one: (one.model, one.version, one.arm, _rank(one.cohort)))
    return found[:MAX_REPORTS]


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
