"""The linear engine against a double-precision ONNX graph in stock onnxruntime, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bench.random_forests import one_node_model
from fastpath.errors import ModelError
from fastpath.linear import Linear


def graph(coefficients: NDArray[np.float64], intercept: float, fill: NDArray[np.float32]) -> bytes:
    """Where(IsNaN) -> Cast -> MatMul -> Add -> Cast, as the export writes it."""
    return one_node_model(
        [
            helper.make_node("IsNaN", ["x"], ["missing"]),
            helper.make_node("Where", ["missing", "fill", "x"], ["filled"]),
            helper.make_node("Cast", ["filled"], ["wide"], to=TensorProto.DOUBLE),
            helper.make_node("MatMul", ["wide", "weights"], ["dot"]),
            helper.make_node("Add", ["dot", "intercept"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["raw"], to=TensorProto.FLOAT),
        ],
        len(coefficients),
        fill=fill,
        weights=coefficients[:, None],
        intercept=np.array([intercept]),
    )


@pytest.mark.parametrize("n_features", [1, 2, 15, 30, 200])
def test_equals_stock_onnxruntime(n_features: int) -> None:
    rng = np.random.default_rng(n_features)
    weights = rng.normal(size=n_features) * 10.0 ** rng.integers(-3, 4, size=n_features)
    fill = np.where(rng.random(n_features) < 0.7, rng.normal(size=n_features), np.nan)
    fill = fill.astype(np.float32)
    rows = rng.normal(size=(20_000, n_features)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.02] = np.nan
    session = onnxruntime.InferenceSession(graph(weights, 0.3, fill))
    batch = np.asarray(session.run(None, {"x": rows})[0]).ravel()
    single = [np.asarray(session.run(None, {"x": row[None]})[0]).ravel() for row in rows[:2000]]
    got = Linear(coefficients=weights, intercept=0.3, fill=fill).score(rows)
    # assert_array_equal takes NaN for equal to NaN; the sign of a NaN means nothing.
    np.testing.assert_array_equal(got, batch)
    np.testing.assert_array_equal(got[:2000], np.concatenate(single))
    assert np.isnan(got).any() == bool(np.isnan(rows[:, np.isnan(fill)]).any())


def test_sums_in_float64_and_rounds_once() -> None:
    # In float32, 1e8 + 1 is 1e8: only a float64 sum keeps the 1.
    model = Linear(coefficients=[1.0, 1.0, 1.0], intercept=0.0, fill=[np.nan] * 3)
    assert model.score(np.array([[1e8, 1.0, -1e8]], dtype=np.float32)).tolist() == [1.0]


def test_fill_and_special_values() -> None:
    model = Linear(coefficients=[2.0, 1.0], intercept=0.5, fill=[3.0, np.nan])
    nan, inf = np.nan, np.inf
    rows = [[nan, 1], [1, nan], [inf, 0], [-inf, inf], [-0.0, 0], [3e38, 0]]
    rows32 = np.array(rows, dtype=np.float32)
    assert np.array_equal(model.score(rows32), [7.5, nan, inf, nan, 0.5, inf], equal_nan=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coefficients": []}, "a vector of 1 to 1024"),
        ({"coefficients": np.zeros(1025), "fill": np.zeros(1025)}, "a vector of 1 to 1024"),
        ({"coefficients": [[1.0, 2.0]]}, "a vector of 1 to 1024"),
        ({"coefficients": [1.0, np.inf]}, "feature 1: its coefficient inf is not finite"),
        ({"coefficients": [np.nan, 1.0]}, "feature 0: its coefficient nan is not finite"),
        ({"intercept": np.nan}, "the intercept nan is not finite"),
        ({"fill": [0.0]}, "fill has shape .1,., coefficients have .2,."),
        ({"fill": [0.0, -np.inf]}, "feature 1: its fill value is infinite"),
        ({"fill": [1e300, 0.0]}, "feature 0: its fill value is infinite"),
    ],
)
def test_bad_arrays(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"coefficients": [1.0, 2.0], "intercept": 0.0, "fill": [0.0, np.nan]}
    with pytest.raises(ModelError, match=message):
        Linear(**{**good, **changes})


def test_the_arrays_may_go_after_construction() -> None:
    weights, fill = np.array([1.0, 2.0]), np.array([np.nan, np.nan], dtype=np.float32)
    model = Linear(coefficients=weights, intercept=1.0, fill=fill)
    weights[:] = 0
    assert model.score(np.array([[1, 1]], dtype=np.float32)).tolist() == [4.0]
    assert model.resident_bytes == 2 * 8 + 2 * 4
    with pytest.raises(ValueError, match="read-only"):
        model.coefficients[0] = 5.0
