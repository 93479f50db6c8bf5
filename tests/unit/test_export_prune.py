"""Pruning is applied to the model itself, and its price is what the pruned model costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from server.errors import InputError
from server.export.convert import convert
from server.export.frame import Rows, make_rows
from server.export.metrics import probabilities
from server.export.prune import importances, keep_features, keep_trees
from tests.support.models import N_FEATURES, NAMES, make_data


@pytest.fixture(scope="module")
def train() -> Rows:
    data = make_data()
    return make_rows(data.frame, data.y, [0, 1], "training")


@pytest.fixture(scope="module")
def valid() -> Rows:
    data = make_data(800, seed=1)
    return make_rows(data.frame, data.y, [0, 1], "validation")


@pytest.mark.parametrize(
    "model",
    [
        GradientBoostingClassifier(n_estimators=30, random_state=0),
        HistGradientBoostingClassifier(max_iter=30, random_state=0),
    ],
)
def test_boosted_models_keep_a_prefix(model: Any, valid: Rows) -> None:
    data = make_data()
    chain = make_pipeline(StandardScaler(), model).fit(data.x, data.y)
    pruned, report = keep_trees(chain, 7, 0.0, valid)
    staged = list(chain[-1].staged_predict_proba(chain[0].transform(valid.features)))[6][:, 1]
    assert np.array_equal(probabilities(pruned, valid.features), staged)
    assert (report.before, report.after) == (30, 7)
    assert report.quality_after.average_precision == average_precision_score(valid.positive, staged)
    forest = convert(pruned, N_FEATURES).forest
    assert forest is not None
    assert forest.trees.n_trees == 7
    assert len(chain[-1]._predictors if hasattr(chain[-1], "_predictors") else chain[-1]) == 30


def test_forests_average_over_what_is_left(valid: Rows) -> None:
    data = make_data()
    model = RandomForestClassifier(20, random_state=0).fit(data.x, data.y)
    pruned, _ = keep_trees(model, 5, 0.0, valid)
    mean = np.mean([t.predict_proba(valid.features)[:, 1] for t in model.estimators_[:5]], axis=0)
    assert np.allclose(probabilities(pruned, valid.features), mean, atol=1e-15)
    assert len(model.estimators_) == 20


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(25, random_state=0),
        GradientBoostingClassifier(n_estimators=25, random_state=0),
    ],
)
def test_auto_keeps_the_fewest_within_the_loss(model: Any, valid: Rows) -> None:
    data = make_data()
    model.fit(data.x, data.y)
    loss = 0.01
    _, report = keep_trees(model, "auto", loss, valid)
    full = report.quality_before.average_precision
    assert full is not None
    assert report.quality_after.average_precision is not None
    assert report.quality_after.average_precision >= full - loss - 1e-9
    assert 1 < report.after < 25
    _, fewer = keep_trees(model, report.after - 1, loss, valid)
    assert fewer.quality_after.average_precision is not None
    assert fewer.quality_after.average_precision < full - loss


def test_trees_cannot_be_left_out_of_other_models(valid: Rows) -> None:
    data = make_data()
    for model in (LogisticRegression(), DecisionTreeClassifier()):
        with pytest.raises(InputError, match="no trees to leave out"):
            keep_trees(model.fit(data.x, data.y), 1, 0.0, valid)


@pytest.mark.parametrize(
    ("model", "how"),
    [
        (RandomForestClassifier(20, random_state=0), "impurity"),
        (HistGradientBoostingClassifier(max_iter=20, random_state=0), "split gain"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "coefficient"),
        (GaussianNB(), "permutation"),
    ],
)
def test_features_are_selected_by_the_fitted_model(
    model: Any, how: str, train: Rows, valid: Rows
) -> None:
    data = make_data()
    model.fit(data.frame, data.y)
    weight, name = importances(model, train, data.y)
    assert how in name
    small, kept, report = keep_features(model, 2, train, data.y, valid)
    assert kept == sorted(np.argsort(-weight)[:2].tolist())
    assert "f0" in report.kept, "the strongest feature of the data"
    assert list(small.feature_names_in_) == [NAMES[j] for j in kept]
    assert small.n_features_in_ == 2
    scores = probabilities(small, valid.features[:, kept])
    assert report.quality_after.average_precision == average_precision_score(valid.positive, scores)


def test_more_features_than_there_are(train: Rows, valid: Rows) -> None:
    data = make_data()
    model = LogisticRegression().fit(data.frame, data.y)
    with pytest.raises(InputError, match="the model has 6 features"):
        keep_features(model, 7, train, data.y, valid)
