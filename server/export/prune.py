"""Fewer features, fewer trees: applied to the scikit-learn model itself, and priced.

Trees: boosted models keep a prefix of their trees (each was fitted to what the ones before it left
over), forests keep their first trees and average over those. `auto` keeps the fewest trees whose
average precision on the validation rows is within a stated loss of all trees'.

Features: a fitted model cannot lose a column, so a clone is fitted again on the k most important
ones. Importance comes from the fitted model alone (impurity, split gain, or coefficient
times spread; permutation on training rows where a model has none of these), never from the
validation rows that the price is taken on.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from server.bundle.report import PruningReport
from server.errors import ExportError, InputError
from server.export.columns import Column, fold_columns, unwrap
from server.export.frame import Rows
from server.export.metrics import model_input, probabilities, quality
from server.export.stock import first_line

FORESTS = (RandomForestClassifier, ExtraTreesClassifier)
BOOSTED = (GradientBoostingClassifier, HistGradientBoostingClassifier)
PERMUTATION_ROWS = 5000


def keep_trees(
    model: Any, wanted: int | Literal["auto"], max_ap_loss: float, valid: Rows
) -> tuple[Any, PruningReport]:
    """Return a model with fewer trees, and what that cost.

    Parameters
    ----------
    model : fitted classifier
        Left as it is.
    wanted : int or "auto"
    max_ap_loss : float
        "auto": average precision on the validation rows that may be lost.
    valid : Rows
    """
    _, estimator = unwrap(model)
    total = _n_trees(estimator)
    if total is None:
        raise InputError(
            f"--max-trees: {type(estimator).__name__} has no trees to leave out; it works for "
            "random forests, extra trees and gradient boosting"
        )
    before = quality(valid.positive, probabilities(model, valid.features))
    note = ""
    if wanted == "auto":
        kept = total
        goal = (before.average_precision or 0.0) - max_ap_loss
        for n, scores in enumerate(_staged(model, estimator, valid.features), start=1):
            if (quality(valid.positive, scores).average_precision or 0.0) >= goal:
                kept = n
                break
        note = f"fewest trees that lose at most {max_ap_loss:g} average precision"
    else:
        if wanted < 1:
            raise InputError(f"--max-trees {wanted}: at least 1 is needed")
        kept = min(wanted, total)
    pruned = replace_last(model, _first_trees(estimator, kept))
    after = quality(valid.positive, probabilities(pruned, valid.features))
    return pruned, PruningReport(
        kind="trees",
        before=total,
        after=kept,
        quality_before=before,
        quality_after=after,
        note=note,
    )


def _n_trees(estimator: Any) -> int | None:
    if type(estimator) is HistGradientBoostingClassifier:
        return len(estimator._predictors)
    if type(estimator) in (*FORESTS, GradientBoostingClassifier):
        return len(estimator.estimators_)
    return None


def _first_trees(estimator: Any, n: int) -> Any:
    """Return a copy with the first n trees; scikit-learn itself then averages over n."""
    pruned = copy.copy(estimator)
    if type(estimator) is HistGradientBoostingClassifier:
        pruned._predictors = estimator._predictors[:n]
        pruned.max_iter = n
    else:
        pruned.estimators_ = estimator.estimators_[:n]
        pruned.n_estimators = n
        if type(estimator) is GradientBoostingClassifier:
            pruned.n_estimators_ = n
    return pruned


def _staged(model: Any, estimator: Any, rows: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    """Yield the validation scores with 1, 2, ... trees."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = model_input(model, rows)
        if isinstance(model, Pipeline):
            for _, step in _flat_steps(model)[:-1]:
                x = step.transform(x)
        if type(estimator) in BOOSTED:
            for p in estimator.staged_predict_proba(x):
                yield p[:, 1]
            return
        x = np.asarray(x, np.float32)
        total = np.zeros(len(rows))
        for tree in estimator.estimators_:
            total += tree.predict_proba(x, check_input=False)[:, 1]
            yield total


