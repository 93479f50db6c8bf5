"""What the server says of quality while the demo runs, beside the truth.

Asked over the control port (GetQuality), as `scoregate quality` asks. Of each version and arm the
matured cohort is told: decisions old enough for silence to mean genuine. Told as JSON: numbers that
are not known are None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc

from server.demo.truth import Truth
from server.pb.scoregate.v1 import feedback_pb2 as pb

TIMEOUT_S = 0.4
COHORT = "matured"


class QualityProbe:
    """Asks now and then.

    Parameters
    ----------
    get_quality : callable
        The control port's GetQuality.
    truth : Truth
    cuts : callable
        Returns by version the raw score of each threshold.
    """

    def __init__(
        self,
        get_quality: Callable[..., pb.GetQualityResponse],
        truth: Truth,
        cuts: Callable[[], Mapping[str, Mapping[str, float]]],
    ) -> None:
        self._get_quality = get_quality
        self._truth = truth
        self._cuts = cuts
        self._reports: list[dict[str, Any]] = []
        self._evaluated: dict[tuple[str, str], int] = {}
        self._trouble = ""

    def look(self) -> dict[str, Any]:
        """Ask, and return `reports` and `trouble` (why there is no answer)."""
        try:
            answer = self._get_quality(pb.GetQualityRequest(), timeout=TIMEOUT_S)
            self._take([report for report in answer.reports if report.cohort == COHORT])
            self._trouble = ""
        except grpc.RpcError as error:
            # A busy machine: what is known stays on the screen.
            self._trouble = str(error.code().name)
        return {"reports": self._reports, "trouble": self._trouble}

    def _take(self, reports: list[pb.QualityReport]) -> None:
        evaluated = {(one.version, one.arm): one.evaluated_time_ms for one in reports}
        if evaluated == self._evaluated:
            return  # the truth of the same decisions is the same
        cuts = self._cuts()
        self._reports = [self._told(report, cuts.get(report.version, {})) for report in reports]
        self._evaluated = evaluated

    def _told(self, report: pb.QualityReport, cuts: Mapping[str, float]) -> dict[str, Any]:
        of = partial(
            self._truth.quality,
            report.version,
            report.arm,
            from_ms=report.from_time_ms,
            to_ms=report.to_time_ms,
            cuts=cuts,
        )
        return {
            "version": report.version,
            "arm": report.arm,
            "n": report.n_decisions,
            "labels": report.n_labels,
            "positive": report.n_positive,
            "note": report.note,
            "metrics": {_name(one): _numbers(one) for one in report.metrics},
            "truth": of(),
            "allowed": of(allowed_only=True),
        }


def _name(metric: pb.QualityMetric) -> str:
    return f"{metric.name}:{metric.threshold}" if metric.threshold else metric.name


def _numbers(metric: pb.QualityMetric) -> list[float | None]:
    """Return value, low and high."""
    found = (metric.value, metric.low, metric.high)
    return [None if math.isnan(number) else number for number in found]
