"""How a model is measured: ranking quality, decisions, scikit-learn's probabilities."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from server.bundle.report import QualityReport
from server.errors import ExportError
from server.export.stock import first_line

Float64Array = NDArray[np.float64]


def quality(positive: NDArray[np.bool_], scores: NDArray[Any]) -> QualityReport:
    """Return AUC and average precision; any increasing transformation of scores gives the same."""
    return QualityReport(
        auc=float(roc_auc_score(positive, scores)),
        average_precision=float(average_precision_score(positive, scores)),
    )


def model_input(model: Any, rows: NDArray[Any]) -> Any:
    """Return rows as the model was fitted: a DataFrame with its names, or the array itself."""
    names = getattr(model, "feature_names_in_", None)
    return rows if names is None else pd.DataFrame(rows, columns=list(names))


def probabilities(model: Any, rows: NDArray[Any]) -> Float64Array:
    """Return scikit-learn's probability of the positive class, shape (n_rows,).

    Raises
    ------
    ExportError
        The model refuses the rows; the message is its own.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(model.predict_proba(model_input(model, rows))[:, 1], np.float64)
    except Exception as error:  # any estimator, any reason
        raise ExportError(
            f"{type(model).__name__}.predict_proba fails on the rows: {first_line(error)}"
        ) from error


def accepts_missing(model: Any, n_features: int) -> bool:
    """Tell whether the model scores a row of NaN."""
    try:
        probabilities(model, np.full((1, n_features), np.nan, np.float32))
    except ExportError:
        return False
    return True
