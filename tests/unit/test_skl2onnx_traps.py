"""What skl2onnx gets wrong, as tests that our own path gets right.

Where it is cheap, skl2onnx's own answer is taken too and shown with the test's output (`-rP`); a
release of it that is fixed fails nothing here. Models without a path of our own must be refused
where skl2onnx's graph differs from scikit-learn.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from server.bundle import load_model, read_bundle
from server.bundle.link import to_score
from server.errors import ExportError
from server.export.compare import start
from server.export.convert import convert
from server.export.metrics import probabilities
from server.export.opaque import convert_opaque
from server.export.stock import open_session, run
from tests.support.models import N_FEATURES, export_small, make_data


def ours(model: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return our path's probabilities of the positive class."""
    converted = convert(model, rows.shape[1])
    assert converted.forest is not None or converted.linear is not None
    return to_score(start(converted, "test").served.score(rows), converted.link)


def show_theirs(model: Any, rows: NDArray[np.float32]) -> None:
    """Print how far skl2onnx is off, or that it fails."""
    try:
        scores = run(open_session(convert_opaque(model, rows.shape[1])), rows)
    except ExportError as error:
        print(f"skl2onnx: {error}")
        return
    off = np.abs(scores - probabilities(model, rows))
    print(f"skl2onnx: {(off > 1e-4).sum()} of {len(off)} rows off, up to {off.max():.3g}")


def check(model: Any, rows: NDArray[np.float32], tolerance: float = 1e-5) -> None:
    show_theirs(model, rows)
    assert np.abs(ours(model, rows) - probabilities(model, rows)).max() < tolerance


def test_hist_gradient_boosting_converts_whatever_protobuf_is_installed() -> None:
    data = make_data(400)
    model = HistGradientBoostingClassifier(max_iter=5).fit(data.x, data.y)
    check(model, make_data(300, seed=1).x)


def test_thresholds_between_adjacent_float32_values_round_down() -> None:
    rng = np.random.default_rng(0)
    base = np.float32(1000.0)
    steps = rng.integers(0, 40, size=(2000, 3))
    x = (base.view(np.int32) + steps).astype(np.int32).view(np.float32)
    y = (steps[:, 0] + steps[:, 1] % 3 > 20).astype(int)
    for model in (
        HistGradientBoostingClassifier(max_iter=20),
        DecisionTreeClassifier(),
        GradientBoostingClassifier(n_estimators=10),
    ):
        check(model.fit(x, y), x)


def test_a_model_fitted_on_float64_is_compared_on_float32_rows(tmp_path: Path) -> None:
    data = make_data(600)
    rng = np.random.default_rng(0)
    cents = pd.DataFrame(np.round(rng.random((600, N_FEATURES)) * 1e5) / 100)
    cents.columns = data.frame.columns
    y = (cents["f0"] > cents["f1"]).astype(int).to_numpy()
    model = HistGradientBoostingClassifier(max_iter=20).fit(cents, y)
    from server.export import export_model

    report = export_model(model, cents, y, cents, y, out=tmp_path / "m" / "1").quantization
    assert report.max_abs_delta_p < 1e-5, "against the model on float32 rows"
    assert report.float32_max_abs_delta_p is not None


@pytest.mark.parametrize("dtype", ["declared", "from_dtype"])
def test_categorical_splits_are_refused_wherever_they_are(dtype: str) -> None:
    data = make_data(300)
    frame = data.frame.assign(f3=np.abs(data.x[:, 3]))
    if dtype == "from_dtype":
        frame["f3"] = frame["f3"].astype(int).astype("category")
        hist = HistGradientBoostingClassifier(max_iter=5)
    else:
        hist = HistGradientBoostingClassifier(max_iter=5, categorical_features=["f3"])
    stacked = StackingClassifier([("h", hist), ("n", GaussianNB())], cv=2)
    calibrated = CalibratedClassifierCV(hist, cv=2)
    for model in (hist, stacked, calibrated):
        with pytest.raises(ExportError, match="categorical"):
            convert(model.fit(frame, data.y), N_FEATURES)


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(random_state=0),
        RandomForestClassifier(10, random_state=0),
        ExtraTreesClassifier(10, random_state=0),
        HistGradientBoostingClassifier(max_iter=10),
    ],
)
def test_missing_values_are_routed(model: Any) -> None:
    data = make_data(600, missing=0.2)
    check(model.fit(data.x, data.y), make_data(600, seed=1, missing=0.3).x)


