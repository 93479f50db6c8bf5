"""Every family behind every chain: scikit-learn, stock onnxruntime and the native engine agree.

Leaf identity first (the same node in every tree, on rows at every threshold), then the raw score
(bit for bit between onnxruntime and native, within the grid for scikit-learn).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from server.bundle.link import to_score
from server.errors import ExportError
from server.export.columns import unwrap
from server.export.compare import edge_rows, sklearn_rows, start
from server.export.convert import Converted, check_classifier, convert
from server.export.metrics import accepts_missing, probabilities
from server.export.stock import run
from tests.support.models import N_FEATURES, make_data

FAMILIES: dict[str, Any] = {
    "tree": DecisionTreeClassifier(max_depth=9, random_state=0),
    "forest": RandomForestClassifier(12, random_state=0),
    "extra": ExtraTreesClassifier(12, min_samples_leaf=3, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=20, random_state=0),
    "exponential": GradientBoostingClassifier(loss="exponential", n_estimators=20, random_state=0),
    "from_zero": GradientBoostingClassifier(init="zero", n_estimators=20, random_state=0),
    "hist": HistGradientBoostingClassifier(max_iter=20, random_state=0),
    "logistic": LogisticRegression(C=0.1),
}
SCALER, IMPUTER, SELECTOR = StandardScaler(), SimpleImputer(strategy="median"), SelectKBest(k=4)
CHAINS: dict[str, list[Any]] = {
    "alone": [],
    "scaler": [SCALER],
    "imputer": [IMPUTER],
    "selector": [SELECTOR],
    "imputer_scaler_selector": [IMPUTER, SCALER, SELECTOR],
    "scaler_imputer_selector": [SCALER, IMPUTER, SELECTOR],
    "two_scalers": [SCALER, SELECTOR, StandardScaler(with_mean=False)],
}
NEVER_MISSING = ("boosting", "exponential", "from_zero", "logistic")


def fit(family: str, chain: str) -> tuple[Pipeline, NDArray[np.float32]]:
    """Fit on rows with holes wherever scikit-learn takes them; return validation rows too."""
    steps = CHAINS[chain]
    imputed = any(isinstance(step, SimpleImputer) for step in steps)
    selected = any(isinstance(step, SelectKBest) for step in steps)
    holes = 0.1 if imputed or not (selected or family in NEVER_MISSING) else 0.0
    data = make_data(missing=holes)
    model = make_pipeline(*(clone(step) for step in steps), clone(FAMILIES[family]))
    model.fit(data.x, data.y)
    return model, make_data(300, seed=1, missing=holes).x


def leaves(model: Pipeline, rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return scikit-learn's leaf of each row in each tree, shape (n_rows, n_trees)."""
    x = model[:-1].transform(rows) if len(model) > 1 else rows
    estimator = model[-1]
    if not isinstance(estimator, HistGradientBoostingClassifier):
        return np.asarray(estimator.apply(x)).reshape(len(rows), -1)
    known, index = estimator._bin_mapper.make_known_categories_bitsets()
    columns = []
    for (predictor,) in estimator._predictors:
        numbered = copy.deepcopy(predictor)
        numbered.nodes["value"] = np.arange(len(numbered.nodes))
        columns.append(numbered.predict(np.asarray(x, np.float64), known, index, 1))
    return np.column_stack(columns).astype(np.int64)


def convert_and_rows(
    family: str, chain: str
) -> tuple[Pipeline, Converted, Any, NDArray[np.float32], NDArray[np.float32]]:
    model, valid = fit(family, chain)
    converted = convert(model, N_FEATURES)
    engines = start(converted, "test")
    every = np.concatenate([valid, edge_rows(engines, valid)])
    asked = sklearn_rows(every, missing=accepts_missing(model, N_FEATURES))
    assert len(asked) > len(valid)
    return model, converted, engines, every, asked


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("family", FAMILIES)
def test_three_levels_agree(family: str, chain: str) -> None:
    model, converted, engines, every, asked = convert_and_rows(family, chain)
    assert engines.engine == ("linear" if family == "logistic" else "forest")
    native, stock = engines.served.score(every), run(engines.session, every)
    finite = ~np.isnan(stock)
    assert np.array_equal(native[finite].view(np.uint32), stock[finite].view(np.uint32))
    assert np.isnan(native[~finite]).all()
    if converted.forest is not None:
        ours = converted.forest.trees.apply(asked) - converted.forest.trees.roots
        assert np.array_equal(ours, leaves(model, asked))
    if family == "logistic":
        # Thresholds there are none; far rows lose float32 digits inside scikit-learn's scaler.
        asked = asked[(np.abs(np.nan_to_num(asked)) < 1e8).all(axis=1)]
    score = to_score(engines.served.score(asked), converted.link)
    assert np.abs(score - probabilities(model, asked)).max() < 5e-5


