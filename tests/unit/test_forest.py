"""The forest engine against stock onnxruntime, bit for bit, in every variant of its kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.random_forests import (
    Arrays,
    Builder,
    hard_rows,
    onnx_forest,
    perfect_forest,
    stock_scores,
)
from fastpath.errors import ModelError
from fastpath.forest import Forest, available_isas
from fastpath.forest_layout import order_keys

Grow = Callable[[Builder], int]


def grown(
    grow: Grow,
    n_trees: int,
    *,
    seed: int = 0,
    n_features: int = 10,
    n_thresholds: int = 500,
    units: int = 1 << 12,
    k: int = 10,
    missing: str = "random",
    base: float = 0.25,
) -> Arrays:
    rng = np.random.default_rng(seed)
    special = [0.0, -0.0, np.inf, -np.inf, np.finfo(np.float32).tiny / 4]
    pool = np.concatenate([rng.normal(size=n_thresholds), special]).astype(np.float32)
    builder = Builder(rng, n_features, pool)
    builder.units, builder.k, builder.missing = units, k, missing
    builder.roots = [grow(builder) for _ in range(n_trees)]
    return builder.arrays(base)


def assert_equals_stock(arrays: Arrays, n_rows: int = 150, seed: int = 1) -> Forest:
    """All kernels give stock onnxruntime's bits; returns the last forest."""
    rows = hard_rows(arrays, np.random.default_rng(seed), n_rows)
    want = stock_scores(onnx_forest(arrays), rows).view(np.uint32)
    for isa in available_isas():
        forest = Forest(**arrays, isa=isa)
        assert forest.isa == isa
        np.testing.assert_array_equal(forest.score(rows).view(np.uint32), want, err_msg=isa)
        # No score depends on the other rows of a call.
        one = np.concatenate([forest.score(row[None]) for row in rows[:20]])
        np.testing.assert_array_equal(one.view(np.uint32), want[:20], err_msg=isa)
    return forest


@pytest.mark.parametrize("depth", range(10))
def test_perfect_trees(depth: int) -> None:
    forest = assert_equals_stock(grown(lambda b: b.perfect(depth), 11, seed=depth))
    assert forest.max_depth == depth
    assert forest.layout == ("heaps" if depth <= 8 else "preorder")
    assert forest.exact


@pytest.mark.parametrize("n_trees", [1, 7, 8, 9, 64, 65, 130])
def test_numbers_of_trees_that_do_not_fill_the_lanes(n_trees: int) -> None:
    assert_equals_stock(grown(lambda b: b.perfect(4), n_trees, seed=n_trees), 60)
    assert_equals_stock(grown(lambda b: b.chain(12), n_trees, seed=n_trees), 60)


def test_leaf_wise_growth_mixes_heaps_and_nodes() -> None:
    forest = assert_equals_stock(grown(lambda b: b.uneven(31), 60))
    assert forest.layout == "mixed"  # AVX-512: all but the shallow ones by leaf masks


@pytest.mark.parametrize("n_leaves", [2, 15, 31, 32, 33])
@pytest.mark.parametrize("n_trees", [15, 16, 64, 65])
@pytest.mark.parametrize("units", [1 << 10, 1 << 16])
def test_leaf_masks(n_leaves: int, n_trees: int, units: int) -> None:
    # A comb on top makes every tree too deep for a heap that is always made.
    def grow(b: Builder) -> int:
        at = b.chain(9)
        return b.split(at, b.uneven(n_leaves - 10)) if n_leaves > 10 else at

    arrays = grown(grow, n_trees, units=units, n_features=20, n_thresholds=1500)
    forest = assert_equals_stock(arrays, 60)
    if forest.isa == "avx512":
        fits = n_leaves <= 32 and n_trees >= 16
        assert forest.layout == ("masks" if fits else "preorder")
    assert Forest(**arrays, isa="baseline").layout == "preorder"


def test_trees_of_different_depths() -> None:
    depths = iter(range(9))
    forest = assert_equals_stock(grown(lambda b: b.perfect(next(depths)), 9))
    assert forest.layout == "heaps"


def test_a_chain_as_deep_as_the_handbook_forest() -> None:
    forest = assert_equals_stock(grown(lambda b: b.chain(42), 20))
    assert (forest.layout, forest.max_depth) == ("preorder", 42)


@pytest.mark.parametrize("missing", ["true", "false", "random"])
@pytest.mark.parametrize("grow", ["perfect", "chain"])
def test_missing_directions(missing: str, grow: str) -> None:
    arrays = grown(lambda b: getattr(b, grow)(6), 30, n_features=3, missing=missing)
    forest = assert_equals_stock(arrays)
    rows = np.full((1, 3), np.nan, dtype=np.float32)
    assert np.isfinite(forest.score(rows)).all()


@pytest.mark.parametrize(
    ("n_features", "n_thresholds", "depth"),
    [
        (1, 255 - 4, 7),  # with 0, inf, -inf and a denormal: one byte just holds them
        (1, 255 - 3, 7),  # one more: two searches
        (1, 3000, 6),
        (20, 200, 4),  # up to 64 slots: one register of bins
        (50, 200, 5),  # up to 128: two
        (120, 200, 5),  # up to 256: four
        (3, 30_000, 8),  # too many to rank: keys, one register
        (14, 30_000, 8),  # keys, two registers
        (40, 30_000, 8),  # keys, scalar
        (1024, 30_000, 6),  # more copies than a heap's slot can name
    ],
)
def test_sizes_of_rows_and_threshold_lists(n_features: int, n_thresholds: int, depth: int) -> None:
    arrays = grown(lambda b: b.perfect(depth), 90, n_features=n_features, n_thresholds=n_thresholds)
    forest = assert_equals_stock(arrays, 60)
    assert forest.layout == ("preorder" if n_features == 1024 else "heaps")