@pytest.mark.parametrize(
    "selector",
    [
        SelectKBest(k=1),
        RFE(DecisionTreeClassifier(max_depth=3), n_features_to_select=1),
        SelectFromModel(DecisionTreeClassifier(max_depth=3), max_features=1, threshold=-1),
    ],
)
def test_selectors_that_keep_only_the_first_column(selector: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    for chain in ([selector], [selector, StandardScaler()], [StandardScaler(), selector]):
        model = make_pipeline(*chain, DecisionTreeClassifier(max_depth=4)).fit(x, y)
        assert model[:-1].transform(x).shape[1] == 1
        check(model, x)


def test_low_scores_keep_their_digits() -> None:
    """onnxruntime's LOGISTIC makes a raw score of -20 exactly 0; ours stays a raw score."""
    data = make_data(400)
    model = LogisticRegression().fit(data.x[:, :2], data.y)
    model.coef_ = np.array([[1.0, 0.5]])
    model.intercept_ = np.array([-20.0])
    rows = make_data(300, seed=1).x[:, :2].copy()
    show_theirs(model, rows)
    expected = probabilities(model, rows)
    assert expected.max() < 1e-6
    assert np.allclose(ours(model, rows), expected, rtol=1e-5, atol=0)
    assert (np.argsort(ours(model, rows)) == np.argsort(expected)).mean() > 0.9


def test_scaling_divides_as_scikit_learn_does() -> None:
    """StandardScaler becomes a multiplication by 1/std there; at a threshold that moves rows."""
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(3000, 2)) * 50).astype(np.float32) / np.float32(100)
    y = (x[:, 0] > 0.1).astype(int) ^ (x[:, 1] > 0.3)
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier()).fit(x, y)
    check(model, x)


def test_string_classes_stay_outside_the_graph(tmp_path: Path) -> None:
    data = make_data(400)
    names = np.array(["genuine", "stolen"])
    model = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0))
    model.fit(data.x, names[data.y])
    check(model, make_data(200, seed=1).x)
    from server.export import export_model

    report = export_model(
        model, data.frame, names[data.y], data.frame, names[data.y], out=tmp_path / "m" / "1"
    )
    assert report.manifest.outputs.classes == ["genuine", "stolen"]


# ---------------------------------------------- models without an engine here


OPAQUE: list[Any] = [
    make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=30, random_state=0)),
    make_pipeline(StandardScaler(), GaussianNB()),
    StackingClassifier(
        [
            ("t", DecisionTreeClassifier(max_depth=3, random_state=0)),
            ("l", make_pipeline(StandardScaler(), LogisticRegression())),
        ],
        cv=3,
    ),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("model", OPAQUE, ids=["mlp", "bayes", "stacking"])
def test_other_models_are_served_by_onnxruntime(model: Any, tmp_path: Path) -> None:
    data = make_data()
    model.fit(data.frame, data.y)
    report = export_small(tmp_path / "m" / "1", model)
    assert report.quantization.engine == "onnx"
    assert report.manifest.outputs.link == "identity"
    loaded = load_model(read_bundle(report.path))
    rows = make_data(200, seed=3).x
    assert loaded.engine == "onnx"
    assert np.abs(loaded.model.score(rows) - probabilities(model, rows)).max() < 1e-3


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "model",
    [
        CalibratedClassifierCV(make_pipeline(StandardScaler(), LogisticRegression()), cv=2),
        CalibratedClassifierCV(GradientBoostingClassifier(n_estimators=5), method="isotonic", cv=2),
        make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)),
    ],
    ids=["sigmoid", "isotonic", "svc"],
)
def test_doubtful_conversions_are_right_or_refused(model: Any, tmp_path: Path) -> None:
    data = make_data(500)
    model.fit(data.frame, data.y)
    refused = None
    try:
        report = export_small(tmp_path / "m" / "1", model)
    except ExportError as error:
        refused = str(error)
    if refused is not None:
        print(f"refused: {refused}")
        assert "\n" not in refused
        assert not (tmp_path / "m").exists()
        return
    loaded = load_model(read_bundle(report.path))
    rows = make_data(300, seed=3).x
    off = np.abs(loaded.model.score(rows) - probabilities(model, rows)).max()
    assert off < 5 * report.quantization.tolerance


def test_what_cannot_be_converted_is_refused_with_the_reason(tmp_path: Path) -> None:
    data = make_data(400)
    frame = data.frame.assign(f3=np.clip(np.abs(data.x[:, 3]), 0, 2))
    columns = ColumnTransformer([("one", OneHotEncoder(), ["f3"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression(max_iter=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(frame, data.y)
    with pytest.raises(ExportError, match="no native engine, and skl2onnx cannot convert it"):
        convert(model, N_FEATURES)