@pytest.mark.parametrize("family", ["tree", "forest", "hist"])
def test_missing_values_go_where_scikit_learn_sends_them(family: str) -> None:
    model, _ = fit(family, "alone")
    rows = make_data(500, seed=2, missing=0.5).x
    forest = convert(model, N_FEATURES).forest
    assert forest is not None
    assert np.array_equal(forest.trees.apply(rows) - forest.trees.roots, leaves(model, rows))
    inner = forest.trees.missing_true[~forest.trees.is_leaf]
    assert 0 < inner.sum() < len(inner), "both directions occur"


@pytest.mark.parametrize("family", ["tree", "forest", "hist"])
def test_splits_on_missingness_alone(family: str) -> None:
    """scikit-learn splits "missing or not" at an infinite threshold."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, N_FEATURES)).astype(np.float32)
    x[rng.random(x.shape) < 0.3] = np.nan
    y = np.isnan(x[:, 1]).astype(int)
    model = clone(FAMILIES[family]).fit(x, y)
    converted = convert(model, N_FEATURES)
    assert converted.forest is not None
    inner = ~converted.forest.trees.is_leaf
    assert np.isinf(converted.forest.trees.threshold[inner]).any()
    rows = np.concatenate([x, np.full((1, N_FEATURES), np.inf, np.float32)])
    engines = start(converted, "test")
    native = engines.served.score(rows)
    assert np.array_equal(native.view(np.uint32), run(engines.session, rows).view(np.uint32))
    assert np.abs(to_score(native[:-1], converted.link) - probabilities(model, x)).max() < 1e-5


def test_votes_meet_thresholds_exactly_and_never_leave_the_unit_interval() -> None:
    data = make_data(400)
    for n in (1, 3, 7, 10, 14, 100):
        model = RandomForestClassifier(n, random_state=0).fit(data.x, data.y)
        converted = convert(model, N_FEATURES)
        raw = start(converted, "test").served.score(data.x).astype(np.float64)
        p = probabilities(model, data.x)
        assert (raw >= p - 1e-15).all()
        assert raw.max() <= 1.0
        assert (raw - p).max() < 2 * n * 2.0**-24


def test_constant_model_is_one_leaf_per_tree() -> None:
    x = np.zeros((20, N_FEATURES), np.float32)
    y = np.arange(20) % 4 == 0
    model = DecisionTreeClassifier().fit(x, y)
    converted = convert(model, N_FEATURES)
    assert start(converted, "test").served.score(x[:1])[0] == 0.25


def test_nested_pipelines_and_passthrough_unwrap() -> None:
    inner = Pipeline([("a", StandardScaler()), ("b", "passthrough")])
    model = Pipeline([("x", inner), ("y", "passthrough"), ("z", LogisticRegression())])
    transformers, last = unwrap(model)
    assert [type(step).__name__ for step in transformers[:1]] == ["StandardScaler"]
    assert isinstance(last, LogisticRegression)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (GradientBoostingClassifier(init=LogisticRegression()), "init=LogisticRegression"),
        (HistGradientBoostingClassifier(categorical_features=[3]), "categorical"),
    ],
)
def test_settings_that_cannot_be_exported_are_named(model: Any, words: str) -> None:
    data = make_data(300)
    x = data.x.copy()
    x[:, 3] = np.abs(x[:, 3])
    with pytest.raises(ExportError, match=words):
        convert(model.fit(x, data.y), N_FEATURES)


def test_only_fitted_binary_classifiers_with_probabilities() -> None:
    from sklearn.linear_model import LinearRegression
    from sklearn.svm import LinearSVC

    data = make_data(200)
    cases = [
        (LinearRegression().fit(data.x, data.y), "not a classifier"),
        (DecisionTreeClassifier().fit(data.x, np.arange(200) % 3), "3 classes"),
        (DecisionTreeClassifier().fit(data.x, np.column_stack([data.y, data.y])), "outputs"),
        (DecisionTreeClassifier(), "not fitted"),
        (LinearSVC().fit(data.x, data.y), "predict_proba"),
        ({"a": 1}, "not a scikit-learn estimator"),
    ]
    for model, words in cases:
        with pytest.raises(ExportError, match=words):
            check_classifier(model)
