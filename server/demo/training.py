"""Trains the demo's models, chooses their thresholds, and exports them.

Version 1.0 is a gradient boosting of 100 trees, at most 6 deep, small steps and leaves of at least
100 transactions: frauds are under one in a hundred, and smaller leaves learn them by heart. Version
2.0 is a logistic regression of the same features: another engine, and other decisions.

Two thresholds each, both chosen on the validation part: `block` is the lowest score from which at
least nine in ten transactions are frauds, `review` the score that one in fifty reaches, which is
what a team might look at. What neither reaches is approved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from server.bundle import load_model, read_bundle
from server.demo.artifacts import NEXT_VERSION, VERSION
from server.demo.columns import BOOLEANS, FEATURES, TARGET
from server.demo.dataset import Dataset
from server.demo.groups import COLUMNS, LIMITS, demo_groups
from server.export import ExportOptions, ExportReport, FeatureOptions, export_model
from server.export.times import event_times_ms

BLOCK_PRECISION = 0.9
REVIEW_SHARE = 0.02
# Below this many, the precision at the top is luck.
LEAST_BLOCKED = 10
ROUTING_ENTITY = "customer"


@dataclass(frozen=True)
class Trained:
    """What came of a version.

    Attributes
    ----------
    report : ExportReport
    quality : dict of str to float
        "auc" and "average_precision" on the test part, where it has frauds.
    raw_score : float32 [n_test]
        What the bundle's engine makes of each row of the test part.
    """

    report: ExportReport
    quality: dict[str, float]
    raw_score: npt.NDArray[np.float32]


def _boosting(n_train: int, seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=100,
        max_depth=6,
        learning_rate=0.05,
        min_samples_leaf=min(100, max(2, n_train // 100)),
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )


def _regression(_n_train: int, seed: int) -> Pipeline:
    # Files of transactions may have empty cells, and a regression has no branch for those.
    regression = LogisticRegression(max_iter=1000, random_state=seed)
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), regression)


MODELS: dict[str, Callable[[int, int], Any]] = {VERSION: _boosting, NEXT_VERSION: _regression}


def choose_thresholds(
    fraud: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Choose `review` and `block` on validation rows.

    Parameters
    ----------
    fraud : bool [n_rows]
    score : float64 [n_rows]
        The model's probabilities.

    Returns
    -------
    dict of str to float
        review < block, both strictly between 0 and 1.
    """
    review = float(np.quantile(score, 1 - REVIEW_SHARE))
    precision, _, cut = precision_recall_curve(fraud, score)
    n_reached = len(score) - np.searchsorted(np.sort(score), cut)
    good = cut[(precision[:-1] >= BLOCK_PRECISION) & (n_reached >= LEAST_BLOCKED)]
    # A model that is never so sure blocks nothing that validation saw.
    block = float(good.min()) if len(good) else (1 + float(score.max())) / 2
    if block <= review:  # frauds are frequent: everything suspicious is blocked
        review = block / 2
    return {"review": review, "block": block}


def train_and_export(
    dataset: Dataset,
    version: str,
    *,
    out: Path,
    model_file: Path,
    seed: int,
    step: Callable[[str], None],
) -> Trained:
    """Fit a version, keep the model as a joblib file, and export it.

    Parameters
    ----------
    dataset : Dataset
    version : str
        One of MODELS.
    out : path
        The bundle's directory, which must not exist.
    model_file : path
        Where the scikit-learn model is kept.
    seed : int
    step : callable
        Told of every step as it begins.
    """
    # One thread: scikit-learn's wait for each other by spinning, and where the cores are busy with
    # something else that turns half a second into half a minute.
    with threadpool_limits(1):
        return _train_and_export(dataset, version, out, model_file, seed, step)


def _train_and_export(
    dataset: Dataset,
    version: str,
    out: Path,
    model_file: Path,
    seed: int,
    step: Callable[[str], None],
) -> Trained:
    n_train, names = len(dataset.train), list(FEATURES)
    step(f"training {version} on {n_train:,} transactions, {dataset.train[TARGET].sum():,} frauds")
    model = MODELS[version](n_train, seed)
    model.fit(dataset.train[names], dataset.train[TARGET])
    aside = model_file.with_name(f".{model_file.name}")
    joblib.dump(model, aside)
    aside.rename(model_file)
    score = model.predict_proba(dataset.valid[names])[:, 1]
    groups = demo_groups(with_terminals=any(table.group == "terminal" for table in dataset.states))
    # No amount, no decision: the one thing that a payment always has.
    features = {"TX_AMOUNT": FeatureOptions(required=True, minimum=0.0)}
    for group in groups:
        features |= {name: FeatureOptions(source=group.name) for name in COLUMNS[group.name]}
    # Night and weekend are what the clock says: drift compares them with the same hours.
    features |= {name: FeatureOptions(monitor="calendar") for name in BOOLEANS}
    options = ExportOptions(
        thresholds=choose_thresholds(dataset.valid[TARGET].to_numpy(dtype=np.bool_), score),
        routing_entity=ROUTING_ENTITY,
        features=features,
        groups=groups,
        fallback=LIMITS,
        target=TARGET,
        model_file=model_file,
        valid_time_ms=event_times_ms(dataset.valid["TX_DATETIME"]),
    )
    report = export_model(
        model,
        dataset.train[names],
        dataset.train[TARGET],
        dataset.valid[names],
        dataset.valid[TARGET],
        out=out,
        options=options,
        step=step,
    )
    step("scoring the test week")
    served = load_model(read_bundle(out)).model
    raw = served.score(np.ascontiguousarray(dataset.test[names], dtype=np.float32))
    fraud = dataset.test[TARGET]
    if fraud.nunique() < 2:
        return Trained(report, {}, raw)
    score = model.predict_proba(dataset.test[names])[:, 1]
    quality = {
        "auc": float(roc_auc_score(fraud, score)),
        "average_precision": float(average_precision_score(fraud, score)),
    }
    return Trained(report, quality, raw)
