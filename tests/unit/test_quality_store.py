"""Quality of decisions in the store: what counts, as what, and with which weight."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from server.config.feedback import FeedbackSettings
from server.feedback.database import RETRACTED
from server.feedback.quality import Evaluator, VersionFacts, score_edges
from server.feedback.quality.card_precision import card_precision
from server.feedback.quality.reports import QualityReport
from server.feedback.reading import UNKNOWN, Reader
from server.feedback.records import Records
from tests.support.decided import DAY_MS, NOW_MS, decide, keep, key, open_records, report
from tests.support.quality import Scored, scored

CUTS = (-2.0, 0.0)
THRESHOLDS = (("review", CUTS[0]), ("block", CUTS[1]))
# Every outcome can be seen.
OPEN = VersionFacts(THRESHOLDS, decisions=("approve", "review", "block"), top_k=(20,))
BLOCKING = VersionFacts(THRESHOLDS, decisions=OPEN.decisions, unseen=frozenset({2}), top_k=(20,))
OLD_MS = NOW_MS - 40 * DAY_MS
YOUNG_MS = NOW_MS - 3 * DAY_MS


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    store = open_records(tmp_path)
    yield store
    store.close()


def evaluator(records: Records, facts: VersionFacts | None, **settings: float) -> Evaluator:
    return Evaluator(records.path, FeedbackSettings(**settings), lambda *_: facts)  # type: ignore[arg-type]


def reports(records: Records, facts: VersionFacts | None = OPEN) -> dict[str, QualityReport]:
    found = evaluator(records, facts).evaluate(NOW_MS)
    assert [one.cohort for one in found] == ["matured", "labelled", "estimated"]
    return {one.cohort: one for one in found}


def edges_of(rows: Scored) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return score_edges(np.sort(rows.raw), CUTS)


def times(n: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng(seed).integers(OLD_MS - 5 * DAY_MS, OLD_MS, n)


def test_matured_figures_are_scikit_learns_when_silence_is_a_good_payment(
    records: Records,
) -> None:
    rows = scored(1, 6000, decimals=1, n_cards=900)
    when = times(6000)
    decided = decide(rows, when, cuts=CUTS)
    keep(records, decided, np.unique(rows.raw))
    report(records, decided, rows.label == 1)
    found = reports(records)["matured"]
    assert (found.n_decisions, found.n_labels, found.n_positive) == (
        6000, rows.label.sum(), rows.label.sum(),
    )  # fmt: skip
    assert found.n_effective == pytest.approx(6000)
    label = rows.label
    assert found.metric("auc").value == pytest.approx(roc_auc_score(label, rows.raw))
    assert found.metric("average_precision").value == pytest.approx(
        average_precision_score(label, rows.raw)
    )
    assert found.metric("brier").value == pytest.approx(
        brier_score_loss(label, rows.score.astype(np.float64))
    )
    for name, cut in THRESHOLDS:
        said = rows.raw >= np.float32(cut)
        assert found.metric("precision", name).value == pytest.approx(precision_score(label, said))
        recall = found.metric("recall", name)
        assert recall.value == pytest.approx(recall_score(label, said))
        assert (recall.interval, recall.low < recall.value < recall.high) == ("wilson", True)
    auc = found.metric("auc")
    assert auc.interval == "bootstrap"
    assert auc.low < auc.value < auc.high
    middle = (when // DAY_MS > when.min() // DAY_MS) & (when // DAY_MS < when.max() // DAY_MS)
    cards = card_precision(
        rows.entity[middle], when[middle], rows.raw[middle], rows.label[middle], 20
    )
    shown = found.metric("card_precision", "20")
    # Equal scores of two cards are ordered by the hash, in both.
    assert shown.value == pytest.approx(cards.point)
    assert shown.low < shown.value < shown.high
    assert found.from_time_ms <= when.min()
    assert found.to_time_ms == when.max()
    assert found.note == f"{label.sum():,} of 6,000 decisions have a label"
    assert sum(one.n_negative + one.n_positive for one in found.bins) == 6000


def test_cohorts_are_told_apart_by_age_and_by_report(records: Records) -> None:
    old, young = scored(2, 2000, decimals=1), scored(3, 1000, decimals=1)
    ancient = scored(4, 500, decimals=1)
    edges = np.unique(old.raw)
    ages = (NOW_MS - 70 * DAY_MS, OLD_MS, YOUNG_MS)
    for rows, when, slot in zip((ancient, old, young), ages, range(3), strict=True):
        decided = decide(rows, when, cuts=CUTS, slot=slot)
        keep(records, decided, edges)
        half = np.arange(len(rows.raw)) % 2 == 0
        report(records, decided, half)
    found = reports(records)
    assert found["matured"].n_decisions == 2000
    assert found["matured"].metric("auc").value == pytest.approx(
        roc_auc_score(np.where(np.arange(2000) % 2 == 0, old.label, 0), old.raw)
    )
    labelled = found["labelled"]
    assert labelled.n_decisions == 3000  # what is older than the window counts nowhere
    assert labelled.n_labels == 1500
    raw = np.concatenate([old.raw[::2], young.raw[::2]])
    label = np.concatenate([old.label[::2], young.label[::2]])
    assert labelled.metric("average_precision").value == pytest.approx(
        average_precision_score(label, raw)
    )
    assert found["estimated"].n_decisions == 1000
    assert found["estimated"].note == "not calibrated"
    assert not found["estimated"].metrics


def test_a_report_that_was_taken_back_is_no_silence(records: Records) -> None:
    rows = scored(5, 2000)
    decided = decide(rows, OLD_MS)
    keep(records, decided, edges_of(rows))
    report(records, decided, rows.label == 1)
    taken_back = (rows.label == 1) & (rows.raw < np.median(rows.raw[rows.label == 1]))
    report(records, decided, taken_back, RETRACTED)
    found = reports(records)["matured"]
    left = ~taken_back
    assert found.n_labels == rows.label[left].sum()
    assert found.n_effective == pytest.approx(left.sum())
    said = rows.raw >= np.float32(CUTS[1])
    assert found.metric("recall", "block").value == pytest.approx(
        recall_score(rows.label[left], said[left])
    )
    assert found.metric("accuracy", "block").value == pytest.approx(
        (said == rows.label)[left].mean()
    )


def test_weights_undo_sampling(records: Records) -> None:
    rows = scored(6, 40_000, share=0.03)
    random = np.random.default_rng(60)
    chance = np.where(rows.raw >= CUTS[0], 1.0, 0.2).astype(np.float32)
    taken = random.random(len(chance)) < chance
    kept = rows.part(taken)
    decided = decide(kept, OLD_MS, cuts=CUTS, sampling=chance[taken])
    keep(records, decided, edges_of(rows))
    report(records, decided, kept.label == 1)
    found = reports(records)["matured"]
    weight = 1 / chance[taken].astype(np.float64)
    said = kept.raw >= np.float32(CUTS[1])
    recall = found.metric("recall", "block")
    assert recall.value == pytest.approx(recall_score(kept.label, said, sample_weight=weight))
    full = recall_score(rows.label, rows.raw >= np.float32(CUTS[1]))
    assert recall.low < full < recall.high
    assert recall_score(kept.label, said) > full + 0.02  # without weights
    assert found.n_effective == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    auc = found.metric("auc")
    assert auc.low < roc_auc_score(rows.label, rows.raw) < auc.high


def test_exploring_recovers_what_blocking_hides(records: Records, tmp_path: Path) -> None:
    rows = scored(7, 60_000, share=0.05)
    said = rows.raw >= np.float32(CUTS[1])
    recall, precision = recall_score(rows.label, said), precision_score(rows.label, said)
    auc = roc_auc_score(rows.label, rows.raw)

    decided = decide(rows, OLD_MS, cuts=CUTS, explore_share=0.1)
    seen = decided.decisions["decision"] != 2
    keep(records, decided, edges_of(rows))
    report(records, decided, (rows.label == 1) & seen)
    found = reports(records, BLOCKING)["matured"]
    for name, truth in (("recall", recall), ("precision", precision)):
        shown = found.metric(name, "block")
        assert shown.low < truth < shown.high
        assert shown.high - shown.low < 0.15
    assert found.metric("auc").low < auc < found.metric("auc").high
    assert "allowed traffic only" not in found.note
    assert found.n_effective < 60_000
    # The same rows without their weights, and all rows with blocked ones taken for good.
    naive = recall_score(rows.label[seen], said[seen])
    assert not found.metric("recall", "block").low < naive < found.metric("recall", "block").high
    silent = np.where(seen, rows.label, 0)
    assert precision_score(silent, said) < found.metric("precision", "block").low

    with_all = open_records(tmp_path / "all")
    try:
        decided = decide(rows, OLD_MS, cuts=CUTS)
        keep(with_all, decided, edges_of(rows))
        report(with_all, decided, (rows.label == 1) & ~said)
        found = reports(with_all, BLOCKING)["matured"]
    finally:
        with_all.close()
    assert "allowed traffic only" in found.note
    assert found.metric("recall", "block").value == 0
    assert math.isnan(found.metric("precision", "block").value)


def test_labels_of_blocked_payments_are_left_out_and_told(records: Records) -> None:
    rows = scored(8, 3000)
    decided = decide(rows, OLD_MS, cuts=CUTS)
    keep(records, decided, edges_of(rows))
    report(records, decided, rows.label == 1)
    hidden = int(((rows.label == 1) & (rows.raw >= np.float32(CUTS[1]))).sum())
    for cohort in ("matured", "labelled"):
        found = reports(records, BLOCKING)[cohort]
        assert f"{hidden:,} labels of decisions that hide their outcome left out" in found.note
        assert found.metric("recall", "block").value == 0


def test_estimates_are_the_formula_and_need_a_calibration(records: Records) -> None:
    rows = scored(9, 5000)
    points = (np.array([-6.0, 2.0]), np.array([0.001, 0.9]))
    facts = VersionFacts(THRESHOLDS, points, BLOCKING.decisions, BLOCKING.unseen)
    decided = decide(rows, YOUNG_MS, cuts=CUTS, explore_share=0.3)
    keep(records, decided, edges_of(rows))
    found = reports(records, facts)["estimated"]
    # What was carried out stands for what was explored.
    p = np.interp(rows.raw, *points)
    weight = np.where(decided.is_explored, 0, 1 / decided.decisions["propensity"])
    above = rows.raw >= np.float32(CUTS[1])
    tp, fn = (p * weight)[above].sum(), (p * weight)[~above].sum()
    assert found.metric("recall", "block").value == pytest.approx(tp / (tp + fn), rel=1e-5)
    assert found.metric("precision", "block").value == pytest.approx(
        tp / weight[above].sum(), rel=1e-5
    )
    assert found.metric("recall", "block").interval == "none"
    assert found.note == ""
    assert reports(records, BLOCKING)["estimated"].note == "not calibrated"


def test_a_threshold_that_moved_cuts_old_bins_by_length(records: Records) -> None:
    rows = scored(10, 4000)
    old = np.array([-3, -1, 0, 1], np.float32)
    keep(records, decide(rows, OLD_MS - DAY_MS, slot=1), old)
    new = np.array([-3, -1, 0.5, 1], np.float32)
    keep(records, decide(rows, OLD_MS, slot=2), new)
    facts = VersionFacts((("block", 0.5),))
    found = reports(records, facts)["matured"]
    between = int(((rows.raw >= 0) & (rows.raw < 1)).sum())
    assert f"{between:,} decisions were counted under other thresholds" in found.note
    assert [one.raw_low for one in found.bins] == [-math.inf, -3, -1, 0.5, 1]
    above = [one.n_negative for one in found.bins][3:]
    assert above[1] == 2 * (rows.raw >= 1).sum()
    assert above[0] == pytest.approx(((rows.raw >= 0.5) & (rows.raw < 1)).sum() + between / 2)


def test_a_version_whose_bundle_is_gone_keeps_what_needs_no_bundle(records: Records) -> None:
    rows = scored(11, 3000)
    decided = decide(rows, OLD_MS, cuts=CUTS)
    keep(records, decided, edges_of(rows))
    report(records, decided, (rows.label == 1) & (rows.raw < np.float32(CUTS[1])))
    found = reports(records, None)
    matured = found["matured"]
    assert "its bundle cannot be read: no thresholds, no estimate" in matured.note
    assert "allowed traffic only" in matured.note  # the strictest decision hides its outcome
    seen = rows.raw < np.float32(CUTS[1])
    assert matured.metric("auc").value == pytest.approx(
        roc_auc_score(rows.label[seen], rows.raw[seen]), abs=0.003
    )
    assert {one.threshold for one in matured.metrics} == {"", "0.5"}
    assert not found["estimated"].metrics


def test_versions_and_arms_are_reported_apart_and_contents_once(records: Records) -> None:
    rows = scored(12, 1000)
    edges = edges_of(rows)
    for slot, who in enumerate(
        [key("1"), key("2", "canary"), key("2", "champion"), key("1", sha256="cd" * 32)]
    ):
        part = rows.part(np.arange(1000) < 500 + 100 * slot)
        keep(records, decide(part, OLD_MS, slot=slot), edges, who)
    asked: list[tuple[str, str, str]] = []

    def facts(*version: str) -> VersionFacts:
        asked.append(version)  # type: ignore[arg-type]
        return OPEN

    found = Evaluator(records.path, FeedbackSettings(), facts).evaluate(NOW_MS)
    matured = [one for one in found if one.cohort == "matured"]
    assert [(one.version, one.arm, one.n_decisions) for one in matured] == [
        ("1", "champion", 800), ("2", "canary", 600), ("2", "champion", 700),
    ]  # fmt: skip
    assert ("fraud", "1", "cd" * 32) in asked


def test_an_error_keeps_the_last_reports(
    records: Records, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = scored(13, 500)
    keep(records, decide(rows, OLD_MS), edges_of(rows))
    mood = {"broken": False}

    def facts(*_: str) -> VersionFacts:
        if mood["broken"]:
            raise sqlite3.OperationalError("disk I/O error")
        return OPEN

    one = Evaluator(records.path, FeedbackSettings(), facts)
    first = one.evaluate(NOW_MS)
    assert first
    mood["broken"] = True
    assert one.evaluate(NOW_MS + 1) is first
    assert one.evaluate(NOW_MS + 2) is first
    assert one.reports is first
    assert (one.n_ok, one.n_failed, one.evaluated_ms) == (1, 2, NOW_MS)
    [said] = [one.getMessage() for one in caplog.records]
    assert said.startswith("quality could not be measured: disk I/O error; the last reports stay")
    missing = Evaluator(tmp_path / "not.db", FeedbackSettings(), facts)
    assert missing.evaluate(NOW_MS) == ()
    assert missing.n_failed == 1


def test_nothing_yet(records: Records) -> None:
    assert evaluator(records, OPEN).evaluate(NOW_MS) == ()
    rows = scored(14, 300)
    keep(records, decide(rows, YOUNG_MS), edges_of(rows))
    found = reports(records)
    assert found["matured"].note == "no decision has matured yet"
    assert found["matured"].n_decisions == 0
    assert math.isnan(found["matured"].metric("recall", "block").value)
    assert "no positive outcome" in found["labelled"].note


@pytest.mark.parametrize("cut", [-3.5, -0.0, 0.0, 1.25])
def test_rows_are_read_from_a_score_on_by_card_and_by_report(records: Records, cut: float) -> None:
    rows = scored(15, 4000, n_cards=400)
    big = np.random.default_rng(1).integers(-(2**62), 2**62, 400)
    rows = rows._replace(entity=big[rows.entity])
    decided = decide(rows, OLD_MS)
    keep(records, decided, edges_of(rows))
    report(records, decided, np.arange(4000) < 1000)
    reader = Reader(records.path)
    try:
        with reader.snapshot():
            segments = reader.segments()
            chosen = list(reader.rows(segments, [1], raw_from=cut))
            raw = np.concatenate([one.raw for one in chosen])
            reported = (np.arange(4000) < 1000) & (rows.label == 1)
            assert sorted(raw) == sorted(rows.raw[(rows.raw >= np.float32(cut)) | reported])
            parts = list(reader.rows(segments, [1], one_in=4))
            entity = np.concatenate([one.entity for one in parts])
            kept = np.unique(entity)
            assert 60 < len(kept) < 140
            assert len(entity) == np.isin(rows.entity, kept).sum()  # cards are whole
            known = np.concatenate([o.label for o in reader.rows(segments, [1], reported=True)])
            assert sorted(known) == sorted(rows.label[:1000])
            assert not list(reader.rows(segments, [2]))
            label = np.concatenate([one.label for one in reader.rows(segments, [1])])
            assert (label == UNKNOWN).sum() == 3000
    finally:
        reader.close()


def test_requests_without_a_key_are_cards_of_their_own(records: Records) -> None:
    rows = scored(16, 500)._replace(entity=np.zeros(500, np.int64))
    keep(records, decide(rows, OLD_MS, unsticky=True), edges_of(rows))
    reader = Reader(records.path)
    try:
        [chunk] = reader.rows(reader.segments(), [1])
        assert len(np.unique(chunk.entity)) == 500
    finally:
        reader.close()


def test_many_rows_are_read_in_part_and_intervals_stay(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = scored(17, 20_000, n_cards=4000, share=0.08)
    rows = rows._replace(
        entity=np.random.default_rng(2).integers(-(2**62), 2**62, 4000)[rows.entity]
    )
    decided = decide(rows, times(20_000))
    keep(records, decided, edges_of(rows))
    report(records, decided, rows.label == 1)
    whole = reports(records)["matured"]
    monkeypatch.setattr("server.feedback.quality.rows.MAX_ROWS", 6000)
    monkeypatch.setattr("server.feedback.quality.sampling.MAX_ROWS", 6000)
    monkeypatch.setattr("server.feedback.quality.sampling.ROWS_PER_CARD", 10)
    part = reports(records)["matured"]
    for name in ("auc", "average_precision", "brier"):
        a, b = whole.metric(name), part.metric(name)
        assert a.value == b.value
        assert b.high - b.low == pytest.approx(a.high - a.low, rel=0.5)
    # The highest scores are enough for the cards, and all of them are read.
    assert part.metric("card_precision", "20").value == pytest.approx(
        whole.metric("card_precision", "20").value
    )
