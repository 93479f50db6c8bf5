"""Estimates before outcomes: the formula, what it foresees, and what it misses."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from server.feedback.quality import from_bins, score_edges
from server.feedback.quality.counts import ScoreCounts
from server.feedback.quality.estimate import bin_probabilities, calibrated, expected
from tests.support.quality import Scored, scored

CUT = -1.0
Floats = NDArray[np.float64]


def _calibration(rows: Scored) -> tuple[Floats, Floats]:
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    fitted.fit(rows.raw.astype(np.float64), rows.label)
    return fitted.X_thresholds_, fitted.y_thresholds_


def _unlabelled(rows: Scored, edges: NDArray[np.float32]) -> ScoreCounts:
    return rows._replace(label=np.full(len(rows.raw), -2, np.int8)).counts(edges)


def test_probabilities_are_the_isotonic_regressions() -> None:
    rows = scored(1, 5000)
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    fitted.fit(rows.raw.astype(np.float64), rows.label)
    other = scored(2, 1000).raw
    assert calibrated(_calibration(rows), other) == pytest.approx(
        fitted.predict(other.astype(np.float64))
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_formula_over_rows(weighted: bool) -> None:
    calibration = _calibration(scored(3, 20_000))
    rows = scored(4, 10_000)
    weight = np.full(len(rows.raw), 4.0 if weighted else 1.0)
    edges = score_edges(np.sort(rows.raw), [CUT])
    counts = _unlabelled(rows._replace(weight=weight), edges)
    p = calibrated(calibration, rows.raw)
    negative, positive = expected(counts, bin_probabilities(calibration, edges, rows.raw))
    found = from_bins.confusion(negative, positive, counts.first_above(CUT))
    above = rows.raw >= np.float32(CUT)
    tp, fp, fn = p[above].sum(), (1 - p[above]).sum(), p[~above].sum()
    assert found.precision == pytest.approx(tp / (tp + fp))
    assert found.recall == pytest.approx(tp / (tp + fn))
    assert found.accuracy == pytest.approx((tp + (1 - p[~above]).sum()) / len(p))
    # The area under the curve of rows that are p positive and 1 - p negative.
    twice = np.concatenate([rows.raw, rows.raw])
    label = np.repeat([1, 0], len(p))
    exact = roc_auc_score(label, twice, sample_weight=np.concatenate([p, 1 - p]))
    assert from_bins.auc(negative, positive) == pytest.approx(exact, abs=2e-3)


def test_it_foresees_who_comes_and_not_what_fraud_becomes() -> None:
    calibration = _calibration(scored(5, 100_000, share=0.05))
    edges = score_edges(np.sort(scored(5, 100_000).raw)[::10], [CUT])

    def recall(rows: Scored) -> tuple[float, float]:
        counts = _unlabelled(rows, edges)
        negative, positive = expected(counts, bin_probabilities(calibration, edges, rows.raw))
        first = counts.first_above(CUT)
        real = rows.counts(edges)
        return (
            float(from_bins.confusion(negative, positive, first).recall),
            float(from_bins.confusion(real.negative.weight, real.positive.weight, first).recall),
        )

    estimate, real = recall(scored(6, 100_000, share=0.05))
    assert estimate == pytest.approx(real, abs=0.02)
    # Fraud that looks like everything else: the estimate goes on as before.
    estimate, real = recall(scored(7, 100_000, share=0.05, lift=0.0))
    assert estimate - real > 0.2


def test_bins_without_a_sample_get_the_probability_of_their_middle() -> None:
    calibration = (np.array([0.0, 10.0]), np.array([0.0, 1.0]))
    edges = np.array([2, 4, 8], np.float32)
    none = np.empty(0, np.float32)
    assert bin_probabilities(calibration, edges, none) == pytest.approx([0.2, 0.3, 0.6, 0.8])
    some = np.array([2.0, 2.2], np.float32)
    assert bin_probabilities(calibration, edges, some) == pytest.approx([0.2, 0.21, 0.6, 0.8])