def _flat_steps(model: Pipeline) -> list[tuple[str, Any]]:
    steps: list[tuple[str, Any]] = []
    for name, step in model.steps:
        if isinstance(step, Pipeline):
            steps += _flat_steps(step)
        elif step is not None and not isinstance(step, str):
            steps.append((name, step))
    return steps


def replace_last(model: Any, estimator: Any) -> Any:
    """Return a copy of a pipeline that ends in another estimator; else that estimator."""
    if not isinstance(model, Pipeline):
        return estimator
    out = copy.copy(model)
    name, last = model.steps[-1]
    out.steps = [*model.steps[:-1], (name, replace_last(last, estimator))]
    return out


# ------------------------------------------------------------------ features


def keep_features(
    model: Any, k: int, train: Rows, target: NDArray[Any], valid: Rows
) -> tuple[Any, list[int], PruningReport]:
    """Fit a clone on the k most important features.

    Returns
    -------
    model : fitted classifier
        Takes only the kept columns.
    kept : list of int
        Their positions, ascending.
    report : PruningReport
    """
    n_features = len(train.names)
    if not 1 <= k <= n_features:
        raise InputError(f"--select-features {k}: the model has {n_features} features")
    before = quality(valid.positive, probabilities(model, valid.features))
    weight, how = importances(model, train, target)
    # Equal importances: the earlier column stays, so that the choice is the same every time.
    kept = sorted(np.argsort(-weight, kind="stable")[:k].tolist())
    small = clone(model)
    rows: Any = train.features[:, kept]
    if hasattr(model, "feature_names_in_"):
        import pandas as pd

        rows = pd.DataFrame(rows, columns=[train.names[j] for j in kept])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small.fit(rows, target)
    except Exception as error:  # any estimator, any reason
        raise ExportError(
            f"--select-features {k}: {type(model).__name__} cannot be fitted again on {k} "
            f"features: {first_line(error)}"
        ) from error
    after = quality(valid.positive, probabilities(small, valid.features[:, kept]))
    return (
        small,
        kept,
        PruningReport(
            kind="features",
            before=n_features,
            after=k,
            quality_before=before,
            quality_after=after,
            kept=[train.names[j] for j in kept],
            note=f"fitted again on the features of largest {how}",
        ),
    )


def importances(model: Any, train: Rows, target: NDArray[Any]) -> tuple[NDArray[np.float64], str]:
    """Return each input column's importance and its name."""
    n_features = len(train.names)
    transformers, estimator = unwrap(model)
    columns = fold_columns(transformers, n_features)
    if columns is not None:
        own = _own_importances(estimator, columns, train)
        if own is not None:
            total = np.zeros(n_features)
            for value, column in zip(own[0], columns, strict=True):
                total[column.source] += value
            return total, own[1]
    some = np.random.default_rng(0).permutation(len(train.features))[:PERMUTATION_ROWS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = permutation_importance(
            model,
            model_input(model, train.features[some]),
            target[some],
            scoring="average_precision" if set(target.tolist()) <= {0, 1} else "roc_auc",
            n_repeats=5,
            random_state=0,
        )
    return np.asarray(result.importances_mean), "permutation importance on training rows"


def _own_importances(
    estimator: Any, columns: list[Column], train: Rows
) -> tuple[NDArray[np.float64], str] | None:
    """Return importances per estimator column from the fitted model, where it has any."""
    if type(estimator) is LogisticRegression:
        spread = [
            float(np.nanstd(column(train.features[:, column.source]).astype(np.float64)))
            for column in columns
        ]
        return np.abs(np.ravel(estimator.coef_)) * spread, "coefficient times spread"
    if type(estimator) is HistGradientBoostingClassifier:
        gain = np.zeros(len(columns))
        for (predictor,) in estimator._predictors:
            inner = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            np.add.at(gain, inner["feature_idx"], inner["gain"])
        return gain, "split gain"
    if hasattr(estimator, "feature_importances_"):
        return np.asarray(estimator.feature_importances_, np.float64), "impurity importance"
    return None
