"""The drift reference and the calibration, against scipy and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import ks_1samp, uniform
from sklearn.isotonic import IsotonicRegression

from server.export.reference import (
    KS_ALPHAS,
    KS_SIZES,
    MAX_VALUES,
    bin_bounds,
    calibration_arrays,
    reference_arrays,
)
from tests.support.models import make_data


def column(arrays: dict[str, np.ndarray], name: str, j: int) -> np.ndarray:
    offsets = arrays[f"{name}_offsets"]
    return arrays[name][offsets[j] : offsets[j + 1]]


def test_every_row_is_in_one_bin_or_missing() -> None:
    x = make_data(3000, missing=0.05).x
    x[:, 2] = x[:, 2] > 0
    raw = x[:, 0].copy()
    raw[np.isnan(raw)] = 0
    arrays = reference_arrays(x, raw, [False, False, True, False, False, False])
    for j in range(7):
        values = raw if j == 6 else x[:, j]
        present = values[~np.isnan(values)]
        bounds = column(arrays, "bin_upper", j)
        counts = column(arrays, "bin_count", j)
        assert (np.diff(bounds) > 0).all()
        assert counts.sum() + arrays["missing_count"][j] == 3000 == arrays["n_rows"][j]
        # The same counts by a plain definition: how many lie in (lower, upper].
        edges = np.concatenate([[-np.inf], bounds, [np.inf]])
        plain = [((present > a) & (present <= b)).sum() for a, b in itertools.pairwise(edges)]
        assert counts.tolist() == plain
        assert np.array_equal(column(arrays, "values", j), np.sort(present))
    ones = int((x[:, 2] == 1).sum())
    assert column(arrays, "category_count", 2).tolist()[1] >= ones
    assert len(column(arrays, "category_count", 0)) == 0


def test_atoms_have_bins_of_their_own() -> None:
    rng = np.random.default_rng(0)
    values = np.sort(np.concatenate([np.zeros(500), rng.normal(size=1500)]).astype(np.float32))
    bounds = bin_bounds(values)
    at = int(np.searchsorted(bounds, np.float32(0)))
    assert bounds[at] == 0
    assert bounds[at - 1] == np.nextafter(np.float32(0), np.float32(-1))
    counts = np.bincount(np.searchsorted(bounds, values), minlength=len(bounds) + 1)
    assert counts[at] == 500
    assert counts[np.arange(len(counts)) != at].max() <= 3 * 2000 / 256


def test_many_values_are_thinned_to_order_statistics() -> None:
    x = np.random.default_rng(0).normal(size=(30_000, 1)).astype(np.float32)
    values = column(reference_arrays(x, x[:, 0], [False]), "values", 0)
    assert len(values) == MAX_VALUES
    assert (values[0], values[-1]) == (x.min(), x.max())
    assert set(values.tolist()) <= set(x[:, 0].tolist())


def test_critical_distances_have_the_p_value_they_promise() -> None:
    x = make_data(300).x
    arrays = reference_arrays(x, x[:, 0], [False] * 6)
    at = int(np.flatnonzero(KS_SIZES == 100)[0])
    for alpha, critical in zip(KS_ALPHAS, arrays["ks_critical"][at], strict=True):
        # A sample whose distance to the uniform distribution is exactly `critical`.
        sample = np.clip((np.arange(100) + 1) / 100 - critical, 0, 1)
        result = ks_1samp(sample, uniform.cdf, method="exact")
        assert result.statistic == pytest.approx(critical)
        assert result.pvalue == pytest.approx(alpha / 6, rel=1e-6)
    assert (np.diff(arrays["ks_quantile"], axis=1) > 0).all()
    assert (np.diff(arrays["ks_quantile"], axis=0) < 0).all()


def test_calibration_is_scikit_learns_isotonic_fit() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=2000).astype(np.float32)
    positive = rng.random(2000) < 1 / (1 + np.exp(-raw))
    arrays = calibration_arrays(raw, positive)
    expected = IsotonicRegression(out_of_bounds="clip").fit(raw, positive.astype(float))
    probe = np.linspace(-5, 5, 300).astype(np.float32)
    ours = np.interp(probe, arrays["raw"], arrays["probability"])
    assert np.allclose(ours, expected.predict(probe), atol=1e-6)
    assert int(arrays["n_positive"]) == positive.sum()
