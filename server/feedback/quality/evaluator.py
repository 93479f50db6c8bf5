"""Measures the quality of every version, now and then, from the store.

Rules
-----
* It reads beside the writer and never writes; it runs on one thread of low priority, which is the
  caller's. Figures come from cells, of which there are some thousand however many decisions there
  are; rows are read for intervals and card precision only, in bounded number, and where that takes
  long, seldom.
* An error keeps the last reports: a figure that is a minute old is better than none. It is logged
  once until an evaluation succeeds.
* A version whose bundle is gone is reported without what needs it.
* Of a version that was put in place again with another content, the newest content is reported.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.config.feedback import FeedbackSettings
from server.feedback.keys import Decider
from server.feedback.quality.calibration import calibration
from server.feedback.quality.cohorts import Counted, by_age, count_cells
from server.feedback.quality.estimate import bin_probabilities
from server.feedback.quality.facts import VersionFacts
from server.feedback.quality.from_bins import kish
from server.feedback.quality.judging import (
    NOTHING_SAMPLED,
    Judged,
    Sampled,
    estimated,
    measured,
    notes,
    score_bins,
)
from server.feedback.quality.reports import (
    COHORTS,
    ESTIMATED,
    LABELLED,
    MATURED,
    QualityMetric,
    QualityReport,
)
from server.feedback.quality.sampling import sample, some_scores
from server.feedback.reading import Cells, Reader
from server.feedback.segments import Segment

FREE_S = 0.5  # that reading rows may take at each evaluation
REST = 20  # times what it takes beyond that, until rows are read again

FactsOf = Callable[[str, str, str], VersionFacts | None]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Kept:
    """What rows told, and how long it holds."""

    sampled: Sampled
    until_s: float


class Evaluator:
    """Measures, and keeps the latest reports.

    Parameters
    ----------
    path
        Of the store's database.
    settings
        Maturity and window.
    facts
        Says what is known of a version, by model, version and SHA-256 (hexadecimal); None: its
        bundle cannot be read.
    """

    def __init__(self, path: Path, settings: FeedbackSettings, facts: FactsOf) -> None:
        self._path = path
        self._settings = settings
        self._facts = facts
        self._kept: dict[tuple[object, ...], _Kept] = {}
        self._is_failing = False
        self.reports: tuple[QualityReport, ...] = ()
        self.evaluated_ms = 0  # 0: never
        self.duration_s = 0.0
        self.n_ok = 0
        self.n_failed = 0

    def evaluate(self, now_ms: int) -> tuple[QualityReport, ...]:
        """Measure, and return the reports by model, version, arm and cohort."""
        started_s = time.monotonic()
        try:
            reader = Reader(self._path)
            try:
                with reader.snapshot():
                    reports = self._evaluate(reader, now_ms)
            finally:
                reader.close()
        except Exception as error:
            self.n_failed += 1
            if not self._is_failing:
                expected = isinstance(error, (sqlite3.Error, OSError))
                log.warning(
                    "quality could not be measured: %s; the last reports stay, told once until it "
                    "can",
                    error,
                    exc_info=None if expected else error,
                )
            self._is_failing = True
            return self.reports
        self._is_failing = False
        self.n_ok += 1
        self.reports = reports
        self.evaluated_ms = now_ms
        self.duration_s = time.monotonic() - started_s
        return reports

    def _evaluate(self, reader: Reader, now_ms: int) -> tuple[QualityReport, ...]:
        ages = by_age(reader.segments(), now_ms, self._settings.maturity_s, self._settings.window_s)
        matured = reader.cells([one.n for one in ages.matured])
        young = reader.cells([one.n for one in ages.young])
        both = Cells(*(np.concatenate(columns) for columns in zip(matured, young, strict=True)))
        versions = [self._judged(one, both) for one in _newest_content(reader.deciders(), both)]
        by_cohort = {
            MATURED: (matured, ages.matured),
            LABELLED: (both, ages.matured + ages.young),
            ESTIMATED: (young, ages.young),
        }
        reports = []
        used = set()
        for one in sorted(versions, key=lambda judged: judged[:3]):
            for cohort in COHORTS:
                cells, segments = by_cohort[cohort]
                used.add((*one[:3], cohort))
                reports.append(self._report(reader, one, cohort, cells, segments, now_ms))
        self._kept = {key: kept for key, kept in self._kept.items() if key[:4] in used}
        return tuple(reports)

    def _judged(self, deciders: Mapping[int, Decider], cells: Cells) -> Judged:
        last = deciders[max(deciders)]
        model, version, sha256, arm = last.key
        facts = self._facts(model, version, sha256)
        cuts = [] if facts is None else [raw for _, raw in facts.thresholds]
        edges = np.union1d(last.edges, np.array(cuts, np.float32)).astype(np.float32)
        if facts is not None:
            unseen = facts.unseen
        else:  # the strictest that was decided: as the setting has it by default
            mine = np.isin(cells.v, list(deciders))
            strictest = int(((cells.d[mine] >> 8) & 0xFF).max(initial=0))
            unseen = frozenset({strictest} - {0})
        return Judged(model, version, arm, deciders, facts, edges, unseen)

    def _report(
        self,
        reader: Reader,
        one: Judged,
        cohort: str,
        cells: Cells,
        segments: tuple[Segment, ...],
        now_ms: int,
    ) -> QualityReport:
        counted = count_cells(cohort, cells, one.deciders, one.edges, one.unseen)
        counts = counted.counts
        sampled = NOTHING_SAMPLED
        if cohort == ESTIMATED:
            used = counts.unknown
            metrics: tuple[QualityMetric, ...] = ()
            if one.facts is not None and one.facts.calibration is not None:
                raw = some_scores(reader, one, segments)
                probability = bin_probabilities(one.facts.calibration, one.edges, raw)
                metrics = estimated(one, counted, probability)
        else:
            used = counts.known
            sampled = self._sampled(reader, one, cohort, counted, segments)
            metrics = measured(one, counted, sampled)
        first, last = _span(cells, one.deciders, segments)
        return QualityReport(
            model=one.model,
            version=one.version,
            arm=one.arm,
            cohort=cohort,
            from_time_ms=first,
            to_time_ms=last,
            n_decisions=counted.n_decisions,
            n_labels=counted.n_labels,
            n_positive=counted.n_positive,
            n_effective=kish(used.weight, used.weight2),
            metrics=metrics,
            note=notes(one, cohort, counted, sampled),
            bins=score_bins(counted),
            calibration=() if cohort == ESTIMATED else calibration(counts),
            evaluated_time_ms=now_ms,
        )

    def _sampled(
        self,
        reader: Reader,
        one: Judged,
        cohort: str,
        counted: Counted,
        segments: tuple[Segment, ...],
    ) -> Sampled:
        """Return what rows tell; what was told before, where reading them takes long."""
        key = (*one[:3], cohort, one.thresholds, one.edges.tobytes())
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() < kept.until_s:
            return kept.sampled
        started_s = time.monotonic()
        sampled = sample(reader, one, cohort, counted, segments)
        ended_s = time.monotonic()
        rest_s = REST * max(0.0, ended_s - started_s - FREE_S)
        self._kept[key] = _Kept(sampled, ended_s + rest_s)
        return sampled


def _newest_content(deciders: Mapping[int, Decider], cells: Cells) -> list[dict[int, Decider]]:
    """Return the deciders of each version in each arm that decided something."""
    active = set(np.unique(cells.v).tolist())
    groups: dict[tuple[str, str, str], dict[int, Decider]] = {}
    for v in sorted(active & deciders.keys()):
        key = deciders[v].key
        groups.setdefault((key.model, key.version, key.arm), {})[v] = deciders[v]
    return [
        {v: one for v, one in group.items() if one.key.sha256 == group[max(group)].key.sha256}
        for group in groups.values()
    ]


def _span(
    cells: Cells, deciders: Mapping[int, Decider], segments: Sequence[Segment]
) -> tuple[int, int]:
    """Return the times between which decisions were taken; 0 and 0: there is none."""
    mine = np.isin(cells.v, list(deciders)) & (cells.sums[:, 0] > 0)
    if not mine.any():
        return 0, 0
    by_number = {one.n: one for one in segments}
    return (
        by_number[int(cells.first[mine].min())].start_ms,
        by_number[int(cells.last[mine].max())].end_ms,
    )
