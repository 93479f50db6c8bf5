"""The dyadic grid: sums are exact in any order, no finer grid would do, clips are counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.export.quantize import BUDGET, CLIP, MAX_EXPONENT, Quantized, quantize
from server.export.trees import Trees, join


def stumps(leaves: NDArray[np.float64], base: float) -> Trees:
    """Return one stump per row of `leaves`, shape (n_trees, 2)."""
    part = {
        "feature": np.array([0, -1, -1]),
        "threshold": np.zeros(3),
        "true_child": np.array([1, -1, -1]),
        "false_child": np.array([2, -1, -1]),
        "missing_true": np.zeros(3, bool),
    }
    return join([{**part, "leaf": np.array([0.0, *pair])} for pair in leaves], base)


def leaf_values(quantized: Quantized, n_trees: int) -> NDArray[np.float64]:
    trees = quantized.trees
    return trees.leaf[trees.is_leaf].reshape(n_trees, 2)


@settings(max_examples=100, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    n_trees=st.integers(1, 200),
    magnitude=st.integers(-30, 30),
    base=st.floats(-40, 40),
)
def test_float32_sums_are_exact_in_every_order(
    seed: int, n_trees: int, magnitude: int, base: float
) -> None:
    rng = np.random.default_rng(seed)
    leaves = rng.normal(size=(n_trees, 2)) * 2.0**magnitude
    quantized = quantize(stumps(leaves, base), "logit")
    values = leaf_values(quantized, n_trees)
    chosen = values[np.arange(n_trees), rng.integers(2, size=n_trees)]
    terms = np.append(chosen, quantized.trees.base)
    exact = terms.sum()
    for _ in range(3):
        total = np.float32(0)
        for term in rng.permutation(terms).astype(np.float32):
            total += term
        assert float(total) == exact
    # The finest: one bit more would not fit, unless the clipping or the cap decided.
    finer = np.abs(np.rint(np.ldexp(np.clip(leaves, -CLIP, CLIP), quantized.exponent + 1)))
    budget = finer.max(axis=1).sum() + abs(np.rint(np.ldexp(base, quantized.exponent + 1)))
    assert budget > BUDGET or quantized.exponent == MAX_EXPONENT
    step = 2.0**-quantized.exponent
    assert np.abs(values - np.clip(leaves, -CLIP, CLIP)).max() <= step / 2


def test_enormous_leaves_are_clipped_and_counted() -> None:
    quantized = quantize(stumps(np.array([[4.6e8, -0.1], [0.2, -70.0]]), -5.0), "logit")
    assert quantized.clipped == 2
    assert leaf_values(quantized, 2).max() == CLIP
    assert leaf_values(quantized, 2).min() == -CLIP


@pytest.mark.parametrize(("largest", "dtype"), [(64.0, "int16"), (1e-3, "int32")])
def test_leaf_dtype_is_what_the_integers_fit(largest: float, dtype: str) -> None:
    # 1,000 trees with one clipped leaf each leave few bits for every leaf.
    n = 1000 if dtype == "int16" else 1
    quantized = quantize(stumps(np.full((n, 2), largest), 0.0), "logit")
    q = np.abs(np.ldexp(leaf_values(quantized, n), quantized.exponent)).max()
    assert (q <= 32767) == (dtype == "int16")
    assert quantized.leaf_dtype == dtype


@settings(max_examples=100, derandomize=True)
@given(seed=st.integers(0, 2**31), n_trees=st.integers(1, 600))
def test_probabilities_round_up_within_their_share(seed: int, n_trees: int) -> None:
    rng = np.random.default_rng(seed)
    leaves = np.where(rng.random((n_trees, 2)) < 0.5, rng.random((n_trees, 2)), 1.0) / n_trees
    quantized = quantize(stumps(leaves, 0.0), "identity")
    values = leaf_values(quantized, n_trees)
    raw = values[:, 0].sum() + quantized.trees.base
    assert leaves[:, 0].sum() - 1e-12 <= raw <= 1.0
    assert raw - leaves[:, 0].sum() < 2 * n_trees * 2.0**-24
    full = values.max(axis=1).sum() + quantized.trees.base
    assert full * BUDGET <= BUDGET
