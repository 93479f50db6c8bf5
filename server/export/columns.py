"""What stands in front of an estimator, column by column, and how it folds into thresholds.

StandardScaler, SimpleImputer and feature selectors treat every column by itself, so a
pipeline of them is, for each column that reaches the estimator, one input column and a
non-decreasing function of it. `x` goes left at a split iff `f(x) <= t`; since f never decreases,
those x are exactly the ones up to the largest float32 whose f is `<= t`. That float32 is found by
bisection over the order of all float32 values, with f computed in the very float32 operations that
scikit-learn uses for float32 input: the fold is exact, whatever the rounding.

NaN goes through scaling as NaN; an imputer replaces it by its fill value, and what follows treats
that as any value. So NaN gets a fixed direction at every split, or a fixed fill value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from server.bundle.link import RANK_OF_INFINITY, float32_from_rank
from server.errors import ExportError
from server.export.trees import Trees

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Scale:
    """(x - mean) / scale, each step rounded to float32."""

    mean: np.float32 | None
    scale: np.float32 | None

    def __call__(self, x: Float32Array) -> Float32Array:
        """Return the scaled values; beyond float32's range they become infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.mean is not None:
                x = x - self.mean
            if self.scale is not None:
                x = x / self.scale
        return x


@dataclass(frozen=True)
class Fill:
    """NaN becomes a value."""

    value: np.float32

    def __call__(self, x: Float32Array) -> Float32Array:
        """Return the values without NaN."""
        return np.where(np.isnan(x), self.value, x)


@dataclass(frozen=True)
class Column:
    """One column as the estimator sees it: an input column and the steps on its way."""

    source: int
    steps: tuple[Scale | Fill, ...] = ()

    def __call__(self, x: Float32Array) -> Float32Array:
        """Return what reaches the estimator for these input values."""
        for step in self.steps:
            x = step(x)
        return x

    @property
    def fills(self) -> bool:
        """Tell whether NaN never reaches the estimator."""
        return any(isinstance(step, Fill) for step in self.steps)

    def then(self, step: Scale | Fill) -> Column:
        """Return the column with one more step."""
        return Column(self.source, (*self.steps, step))


def unwrap(model: Any) -> tuple[list[Any], Any]:
    """Split a model into its transformers, in order, and its final estimator."""
    if not isinstance(model, Pipeline):
        return [], model
    transformers: list[Any] = []
    for _, step in model.steps[:-1]:
        if step is None or (isinstance(step, str) and step == "passthrough"):
            continue
        inner, last = unwrap(step)
        transformers += [*inner, last]
    inner, last = unwrap(model.steps[-1][1])
    return [*transformers, *inner], last


def fold_columns(transformers: Sequence[Any], n_features: int) -> list[Column] | None:
    """Return the columns that reach the estimator, or None where a transformer does not fold.

    Raises
    ------
    ExportError
        A transformer folds in principle but its fitted values cannot be served.
    """
    columns = [Column(j) for j in range(n_features)]
    for transformer in transformers:
        if type(transformer) is StandardScaler:
            columns = _scale(transformer, columns)
        elif type(transformer) is SimpleImputer:
            filled = _impute(transformer, columns)
            if filled is None:
                return None
            columns = filled
        elif isinstance(transformer, SelectorMixin):
            kept = np.flatnonzero(transformer.get_support())
            columns = [columns[j] for j in kept.tolist()]
        else:
            return None
    if not columns:
        raise ExportError("no feature reaches the estimator: the pipeline selects none")
    return columns


def _scale(scaler: Any, columns: list[Column]) -> list[Column]:
    mean = scaler.mean_ if scaler.with_mean else None
    scale = scaler.scale_ if scaler.with_std else None
    out = []
    for j, column in enumerate(columns):
        step = Scale(
            None if mean is None else np.float32(mean[j]),
            None if scale is None else np.float32(scale[j]),
        )
        finite = (step.mean is None or np.isfinite(step.mean)) and (
            step.scale is None or (np.isfinite(step.scale) and step.scale > 0)
        )
        if not finite:
            raise ExportError(
                f"StandardScaler: mean {step.mean} and scale {step.scale} of its column {j} do not "
                "fit float32: rescale that feature before training"
            )
        out.append(column.then(step))
    return out


def _impute(imputer: Any, columns: list[Column]) -> list[Column] | None:
    missing = imputer.missing_values
    only_nan = isinstance(missing, float) and np.isnan(missing)
    if not only_nan or imputer.add_indicator or imputer.statistics_.dtype.kind not in "fiu":
        return None
    values = imputer.statistics_.astype(np.float32)
    # Without keep_empty_features a column that was all NaN in training is dropped.
    return [
        column.then(Fill(value))
        for column, value in zip(columns, values, strict=True)
        if imputer.keep_empty_features or not np.isnan(value)
    ]


# ------------------------------------------------------------- exact cuts


def largest_below(column: Column, thresholds: NDArray[np.float64]) -> Float32Array:
    """Return, per threshold t, the largest float32 x with column(x) <= t.

    Parameters
    ----------
    column : Column
        A non-decreasing function; NaN is not asked about.
    thresholds : array of float64, shape (n,)
        Not NaN; not below every value of the column.

    Returns
    -------
    numpy.ndarray of float32, shape (n,)
    """
    # Invariant: low satisfies the condition, high does not (or is one above infinity).
    low = np.full(len(thresholds), -RANK_OF_INFINITY - 1, np.int64)
    high = np.full(len(thresholds), RANK_OF_INFINITY + 1, np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        below = column(float32_from_rank(middle)).astype(np.float64) <= thresholds
        low = np.where(below, middle, low)
        high = np.where(below, high, middle)
    return float32_from_rank(low)


def fold_trees(trees: Trees, columns: Sequence[Column]) -> Trees:
    """Return the same trees over the model's input columns, with float32 thresholds.

    Every row of float32 values reaches the same leaves as behind the transformers.
    """
    feature = trees.feature.copy()
    threshold = trees.threshold.copy()
    missing_true = trees.missing_true.copy()
    for j, column in enumerate(columns):
        nodes = np.flatnonzero(trees.feature == j)
        if not len(nodes):
            continue
        distinct, inverse = np.unique(trees.threshold[nodes], return_inverse=True)
        threshold[nodes] = largest_below(column, distinct)[inverse]
        feature[nodes] = column.source
        if column.fills:
            value = column(np.array([np.nan], np.float32)).astype(np.float64)[0]
            missing_true[nodes] = value <= trees.threshold[nodes]
    return trees.with_arrays(feature=feature, threshold=threshold, missing_true=missing_true)
