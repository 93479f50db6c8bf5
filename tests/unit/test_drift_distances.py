"""Distances and what they are held to, against scipy, golden values and laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.spatial.distance import jensenshannon

from server.drift.clusters import chunk_design_effect, cluster_design_effect
from server.drift.critical import (
    CriticalCurve,
    chi_square_tail,
    effective_size,
    homogeneity_p_value,
    massart_bound,
    table_of,
)
from server.drift.distances import (
    coarse_counts,
    decile_counts,
    histogram_distance,
    js_bias,
    js_distance,
    js_divergence,
    ks_distance,
    psi,
)
from server.drift.pvalues import ks_p_value
from server.drift.rates import fisher_p_value, rate_p_value
from server.export.reference import KS_SIZES, KS_TAILS, bin_bounds

# Few distinct values on purpose: ties within and between the samples.
SAMPLES = hnp.arrays(
    np.float32,
    st.integers(4, 80),
    elements=st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5, width=32)),
)
COUNTS = hnp.arrays(np.int64, 6, elements=st.integers(0, 500)).filter(lambda c: c.sum() > 0)
LAW = settings(max_examples=150, deadline=None, derandomize=True)


@LAW
@given(SAMPLES, SAMPLES)
def test_distance_and_p_equal_scipys(window: np.ndarray, reference: np.ndarray) -> None:
    window, reference = np.sort(window), np.sort(reference)
    ours = ks_distance(window, reference)
    scipys = stats.ks_2samp(window, reference, method="asymp")
    assert ours == pytest.approx(scipys.statistic, abs=1e-9)
    assert ks_p_value(ours, len(window), len(reference)) == pytest.approx(scipys.pvalue, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "m", "shift"), [(2000, 10_000, 0.05), (600, 3000, 0.0), (5000, 10_000, 0.3)]
)
def test_distance_and_p_equal_scipys_at_real_sizes(n: int, m: int, shift: float) -> None:
    rng = np.random.default_rng(n)
    window = np.sort(rng.normal(shift, size=n).astype(np.float32))
    reference = np.sort(rng.normal(size=m).astype(np.float32))
    scipys = stats.ks_2samp(window, reference, method="asymp")
    ours = ks_distance(window, reference)
    assert ours == pytest.approx(scipys.statistic, abs=1e-9)
    assert ks_p_value(ours, n, m) == pytest.approx(scipys.pvalue, abs=1e-9, rel=1e-9)


@LAW
@given(COUNTS, COUNTS)
def test_jensen_shannon_equals_scipys(p: np.ndarray, q: np.ndarray) -> None:
    assert math.sqrt(js_divergence(p, q)) == pytest.approx(jensenshannon(p, q, base=2), abs=1e-7)
    assert js_divergence(p, q) == pytest.approx(js_divergence(q, p), abs=1e-12)


def test_golden_values() -> None:
    one, half = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    natural = math.sqrt(js_divergence(one, half) * math.log(2))
    assert natural == pytest.approx(0.46450140402245893, abs=1e-15)
    assert js_divergence(one, np.array([0.0, 1.0])) == 1
    assert js_divergence(half, half) == 0
    # Two normal distributions a standard deviation apart.
    grid = np.arange(1, 100_000) / 100_000
    before = stats.norm.ppf(grid).astype(np.float32)
    after = (stats.norm.ppf(grid) + 1).astype(np.float32)
    assert ks_distance(after, before) == pytest.approx(2 * stats.norm.cdf(0.5) - 1, abs=1e-4)
    assert psi(*decile_counts(after, before)) == pytest.approx(0.926, abs=1e-3)
    fine = np.linspace(-8, 9, 4001)
    cells = [np.diff(stats.norm.cdf(fine, mean)) * 1e12 for mean in (1, 0)]
    assert psi(*cells) == pytest.approx(1, abs=1e-2)  # delta squared, in the limit


@LAW
@given(st.integers(0, 10_000), st.floats(-1, 1), st.integers(30, 3000), st.booleans())
def test_histograms_lose_less_than_a_bin(seed: int, shift: float, n: int, atoms: bool) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=4000).astype(np.float32)
    window = rng.normal(shift, size=n).astype(np.float32)
    if atoms:
        reference[:1500], window[: n // 3] = 0.5, 0.5
    reference.sort()
    window.sort()
    bounds = bin_bounds(reference)
    before = np.bincount(np.searchsorted(bounds, reference), minlength=len(bounds) + 1)
    now = np.bincount(np.searchsorted(bounds, window), minlength=len(bounds) + 1)
    exact, coarse = ks_distance(window, reference), histogram_distance(now, before)
    single = np.append(False, np.diff(bounds) <= np.spacing(np.abs(bounds[1:])))
    mass = before[~np.append(single, False)].max() / len(reference)
    assert mass <= 1 / 256 + 2 / len(reference)  # bins of equal mass, to whole rows
    assert exact - mass - 1e-12 <= coarse <= exact + 1e-12


def test_coarse_cells_are_about_deciles() -> None:
    before = np.full(256, 40)
    now = np.arange(256)
    cells, reference = coarse_counts(now, before)
    assert len(cells) == 10
    assert cells.sum() == now.sum()
    assert (np.abs(reference / reference.sum() - 0.1) < 0.005).all()


def test_the_bias_of_jensen_shannon_is_its_mean_without_drift() -> None:
    rng = np.random.default_rng(0)
    shares, n, m = np.full(8, 1 / 8), 1000, 5000
    found = [
        js_divergence(rng.multinomial(n, shares), rng.multinomial(m, shares)) for _ in range(2000)
    ]
    assert np.mean(found) == pytest.approx(js_bias(8, n, m), rel=0.05)
    corrected = [
        js_distance(rng.multinomial(n, shares), rng.multinomial(m, shares)) for _ in range(200)
    ]
    assert 0.2 < np.mean(np.array(corrected) == 0) < 0.8


def test_stability_index_has_the_null_mean_that_is_documented() -> None:
    rng = np.random.default_rng(1)
    shares, n, m = np.full(10, 0.1), 1000, 5000
    found = [psi(rng.multinomial(n, shares), rng.multinomial(m, shares)) for _ in range(1000)]
    assert np.mean(found) == pytest.approx(9 * (1 / n + 1 / m), rel=0.05)


@pytest.mark.parametrize("size", [25, 137, 600, 1667, 5000, 99_999, 3_000_000])
@pytest.mark.parametrize("tail", [0.05, 0.001 / 61, 3.3e-8])
def test_critical_values_equal_scipys(size: int, tail: float) -> None:
    table = table_of(KS_SIZES, KS_TAILS, stats.kstwo.isf(KS_TAILS[None, :], KS_SIZES[:, None]))
    exact = stats.kstwo.isf(tail, size)
    assert CriticalCurve(tail, table).at(size) == pytest.approx(exact, rel=2e-3)
    # What an older reference is read with is never too small.
    assert exact <= CriticalCurve(tail, None).at(size) == massart_bound(size, tail) <= 1.25 * exact


@pytest.mark.parametrize("dof", [1, 2, 3, 10, 51, 500, 5000])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.2, 3.0])
def test_chi_square_tail_equals_scipys(dof: int, ratio: float) -> None:
    rel, least = (1e-9, 1e-300) if dof <= 2000 else (0.0, 1e-4)
    expected = stats.chi2.sf(dof * ratio, dof)
    assert chi_square_tail(dof * ratio, dof) == pytest.approx(expected, rel=rel, abs=least)
    assert chi_square_tail(0.0, dof) == 1


@LAW
@given(COUNTS, COUNTS)
def test_homogeneity_equals_scipys(window: np.ndarray, reference: np.ndarray) -> None:
    window, reference = window + 20, reference + 20  # no rare cells
    if (window + reference).min() * min(window.sum(), reference.sum()) / (
        window.sum() + reference.sum()
    ) < 5:
        return
    expected = stats.chi2_contingency([window, reference], correction=False).pvalue
    assert homogeneity_p_value(window, reference) == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_rare_categories_are_pooled() -> None:
    # One row of a category never seen proves nothing; thirty do.
    assert homogeneity_p_value(np.array([500, 499, 1]), np.array([5000, 5000, 0])) > 0.05
    assert homogeneity_p_value(np.array([500, 470, 30]), np.array([5000, 5000, 0])) < 1e-10


@LAW
@given(st.integers(0, 30), st.integers(1, 60), st.integers(0, 30), st.integers(1, 60))
def test_exact_test_equals_scipys(a: int, n: int, c: int, m: int) -> None:
    a, c = min(a, n), min(c, m)
    table = [[a, n - a], [c, m - c]]
    tails = [stats.fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")]
    expected = tails[a * m >= c * n]
    assert fisher_p_value(a, n, c, m) == pytest.approx(min(1.0, 2 * expected), abs=1e-9)


def test_rates() -> None:
    # The pooled two-proportion test is the chi-square test of the table, without correction.
    table = [[80, 920], [300, 9700]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert rate_p_value(80, 1000, 300, 10_000) == pytest.approx(expected, rel=1e-9)
    # None before: exact.
    assert rate_p_value(3, 1000, 0, 10_000) == fisher_p_value(3, 1000, 0, 10_000) < 0.01
    assert rate_p_value(0, 1000, 0, 10_000) == 1


def test_design_effects() -> None:
    rng = np.random.default_rng(2)
    cluster = np.repeat(np.arange(1500), 10)
    alone = rng.normal(size=15_000).astype(np.float32)
    assert cluster_design_effect(alone, cluster) == pytest.approx(1, abs=0.1)
    shared = rng.normal(size=1500)[cluster]
    together = (math.sqrt(0.4) * shared + math.sqrt(0.6) * alone).astype(np.float32)
    # Kish: 1 + (10 - 1) rho; of ranks rho is 6/pi asin(rho/2), a little less.
    rho = 6 / math.pi * math.asin(0.4 / 2)
    assert cluster_design_effect(together, cluster) == pytest.approx(1 + 9 * rho, rel=0.07)
    assert cluster_design_effect(shared.astype(np.float32), cluster) == pytest.approx(10, rel=0.01)
    size = effective_size(1000, 9000)
    drawn = stats.kstwobign.rvs(size=500, random_state=3) / math.sqrt(size)
    assert chunk_design_effect(drawn, np.full(500, size)) == pytest.approx(1, abs=0.1)
    assert chunk_design_effect(2 * drawn, np.full(500, size)) == pytest.approx(4, rel=0.1)
