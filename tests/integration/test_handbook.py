"""The handbook's transactions by its published protocol: export loses nothing that it reports.

Where its file is absent (`tests.support.handbook`) these tests skip, and say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from server.bundle import load_model, read_bundle
from server.export import ExportOptions, ExportReport, export_model
from tests.support.handbook import Weeks, needs_handbook, read_weeks

pytestmark = needs_handbook


@pytest.fixture(scope="module")
def weeks() -> Weeks:
    return read_weeks()


def export(model: Any, weeks: Weeks, out: Path, **options: Any) -> ExportReport:
    x = weeks.features(weeks.train)
    model.fit(x, weeks.train["TX_FRAUD"])
    return export_model(
        model,
        x,
        weeks.train["TX_FRAUD"],
        weeks.features(weeks.test),
        weeks.test["TX_FRAUD"],
        out=out,
        options=ExportOptions(target="TX_FRAUD", **options),
    )


def scaled(estimator: Any) -> Pipeline:
    return make_pipeline(StandardScaler(), estimator)


def check_published(report: ExportReport, auc: float, average_precision: float) -> None:
    before, after = report.quantization.quality_before, report.quantization.quality_after
    assert after.auc == pytest.approx(auc, abs=0.01)
    assert after.average_precision == pytest.approx(average_precision, abs=0.01)
    assert (before.auc or 1) - (after.auc or 0) < 0.001
    assert (before.average_precision or 1) - (after.average_precision or 0) < 0.001


def test_logistic_regression_reaches_the_published_figures(weeks: Weeks, tmp_path: Path) -> None:
    report = export(scaled(LogisticRegression(random_state=0)), weeks, tmp_path / "fraud/lr")
    assert report.quantization.engine == "linear"
    check_published(report, 0.871, 0.606)


def test_random_forest_reaches_the_published_figures(weeks: Weeks, tmp_path: Path) -> None:
    model = scaled(RandomForestClassifier(random_state=0, n_jobs=2))
    report = export(model, weeks, tmp_path / "fraud/rf", thresholds={"review": 0.5})
    figures = report.quantization
    assert figures.engine == "forest"
    assert figures.max_depth is not None
    assert figures.max_depth > 30  # unlimited trees: the deep layout is what serves
    # Some rows have exactly 50 of 100 votes: a grid that rounds to nearest would flip them.
    tied = model.predict_proba(weeks.features(weeks.test))[:, 1] == 0.5
    assert tied.any()
    assert [flip.flips for flip in figures.flips] == [0]
    check_published(report, 0.867, 0.658)
    loaded = load_model(read_bundle(report.path))
    rows = weeks.features(weeks.test).to_numpy()[:500]
    expected = model.predict_proba(weeks.features(weeks.test)[:500])[:, 1]
    assert np.abs(loaded.model.score(rows) - expected).max() <= figures.max_abs_delta_p


def test_default_gradient_boosting_with_enormous_leaves(weeks: Weeks, tmp_path: Path) -> None:
    model = GradientBoostingClassifier(random_state=0)
    report = export(model, weeks, tmp_path / "fraud/gb", thresholds={"block": 0.5})
    largest = max(np.abs(tree[0].tree_.value).max() for tree in model.estimators_)
    figures = report.quantization
    assert largest > 1e6, "the case this test is about"
    assert figures.clipped_leaves > 0
    assert figures.max_abs_delta_p <= 2.8e-4
    assert [flip.flips for flip in figures.flips] == [0]
    before, after = figures.quality_before, figures.quality_after
    assert before.auc is not None
    assert before.average_precision is not None
    assert after.auc == pytest.approx(before.auc, abs=5e-4)
    assert after.average_precision == pytest.approx(before.average_precision, abs=5e-4)