def test_every_threshold_and_its_neighbours() -> None:
    arrays = grown(lambda b: b.perfect(5), 40, n_features=4, n_thresholds=400)
    forest = Forest(**arrays)
    rows = []
    for feature, thresholds in enumerate(forest.thresholds):
        assert (np.diff(thresholds) > 0).all()
        finite = thresholds[np.isfinite(thresholds)]
        for direction in (-np.inf, 0.0, np.inf):
            values = np.nextafter(finite, np.float32(direction)) if direction else finite
            block = np.zeros((len(values), 4), dtype=np.float32)
            block[:, feature] = values
            rows.append(block)
    matrix = np.concatenate(rows)
    want = stock_scores(onnx_forest(arrays), matrix).view(np.uint32)
    for isa in available_isas():
        got = Forest(**arrays, isa=isa).score(matrix)
        np.testing.assert_array_equal(got.view(np.uint32), want)


@pytest.mark.parametrize("grow", ["perfect", "chain"])
@pytest.mark.parametrize(
    ("units", "k", "exact"),
    [
        (1 << 12, 149, True),  # denormal leaves
        (30_000, 3, True),  # int16
        (100_000, 0, True),  # int32
        (1 << 22, 0, False),  # beyond 2^24 together
    ],
)
def test_leaf_grids(grow: str, units: int, k: int, exact: bool) -> None:
    arrays = grown(lambda b: getattr(b, grow)(5), 20, units=units, k=k)
    forest = assert_equals_stock(arrays)
    assert forest.exact == exact


@pytest.mark.parametrize("base", [0.0, -0.0, 0.1, -4.6e8, 1e-40])
def test_the_base_is_added_last_and_rounded_once(base: float) -> None:
    base = float(np.float32(base))
    forest = assert_equals_stock(grown(lambda b: b.perfect(3), 20, base=base))
    assert forest.exact


def test_no_negative_zero() -> None:
    leaf = np.array([-0.0], dtype=np.float32)
    arrays: Arrays = {
        "n_features": 1,
        "roots": [0],
        "feature": [-1],
        "threshold": np.zeros(1, np.float32),
        "true_child": [0],
        "false_child": [0],
        "missing_true": [False],
        "leaf": leaf,
        "base": -0.0,
    }
    for value in Forest(**arrays).score(np.zeros((1, 1), np.float32)):
        assert value == 0
        assert not np.signbit(value)


@given(
    seed=st.integers(0, 2**32 - 1),
    n_trees=st.integers(1, 40),
    n_features=st.integers(1, 40),
    n_thresholds=st.sampled_from([1, 16, 240, 256, 4000]),
    n_leaves=st.integers(1, 60),
    k=st.integers(0, 20),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_forest(
    seed: int, n_trees: int, n_features: int, n_thresholds: int, n_leaves: int, k: int
) -> None:
    arrays = grown(
        lambda b: b.uneven(n_leaves),
        n_trees,
        seed=seed,
        n_features=n_features,
        n_thresholds=n_thresholds,
        k=k,
    )
    assert_equals_stock(arrays, 25, seed)


def test_keys_order_as_floats() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, size=20_000, dtype=np.uint32).view(np.float32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45], dtype=np.float32)
    values = np.sort(np.concatenate([values[~np.isnan(values)], special]))
    keys = order_keys(values).astype(np.int64)
    np.testing.assert_array_equal(np.diff(keys) > 0, np.diff(values.astype(np.float64)) > 0)
    assert keys.min() > np.iinfo(np.int32).min
    assert keys.max() < np.iinfo(np.int32).max


def test_properties() -> None:
    arrays = perfect_forest(0, 12, 4, 5)
    forest = Forest(**arrays)
    assert (forest.n_trees, forest.max_depth, forest.n_features) == (12, 4, 5)
    assert forest.n_nodes == len(arrays["feature"]) == 12 * 31
    # slot, cut and int16 leaf: 4 bytes an entry, 16 trees with the padding.
    assert 16 * 16 * 4 < forest.resident_bytes < 16 * 16 * 4 + 5 * 2 * 1200
    assert [len(t) for t in forest.thresholds] == [
        len(np.unique(arrays["threshold"][arrays["feature"] == f])) for f in range(5)
    ]
    assert available_isas()[0] == "baseline"
    assert forest.isa == available_isas()[-1]
    with pytest.raises(ModelError, match="no kernel 'mmx' on this machine"):
        Forest(**arrays, isa="mmx")


def test_the_arrays_may_go_after_construction() -> None:
    arrays = perfect_forest(0, 12, 6, 5)
    forest = Forest(**arrays)
    rows = hard_rows(arrays, np.random.default_rng(2), 50)
    before = forest.score(rows)
    for value in arrays.values():
        if isinstance(value, np.ndarray):
            value[:] = 0
    np.testing.assert_array_equal(forest.score(rows), before)
