"""Figures from bins are those of the rows, as scikit-learn has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from server.feedback.quality import from_bins, score_edges
from server.feedback.quality.counts import ScoreCounts, Sums, rebinning
from tests.support.quality import scored

CUTS = (-1.5, 0.25)
KINDS = pytest.mark.parametrize("weighted", [False, True])


@KINDS
def test_everything_equals_scikit_learn_where_bins_separate_all_scores(weighted: bool) -> None:
    rows = scored(1, 3000, decimals=1, weighted=weighted)
    counts = rows.counts(np.unique(rows.raw))
    label, weight = rows.label, rows.weight
    negative, positive = counts.negative.weight, counts.positive.weight
    assert from_bins.auc(negative, positive) == pytest.approx(
        roc_auc_score(label, rows.raw, sample_weight=weight), abs=1e-12
    )
    assert from_bins.average_precision(negative, positive) == pytest.approx(
        average_precision_score(label, rows.raw, sample_weight=weight), abs=1e-12
    )


@KINDS
def test_shares_and_brier_equal_scikit_learn_in_few_bins(weighted: bool) -> None:
    rows = scored(2, 5000, weighted=weighted)
    edges = np.array(sorted([*CUTS, -4.0]), np.float32)  # as coarse as can be
    counts = rows.counts(edges)
    label, weight = rows.label, rows.weight
    for cut in CUTS:
        found = from_bins.confusion(
            counts.negative.weight, counts.positive.weight, counts.first_above(cut)
        )
        said = rows.raw >= np.float32(cut)
        for value, reference in (
            (found.precision, precision_score),
            (found.recall, recall_score),
            (found.accuracy, accuracy_score),
        ):
            assert value == pytest.approx(reference(label, said, sample_weight=weight), abs=1e-12)
        known = ~np.isnan(rows.amount)
        value = np.where(known, rows.amount, 0) * weight
        assert from_bins.value_recall(
            counts.positive.amount, counts.first_above(cut)
        ) == pytest.approx(recall_score(label, said, sample_weight=value), abs=1e-12)
    assert from_bins.brier(counts.negative, counts.positive) == pytest.approx(
        brier_score_loss(label, rows.score.astype(np.float64), sample_weight=weight), abs=1e-12
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(10, 400),
    st.integers(0, 30),
    st.sampled_from([0, 1, None]),
    st.booleans(),
)
def test_the_auc_is_off_by_half_of_the_pairs_in_one_bin_at_most(
    seed: int, n: int, n_edges: int, decimals: int | None, weighted: bool
) -> None:
    rows = scored(seed, n, share=0.3, decimals=decimals, weighted=weighted)
    random = np.random.default_rng(seed)
    edges = np.unique(random.choice(rows.raw, n_edges)) if n_edges else np.empty(0, np.float32)
    counts = rows.counts(edges)
    negative, positive = counts.negative.weight, counts.positive.weight
    exact = roc_auc_score(rows.label, rows.raw, sample_weight=rows.weight)
    off = abs(from_bins.auc(negative, positive) - exact)
    assert off <= from_bins.tied_share(negative, positive) / 2 + 1e-12


def test_the_usual_edges_tell_auc_and_average_precision_of_rare_fraud() -> None:
    reference = scored(3, 60_000, share=0.01)
    live = scored(4, 60_000, share=0.01)
    edges = score_edges(np.sort(reference.raw)[::6], CUTS)
    assert 200 < len(edges) < 400
    counts = live.counts(edges)
    negative, positive = counts.negative.weight, counts.positive.weight
    assert from_bins.auc(negative, positive) == pytest.approx(
        roc_auc_score(live.label, live.raw), abs=0.001
    )
    assert from_bins.average_precision(negative, positive) == pytest.approx(
        average_precision_score(live.label, live.raw), abs=0.005
    )


def test_edges_hold_the_thresholds_and_give_atoms_their_own_bin() -> None:
    raw = np.sort(np.concatenate([np.random.default_rng(5).normal(size=5000), np.full(500, 1.5)]))
    edges = score_edges(raw.astype(np.float32), [0.1, 0.7, np.inf])
    assert (np.diff(edges) > 0).all()
    assert edges.dtype == np.float32
    for cut in (0.1, 0.7):
        assert np.float32(cut) in edges
    at = int(np.searchsorted(edges, np.float32(1.5), side="right"))
    assert edges[at - 1] == 1.5
    assert edges[at] == np.nextafter(np.float32(1.5), np.float32(2))
    assert np.isfinite(edges).all()
    top = (edges >= np.quantile(raw, 0.99)).sum()
    assert 0.25 < top / len(edges) < 0.75


@pytest.mark.parametrize(
    ("values", "cuts", "expected"),
    [([], [], []), ([], [2.0, 1.0], [1, 2]), ([1.0, 1.0, 3.0], [2.0], [1, 2, 3])],
)
def test_edges_of_little(values: list[float], cuts: list[float], expected: list[float]) -> None:
    assert score_edges(np.array(values, np.float32), cuts).tolist() == expected


@pytest.mark.parametrize("values", [[2.0, 1.0], [np.nan], [np.inf]])
def test_values_that_are_no_reference_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite and ascending"):
        score_edges(np.array(values, np.float32), [])


def test_calibration_groups_hold_all_rows_and_tell_what_came() -> None:
    rows = scored(6, 20_000, weighted=True)
    counts = rows.counts(score_edges(np.sort(rows.raw), CUTS))
    groups = from_bins.reliability(counts.negative, counts.positive)
    total = rows.weight.sum()
    assert 10 <= len(groups.weight) <= from_bins.N_GROUPS
    assert groups.weight.sum() == pytest.approx(total)
    assert (groups.weight * groups.mean_score).sum() == pytest.approx(
        (rows.weight * rows.score).sum(), rel=1e-6
    )
    assert (groups.weight * groups.positive_share).sum() == pytest.approx(
        (rows.weight * rows.label).sum()
    )
    assert (np.diff(groups.mean_score) > 0).all()
    expected = (groups.weight / total * abs(groups.mean_score - groups.positive_share)).sum()
    assert from_bins.calibration_error(groups) == pytest.approx(expected)


def test_scores_that_tell_the_truth_have_next_to_no_calibration_error() -> None:
    rows = scored(7, 100_000)
    random = np.random.default_rng(8)
    true = rows._replace(label=(random.random(len(rows.raw)) < rows.score).astype(np.int8))
    boasting = true._replace(score=np.sqrt(true.score))
    edges = score_edges(np.sort(rows.raw)[::10], ())
    errors = [
        from_bins.calibration_error(from_bins.reliability(c.negative, c.positive))
        for c in (true.counts(edges), boasting.counts(edges))
    ]
    assert errors[0] < 0.005
    assert errors[1] > 0.1


def test_what_is_not_defined_is_nan() -> None:
    none = np.zeros(3)
    some = np.array([1.0, 2.0, 0.0])
    assert np.isnan(from_bins.auc(some, none))
    assert np.isnan(from_bins.auc(none, some))
    assert np.isnan(from_bins.average_precision(some, none))
    assert np.isnan(from_bins.confusion(some, none, 1).recall)
    assert np.isnan(from_bins.confusion(some, none, 2).precision)
    assert np.isnan(from_bins.value_recall(none, 1))
    empty = Sums(np.zeros((3, 6)))
    assert np.isnan(from_bins.brier(empty, empty))
    assert np.isnan(from_bins.calibration_error(from_bins.reliability(empty, empty)))
    assert from_bins.kish(none, none) == 0


def test_kish_counts_rows_by_what_they_are_worth() -> None:
    assert from_bins.kish(np.full(4, 3.0), np.full(4, 9.0)) == pytest.approx(4)
    weight = np.array([1.0, 1.0, 10.0])
    assert from_bins.kish(weight, weight**2) == pytest.approx(144 / 102)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-5, 5, width=32), max_size=12),
    st.lists(st.floats(-5, 5, width=32), max_size=12),
)
def test_rebinning_loses_nothing_and_keeps_what_both_cut(
    old: list[float], new: list[float]
) -> None:
    before, after = (np.unique(np.array(x, np.float32)) for x in (old, new))
    shares = rebinning(before, after)
    assert shares.shape == (len(before) + 1, len(after) + 1)
    assert (shares >= 0).all()
    assert shares.sum(axis=1) == pytest.approx(1)
    for cut in np.intersect1d(before, after):
        a, b = (int(np.searchsorted(x, cut, side="right")) for x in (before, after))
        assert not shares[:a, b:].any()
        assert not shares[a:, :b].any()


def test_a_bin_that_an_edge_cuts_is_shared_out_by_length() -> None:
    shares = rebinning(np.array([0, 4], np.float32), np.array([0, 1, 4], np.float32))
    assert shares[1].tolist() == [0, 0.25, 0.75, 0]
    same = np.array([0, 4], np.float32)
    assert np.array_equal(rebinning(same, same), np.eye(3))


def test_counts_know_their_kinds() -> None:
    rows = scored(9, 100)
    label = rows.label.copy()
    label[::3] = -1
    counts: ScoreCounts = rows._replace(label=label).counts(np.array([-3], np.float32))
    assert counts.unknown.rows.sum() == len(label[::3])
    assert counts.known.rows.sum() == 100 - len(label[::3])
    assert counts.first_above(-3.0) == 1
