"""From a fitted scikit-learn classifier to the graph of a bundle.

Tree families and logistic regression, alone or behind StandardScaler, SimpleImputer and feature
selectors, become graphs of our own that the native engines serve. Everything else goes through
skl2onnx. Converting proves nothing: `export.py` compares the result with scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from server.bundle.link import Link
from server.errors import ExportError
from server.export.columns import fold_columns, fold_trees, unwrap
from server.export.families import extract_trees
from server.export.linear import LinearModel, fold_linear, is_linear
from server.export.onnx_graph import forest_graph, linear_graph
from server.export.opaque import convert_opaque
from server.export.quantize import Quantized, quantize


@dataclass(frozen=True)
class Converted:
    """A model as the content of `model.onnx`, and what its raw score means."""

    model: bytes
    link: Link
    n_features: int
    forest: Quantized | None = None
    linear: LinearModel | None = None

    def used_features(self) -> set[int] | None:
        """Return the input columns that can change a score; None where that is not known."""
        if self.forest is not None:
            return set(np.unique(self.forest.trees.feature).tolist()) - {-1}
        if self.linear is not None:
            return set(np.flatnonzero(self.linear.coefficients).tolist())
        return None


def check_classifier(model: Any) -> None:
    """Refuse what is not a fitted binary classifier with probabilities."""
    name = type(model).__name__
    _, last = unwrap(model)
    if not hasattr(last, "fit"):
        raise ExportError(f"{name} is not a scikit-learn estimator: dump the fitted model itself")
    if not is_classifier(last):
        raise ExportError(
            f"{type(last).__name__} is not a classifier: only binary classifiers can be exported"
        )
    classes = getattr(model, "classes_", None)
    if classes is None:
        raise ExportError(f"{name} is not fitted: fit it before it is dumped")
    if getattr(last, "n_outputs_", 1) != 1 or isinstance(classes, list):
        raise ExportError(f"{name} has several outputs: only binary classifiers can be exported")
    if len(classes) != 2:
        raise ExportError(
            f"{name} has {len(classes)} classes: only binary classifiers can be exported"
        )
    if not hasattr(model, "predict_proba"):
        raise ExportError(
            f"{name} gives no probabilities (predict_proba): use CalibratedClassifierCV, or a "
            "classifier that has them"
        )


def convert(model: Any, n_features: int) -> Converted:
    """Convert a fitted binary classifier.

    Raises
    ------
    ExportError
        Its family or a setting cannot be exported; the message says which and why.
    """
    transformers, estimator = unwrap(model)
    columns = fold_columns(transformers, n_features)
    if columns is not None:
        if is_linear(estimator):
            linear = fold_linear(estimator, columns, n_features)
            return Converted(linear_graph(linear), "logit", n_features, linear=linear)
        ensemble = extract_trees(estimator)
        if ensemble is not None:
            forest = quantize(fold_trees(ensemble.trees, columns), ensemble.link)
            graph = forest_graph(forest.trees, n_features)
            return Converted(graph, ensemble.link, n_features, forest=forest)
    return Converted(convert_opaque(model, n_features), "identity", n_features)
