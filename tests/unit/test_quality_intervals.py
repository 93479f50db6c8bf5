"""Intervals: Wilson's as scipy has it, and the bootstrap's hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from server.feedback.quality import from_bins
from server.feedback.quality.bootstrap import (
    _POISSON,
    N_REPLICATES,
    Replicates,
    interval,
    resample,
)
from server.feedback.quality.intervals import wilson
from server.feedback.quality.trials import (
    accuracy_trials,
    precision_trials,
    recall_trials,
    share_trials,
)
from tests.support.quality import Scored, scored, sigmoid


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 100_000), st.floats(0, 1))
def test_wilson_is_scipys(n: int, part: float) -> None:
    k = round(n * part)
    reference = binomtest(k, n).proportion_ci(method="wilson")
    found = wilson(k / n, n)
    assert found.low == pytest.approx(reference.low, abs=1e-12)
    assert found.high == pytest.approx(reference.high, abs=1e-12)
    assert found.low <= k / n <= found.high


@pytest.mark.parametrize(("share", "n"), [(math.nan, 10), (0.5, 0), (0.5, math.nan)])
def test_wilson_of_nothing_is_unknown(share: float, n: float) -> None:
    assert all(map(math.isnan, wilson(share, n)))


def test_cards_are_drawn_by_poissons_law() -> None:
    draws = _POISSON.astype(np.float64)
    assert draws.mean() == pytest.approx(1, abs=1e-4)
    assert draws.var() == pytest.approx(1, abs=1e-3)
    assert (draws == 0).mean() == pytest.approx(math.exp(-1), abs=1e-4)


def test_the_point_of_the_resampled_rows_is_their_own_figure() -> None:
    rows = scored(1, 2000, decimals=1, weighted=True)
    found = resample(rows.rows(), np.unique(rows.raw), (3, 40))
    assert found is not None
    assert found.auc.point == pytest.approx(
        roc_auc_score(rows.label, rows.raw, sample_weight=rows.weight)
    )
    assert found.average_precision.point == pytest.approx(
        average_precision_score(rows.label, rows.raw, sample_weight=rows.weight)
    )
    assert len(found.auc.values) == N_REPLICATES
    assert len(found.value_recall) == 2
    counts = rows.counts(np.unique(rows.raw))
    assert found.value_recall[1].point == pytest.approx(
        float(from_bins.value_recall(counts.positive.amount, 40))
    )
    assert found.brier.point == pytest.approx(from_bins.brier(counts.negative, counts.positive))


def test_the_same_rows_give_the_same_interval() -> None:
    rows = scored(2, 1000).rows()
    edges = np.linspace(-6, 3, 50, dtype=np.float32)
    first, second = resample(rows, edges), resample(rows, edges)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.auc.values, second.auc.values)


def test_few_cards_with_fraud_have_no_interval() -> None:
    rows = scored(3, 1000, share=0.0)
    rows.label[:50] = 1
    rows.entity[:50] = np.arange(50) % 9
    assert resample(rows.rows(), np.zeros(1, np.float32)) is None
    rows.entity[0] = 1001
    assert resample(rows.rows(), np.zeros(1, np.float32)) is not None


def test_an_interval_is_put_around_the_figure_of_all_rows() -> None:
    found = Replicates(0.6, 0.6 + np.linspace(-0.1, 0.1, 201))
    whole = interval(0.7, found)
    assert whole == pytest.approx((0.605, 0.795))
    assert interval(0.7, found, 0.25) == pytest.approx((0.6525, 0.7475))
    assert interval(0.97, found).high == 1.0
    assert all(map(math.isnan, interval(0.7, None)))
    assert all(map(math.isnan, interval(math.nan, found)))
    half_unknown = Replicates(0.6, np.where(np.arange(201) < 150, np.nan, 0.6))
    assert all(map(math.isnan, interval(0.7, half_unknown)))


def _cards(seed: int, n_cards: int) -> Scored:
    """Rows of cards that have their own level of score: rows of one card are alike."""
    random = np.random.default_rng(seed)
    bad = random.random(n_cards) < 0.2
    bad[:2] = [False, True]
    level = random.normal(size=n_cards) + 1.5 * bad
    n = random.integers(1, 9, n_cards)
    card = np.repeat(np.arange(n_cards), n)
    raw = (level[card] + 0.3 * random.normal(size=len(card))).astype(np.float32)
    ones = np.ones(len(card))
    return Scored(raw, sigmoid(raw), bad[card].astype(np.int8), ones, ones, card)


def test_intervals_by_card_cover_and_those_by_row_do_not() -> None:
    truth = float(roc_auc_score(*_of(_cards(0, 60_000))))
    edges = np.linspace(-4, 6, 200, dtype=np.float32)
    n_runs, by_card, by_row = 120, 0, 0
    for seed in range(1, n_runs + 1):
        rows = _cards(seed, 300)
        alone = rows._replace(entity=np.arange(len(rows.raw)))
        for one in (rows, alone):
            found = resample(one.rows(), edges)
            assert found is not None
            low, high = interval(found.auc.point, found.auc)
            covered = low <= truth <= high
            if one is rows:
                by_card += covered
            else:
                by_row += covered
    # A true coverage of .90 or more falls below this once in 1,000; .95 is what is promised.
    assert by_card >= binom.ppf(0.001, n_runs, 0.90)
    assert by_card <= binom.ppf(0.9999, n_runs, 0.985)
    # Upper bound of what rows taken for independent cover, at 1 - 1e-3.
    assert beta.ppf(0.999, by_row + 1, n_runs - by_row) < 0.90


def _of(rows: Scored) -> tuple[np.ndarray[tuple[int], np.dtype[np.int8]], ...]:
    return rows.label, rows.raw  # type: ignore[return-value]


def test_without_weights_a_share_is_worth_its_rows() -> None:
    assert share_trials(3.0, 3.0, 7.0, 7.0) == pytest.approx(10)
    assert share_trials(30.0, 90.0, 70.0, 210.0) == pytest.approx(100 / 3)
    assert share_trials(0.0, 0.0, 5.0, 5.0) == 5
    assert share_trials(0.0, 0.0, 0.0, 0.0) == 0
    counts = scored(4, 3000).counts(np.array([-1.0], np.float32))
    assert accuracy_trials(counts, 1) == pytest.approx(3000)
    assert precision_trials(counts, 1) == pytest.approx(counts.known.rows[1])
    assert recall_trials(counts, 1) == pytest.approx(counts.positive.rows.sum())


def test_where_nothing_was_found_what_could_have_been_had_large_weights() -> None:
    rows = scored(5, 1000, share=0.0)._replace(
        raw=np.linspace(-1, 1, 1000, dtype=np.float32), weight=np.repeat([1.0, 10.0], 500)
    )
    rows.label[:] = 0
    rows.label[:100] = 1
    counts = rows.counts(np.zeros(1, np.float32))
    assert recall_trials(counts, 1) == pytest.approx(10)  # one found would have been 10 of 110
    assert wilson(0.0, recall_trials(counts, 1)).high > 0.2


@pytest.mark.parametrize("lift", [0.8, 3.5])
def test_weighted_intervals_cover_with_little_recall_and_with_much(lift: float) -> None:
    """A tenth of what would be blocked is explored: a few decisions of weight 10."""
    cut = np.float32(-1.0)
    everyone = scored(100, 400_000, share=0.1, lift=lift)
    said = everyone.raw >= cut
    truth = (
        (everyone.label[said] == 1).mean(), said[everyone.label == 1].mean(),
        (said == everyone.label).mean(),
    )  # fmt: skip
    random = np.random.default_rng(1)
    n_runs = 400
    covered = np.zeros(3, int)
    by_kish = 0
    for _ in range(n_runs):
        drawn = everyone.part(random.integers(0, len(said), 3000))
        blocked = drawn.raw >= cut
        seen = drawn.part(~blocked | (random.random(3000) < 0.1))
        seen = seen._replace(weight=np.where(seen.raw >= cut, 10.0, 1.0))
        counts = seen.counts(np.array([cut]))
        found = from_bins.confusion(counts.negative.weight, counts.positive.weight, 1)
        figures = (found.precision, found.recall, found.accuracy)
        worth = (
            precision_trials(counts, 1), recall_trials(counts, 1), accuracy_trials(counts, 1),
        )  # fmt: skip
        for at, (value, n) in enumerate(zip(figures, worth, strict=True)):
            low, high = wilson(float(value), n)
            covered[at] += low <= truth[at] <= high
        low, high = wilson(
            float(found.recall),
            from_bins.kish(counts.positive.weight, counts.positive.weight2),
        )
        by_kish += low <= truth[1] <= high
    assert (covered >= binom.ppf(0.001, n_runs, 0.93)).all(), covered
    assert (covered <= binom.ppf(0.9999, n_runs, 0.985)).all(), covered
    if lift < 1:  # what Kish's number would have promised
        assert by_kish < binom.ppf(0.001, n_runs, 0.93)
