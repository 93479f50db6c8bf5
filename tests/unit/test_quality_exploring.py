"""Quality where exploring is no use, or began late: nothing counts twice, and it says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from server.config.feedback import FeedbackSettings
from server.feedback.quality import Evaluator, VersionFacts, score_edges
from server.feedback.quality.reports import QualityReport
from server.feedback.records import Records
from tests.support.decided import DAY_MS, NOW_MS, decide, keep, open_records, report
from tests.support.quality import Scored, scored

CUTS = (-2.0, 0.0)
THRESHOLDS = (("review", CUTS[0]), ("block", CUTS[1]))
# Every outcome can be seen; or not that of what was blocked.
OPEN = VersionFacts(THRESHOLDS, decisions=("approve", "review", "block"))
BLOCKING = VersionFacts(THRESHOLDS, decisions=OPEN.decisions, unseen=frozenset({2}))
OLD_MS = NOW_MS - 40 * DAY_MS


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    store = open_records(tmp_path)
    yield store
    store.close()


def matured(records: Records, facts: VersionFacts) -> QualityReport:
    found = Evaluator(records.path, FeedbackSettings(), lambda *_: facts).evaluate(NOW_MS)
    [one] = [report for report in found if report.cohort == "matured"]
    return one


def edges_of(rows: Scored) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return score_edges(np.sort(rows.raw), CUTS)


def test_the_explored_count_nowhere_where_every_outcome_is_seen(records: Records) -> None:
    rows = scored(18, 40_000, share=0.05)
    decided = decide(rows, OLD_MS, cuts=CUTS, explore_share=0.3)
    keep(records, decided, edges_of(rows))
    report(records, decided, rows.label == 1)
    found = matured(records, OPEN)
    carried_out = ~decided.is_explored
    weight = 1 / decided.decisions["propensity"][carried_out].astype(np.float64)
    said = rows.raw >= np.float32(CUTS[1])
    for name, figure in (("recall", recall_score), ("precision", precision_score)):
        shown = found.metric(name, "block")
        expected = figure(rows.label[carried_out], said[carried_out], sample_weight=weight)
        assert shown.value == pytest.approx(expected, rel=1e-6)
        # Counted as well as what stands for them, they would double what reaches the threshold.
        assert shown.low < figure(rows.label, said) < shown.high
    auc = found.metric("auc")
    assert auc.low < roc_auc_score(rows.label, rows.raw) < auc.high
    assert "allowed traffic only" not in found.note


def test_what_was_blocked_before_exploring_began_is_told(records: Records) -> None:
    rows, share = scored(19, 30_000, share=0.05), 0.2
    said = rows.raw >= np.float32(CUTS[1])
    before = decide(rows, OLD_MS - DAY_MS, cuts=CUTS, prefix="before-")
    since = decide(rows, OLD_MS, cuts=CUTS, explore_share=share)
    for decided in (before, since):
        keep(records, decided, edges_of(rows))
        report(records, decided, (rows.label == 1) & (decided.decisions["decision"] != 2))
    found = matured(records, BLOCKING)
    assert found.metric("recall", "block").high < recall_score(rows.label, said)
    n_hidden = 2 * said.sum() - since.is_explored.sum()
    assert (
        f"allowed traffic only, in part: {said.sum():,} of {n_hidden:,} decisions that hide their "
        "outcome were taken while none was explored"
    ) in found.note


def test_a_few_that_were_blocked_before_exploring_began_do_not_matter(records: Records) -> None:
    rows = scored(20, 20_000, share=0.05)
    few = rows.part(np.arange(20_000) < 100)
    for part, day, share in ((few, 1, 0.0), (rows, 0, 0.2)):
        decided = decide(part, OLD_MS - day * DAY_MS, cuts=CUTS, explore_share=share, slot=day)
        keep(records, decided, edges_of(rows))
        report(records, decided, (part.label == 1) & (decided.decisions["decision"] != 2))
    assert (few.raw >= np.float32(CUTS[1])).any()
    assert "allowed traffic only" not in matured(records, BLOCKING).note
