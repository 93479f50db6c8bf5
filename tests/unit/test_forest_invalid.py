"""Forests that are none end with one error that names the place; never a crash, never a hang."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.random_forests import Arrays, Builder, perfect_forest
from fastpath.errors import ModelError
from fastpath.forest import Forest, available_isas


def stump(**changes: Any) -> Arrays:
    """Node 0 splits on feature 1 into the leaves 1 and 2."""
    arrays: Arrays = {
        "n_features": 2,
        "roots": [0],
        "feature": [1, -1, -1],
        "threshold": [0.5, 0.0, 0.0],
        "true_child": [1, 0, 0],
        "false_child": [2, 0, 0],
        "missing_true": [False, False, False],
        "leaf": [0.0, 1.0, 2.0],
        "base": 0.0,
    }
    return {**arrays, **changes}


def test_the_stump_itself_is_right() -> None:
    rows = np.array([[9, 0.5], [9, 0.75], [9, np.nan]], dtype=np.float32)
    assert Forest(**stump()).score(rows).tolist() == [1.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_features": 0}, "0 features; 1 to 1024"),
        ({"n_features": 1025}, "1025 features; 1 to 1024"),
        ({"n_features": 1}, "tree 0, node 0: its feature is not -1 .a leaf. and not below 1"),
        ({"feature": [-2, -1, -1]}, "tree 0, node 0: its feature is not -1"),
        ({"roots": []}, "0 trees"),
        ({"roots": [3]}, "tree 0: its root, node 3, is not one of 3 nodes"),
        ({"roots": [-1]}, "tree 0: its root, node -1, is not one of 3 nodes"),
        ({"roots": [0, 0]}, "tree 1, node 0: reached twice"),
        ({"roots": [0, 1]}, "tree 0, node 1: reached twice"),
        ({"roots": [[0]]}, "roots must have one dimension, it has 2"),
        ({"roots": [2**40]}, r"roots\[0\] is .*1099511627776.*, which is no int32"),
        ({"roots": [0.5]}, "roots must hold int32, it holds float64"),
        ({"true_child": [3, 0, 0]}, "tree 0, node 0: its true child is not one of 3 nodes"),
        ({"false_child": [-1, 0, 0]}, "tree 0, node 0: its false child is not one of 3 nodes"),
        ({"true_child": [0, 0, 0]}, "tree 0, node 0: reached twice .a cycle"),
        ({"false_child": [1, 0, 0]}, "tree 0, node 1: reached twice"),
        ({"threshold": [np.nan, 0, 0]}, "tree 0, node 0: its threshold is NaN"),
        ({"leaf": [0, np.inf, 0]}, "tree 0, node 1: its leaf value is not finite"),
        ({"leaf": [0, 0, np.nan]}, "tree 0, node 2: its leaf value is not finite"),
        ({"threshold": [0.1, 0, 0]}, "node 0: its threshold, .*0.1.*, is no float32; round it"),
        ({"threshold": [1e300, 0, 0]}, "node 0: its threshold, .*, is no float32; round it"),
        ({"leaf": [0, 0]}, "leaf holds 2 values, feature holds 3"),
        ({"base": np.nan}, "the base nan is not a finite float32"),
        ({"base": 0.1}, "the base 0.1 is not a finite float32"),
        ({"base": 1e300}, "the base 1e.300 is not a finite float32"),
    ],
)
def test_bad_arrays(changes: Arrays, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Forest(**stump(**changes))


def test_a_node_in_no_tree() -> None:
    arrays = stump(
        feature=[1, -1, -1, -1],
        threshold=[0.5, 0, 0, 0],
        true_child=[1, 0, 0, 0],
        false_child=[2, 0, 0, 0],
        missing_true=[False] * 4,
        leaf=[0.0, 1, 2, 3],
    )
    with pytest.raises(ModelError, match="node 3 belongs to no tree"):
        Forest(**arrays)


def test_a_ring_that_no_root_reaches() -> None:
    arrays = stump(
        feature=[-1, 0, 0],
        true_child=[0, 2, 1],
        false_child=[0, 2, 1],
    )
    with pytest.raises(ModelError, match="node 1 belongs to no tree"):
        Forest(**arrays)


def test_a_tree_that_is_too_deep_ends_soon() -> None:
    rng = np.random.default_rng(0)
    builder = Builder(rng, 2, np.zeros(1, dtype=np.float32))
    builder.roots = [builder.chain(5000)]
    with pytest.raises(ModelError, match="tree 0 is deeper than 4096 levels"):
        Forest(**builder.arrays())


def test_a_deep_chain_within_the_limit() -> None:
    rng = np.random.default_rng(0)
    builder = Builder(rng, 2, np.zeros(1, dtype=np.float32))
    builder.roots = [builder.chain(3000)]
    forest = Forest(**builder.arrays())
    assert forest.max_depth == 3000
    assert np.isfinite(forest.score(np.zeros((3, 2), dtype=np.float32))).all()


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_is_an_error_or_a_forest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = perfect_forest(seed, 5, 4, 6)
    n = len(arrays["feature"])
    for _ in range(int(rng.integers(1, 4))):
        name = str(rng.choice(["feature", "true_child", "false_child", "roots", "threshold"]))
        at = int(rng.integers(len(arrays[name])))
        if name == "threshold":
            arrays[name][at] = rng.integers(0, 2**32, dtype=np.uint32).view(np.float32)
        else:
            arrays[name][at] = int(rng.choice([-(2**31), -2, -1, 0, 1, n - 1, n, 2**31 - 1]))
    rows = rng.normal(size=(20, 6)).astype(np.float32)
    outcomes = []
    for isa in available_isas():
        try:
            outcomes.append(Forest(**arrays, isa=isa).score(rows).tolist())
        except ModelError as error:
            outcomes.append(str(error))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert not isinstance(outcomes[0], str) or "node" in outcomes[0]


def test_wrong_rows() -> None:
    forest = Forest(**stump())
    with pytest.raises(ModelError, match="rows have 3 columns, the model takes 2"):
        forest.score(np.zeros((1, 3), dtype=np.float32))
    assert forest.score(np.zeros((0, 2), dtype=np.float32)).shape == (0,)


def test_a_forest_is_immutable() -> None:
    forest = Forest(**stump())
    with pytest.raises(ModelError, match="immutable"):
        forest.__init__(**stump())  # type: ignore[misc]
    with pytest.raises(AttributeError):
        forest.n_trees = 2  # type: ignore[misc]
