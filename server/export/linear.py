"""Folds scalers, imputers and selectors into a logistic regression's coefficients.

raw = sum_j c_j * f_j(x_j) + b with f_j(x) = (x - m) / s steps becomes, in float64,
sum_i a_i * x_i + b'. scikit-learn rounds each step to float32; the difference is far below the
export's tolerance, and it is measured. An imputer becomes a fill value in input space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from server.errors import ExportError
from server.export.columns import Column, Fill, Scale


@dataclass(frozen=True)
class LinearModel:
    """raw = float32(sum of coefficients * x in float64 + intercept); NaN is filled first."""

    coefficients: NDArray[np.float64]  # [n_features]
    intercept: float
    fill: NDArray[np.float32]  # [n_features], NaN: no fill


def is_linear(estimator: Any) -> bool:
    """Tell whether an estimator is one that `fold_linear` takes."""
    return type(estimator) is LogisticRegression


def fold_linear(estimator: Any, columns: Sequence[Column], n_features: int) -> LinearModel:
    """Return the model over its input columns."""
    coefficients = np.zeros(n_features)
    fill = np.full(n_features, np.nan, np.float32)
    intercept = float(np.ravel(estimator.intercept_)[0])
    for c, column in zip(np.ravel(estimator.coef_).astype(np.float64), columns, strict=True):
        slope, offset = 1.0, 0.0
        for step in column.steps:
            if isinstance(step, Fill):
                if np.isnan(fill[column.source]):
                    fill[column.source] = np.float32((float(step.value) - offset) / slope)
                continue
            slope, offset = _scaled(step, slope, offset)
        coefficients[column.source] += c * slope
        intercept += c * offset
    if not np.isfinite(coefficients).all() or not np.isfinite(intercept):
        raise ExportError("the coefficients, folded with the scalers, are not finite")
    # A column that is not used must not make a row NaN: NaN * 0 is NaN.
    unused = np.setdiff1d(np.arange(n_features), [column.source for column in columns])
    fill[unused] = 0.0
    return LinearModel(coefficients, intercept, fill)


def _scaled(step: Scale, slope: float, offset: float) -> tuple[float, float]:
    """Return slope and offset after one more scaling."""
    if step.mean is not None:
        offset -= float(step.mean)
    if step.scale is not None:
        slope, offset = slope / float(step.scale), offset / float(step.scale)
    return slope, offset
