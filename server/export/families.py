"""From scikit-learn's fitted tree classifiers to `Trees`.

What each family's raw score is:

* DecisionTree: the positive class's fraction in the leaf (a probability);
* RandomForest, ExtraTrees: the mean of their trees' fractions (a probability);
* GradientBoosting: the prior's log-odds plus learning rate times the trees' values (log-odds;
  the exponential loss works with half of them, so everything is doubled);
* HistGradientBoosting: baseline plus the trees' values (log-odds; the learning rate is in them).

NaN goes where scikit-learn sends it. GradientBoosting refuses NaN; there it goes to the child that
saw more training rows, as scikit-learn's own trees do when they met no NaN in training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from server.bundle.link import Link
from server.errors import ExportError
from server.export.trees import Trees, join

TREE_LEAF = -1


@dataclass(frozen=True)
class Ensemble:
    """Trees over the estimator's own input columns, and what their raw score means."""

    trees: Trees
    link: Link


def extract_trees(estimator: Any) -> Ensemble | None:
    """Return a fitted binary classifier's trees; None where the family is not a tree family.

    Raises
    ------
    ExportError
        A tree family with a setting that cannot be exported.
    """
    reader = _READERS.get(type(estimator))
    return None if reader is None else reader(estimator)


def _part(tree: Any, leaf: NDArray[np.float64], missing: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays of one `sklearn.tree._tree.Tree`."""
    return {
        "feature": np.where(tree.children_left == TREE_LEAF, -1, tree.feature),
        "threshold": tree.threshold,
        "true_child": tree.children_left,
        "false_child": tree.children_right,
        "missing_true": missing,
        "leaf": leaf,
    }


def _fractions(tree: Any) -> NDArray[np.float64]:
    """Return the positive class's fraction at every node of a classification tree."""
    value: NDArray[np.float64] = tree.value[:, 0, :]
    fraction: NDArray[np.float64] = value[:, 1] / value.sum(axis=1)
    return fraction


def _read_tree(estimator: Any) -> Ensemble:
    tree = estimator.tree_
    return Ensemble(join([_part(tree, _fractions(tree), tree.missing_go_to_left)], 0.0), "identity")


def _read_forest(estimator: Any) -> Ensemble:
    n = len(estimator.estimators_)
    trees = [member.tree_ for member in estimator.estimators_]
    parts = [_part(tree, _fractions(tree) / n, tree.missing_go_to_left) for tree in trees]
    return Ensemble(join(parts, 0.0), "identity")


def _read_gradient_boosting(estimator: Any) -> Ensemble:
    scale = 2.0 if estimator.loss == "exponential" else 1.0
    init = estimator.init_
    if isinstance(init, str) and init == "zero":
        base = 0.0
    elif isinstance(init, DummyClassifier) and init.strategy not in {"stratified", "uniform"}:
        eps = np.finfo(np.float64).eps
        row = np.zeros((1, estimator.n_features_in_))
        p = float(np.clip(init.predict_proba(row)[0, 1], eps, 1 - eps))
        # Both losses start at the log-odds, once the exponential one is doubled.
        base = float(np.log(p / (1 - p)))
    else:
        raise ExportError(
            f"GradientBoostingClassifier(init={type(init).__name__}) starts from a model of its "
            "own, which cannot be exported: fit it with init=None or init='zero'"
        )
    parts = []
    for (member,) in estimator.estimators_:
        tree = member.tree_
        weight = tree.weighted_n_node_samples
        more_left = weight[tree.children_left] >= weight[tree.children_right]
        leaf = tree.value[:, 0, 0] * (estimator.learning_rate * scale)
        parts.append(_part(tree, leaf, more_left))
    return Ensemble(join(parts, base), "logit")


def _read_hist_gradient_boosting(estimator: Any) -> Ensemble:
    categorical = estimator.is_categorical_
    if categorical is not None and np.any(categorical):
        raise ExportError(
            "HistGradientBoostingClassifier was fitted with categorical features, whose splits "
            "cannot be exported exactly: encode them as numbers before the model, or fit it with "
            "categorical_features=None"
        )
    parts = []
    for (predictor,) in estimator._predictors:
        nodes = predictor.nodes
        is_leaf = nodes["is_leaf"].astype(np.bool_)
        parts.append(
            {
                "feature": np.where(is_leaf, -1, nodes["feature_idx"]),
                "threshold": nodes["num_threshold"],
                "true_child": nodes["left"].astype(np.int64),
                "false_child": nodes["right"].astype(np.int64),
                "missing_true": nodes["missing_go_to_left"].astype(np.bool_),
                "leaf": nodes["value"],
            }
        )
    base = float(np.ravel(estimator._baseline_prediction)[0])
    return Ensemble(join(parts, base), "logit")


# Exact types: a subclass may predict something else.
_READERS: dict[type, Callable[[Any], Ensemble]] = {
    DecisionTreeClassifier: _read_tree,
    ExtraTreeClassifier: _read_tree,
    RandomForestClassifier: _read_forest,
    ExtraTreesClassifier: _read_forest,
    GradientBoostingClassifier: _read_gradient_boosting,
    HistGradientBoostingClassifier: _read_hist_gradient_boosting,
}
