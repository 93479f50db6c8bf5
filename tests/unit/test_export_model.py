"""The whole export, in process: options, references, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline

from server.bundle import load_model, read_bundle
from server.bundle.link import to_score
from server.errors import BundleError, ExportError, InputError
from server.export import ExportOptions, FeatureOptions, export_model
from tests.support.models import NAMES, export_small, fitted, make_data


def test_report_and_references_describe_the_quantized_model(tmp_path: Path) -> None:
    model = fitted()
    report = export_small(tmp_path / "fraud" / "7", model)
    bundle = read_bundle(report.path)
    assert bundle.sha256 == report.sha256
    assert (bundle.manifest.name, bundle.manifest.version) == ("fraud", "7")
    valid = make_data(800, seed=1)
    loaded = load_model(bundle)
    raw = loaded.model.score(valid.x)
    figures = report.quantization
    before = model.predict_proba(valid.frame)[:, 1]
    assert figures.quality_before.auc == roc_auc_score(valid.y, before)
    assert figures.quality_after.average_precision == average_precision_score(valid.y, raw)
    assert figures.max_abs_delta_p >= np.abs(to_score(raw, "logit") - before).max()
    assert figures.max_abs_delta_p < 1e-5
    assert figures.n_trees == 10
    assert figures.parity_rows > 800
    assert figures.sizes.onnx_file_bytes == len(bundle.content["model.onnx"])
    assert figures.sizes.engine_resident_bytes == loaded.resident_bytes
    times = figures.times
    assert min(times.sklearn_us or 0, times.onnxruntime_us or 0, times.native_us or 0) > 0
    reference = bundle.arrays("reference.npz")
    offsets = reference["values_offsets"]
    assert np.array_equal(reference["values"][offsets[6] : offsets[7]], np.sort(raw))
    assert bundle.arrays("calibration.npz")["n_rows"] == 800
    by_name = {threshold.name: threshold for threshold in bundle.manifest.thresholds}
    expected = before >= by_name["review"].score
    got = raw >= np.float32(by_name["review"].raw_score)
    assert figures.flips[0].flips == (expected != got).sum()


def test_features_keep_their_places_and_defaults_follow_the_data(tmp_path: Path) -> None:
    data = make_data(missing=0.1)
    frame = data.frame.assign(f1=data.x[:, 1] > 0)
    model = make_pipeline(SimpleImputer(), RandomForestClassifier(5, max_depth=2, random_state=0))
    model.fit(frame, data.y)
    report = export_model(
        model,
        frame,
        data.y,
        frame,
        data.y,
        out=tmp_path / "m" / "1",
        options=ExportOptions(
            features={"f2": FeatureOptions(default=1.5, minimum=-3, maximum=3, required=True)},
            routing_entity="customer",
            default_decision="allow",
        ),
    )
    features = {feature.name: feature for feature in report.schema.features}
    assert list(features) == NAMES
    assert features["f1"].type == "boolean"
    assert features["f0"].default is None, "the imputer knows what to do"
    assert (features["f2"].default, features["f2"].required) == (1.5, True)
    assert (features["f2"].minimum, features["f2"].maximum) == (-3, 3)
    assert report.manifest.routing_entity == "customer"
    assert report.manifest.default_decision == "allow"
    assert set(report.quantization.unused_features) < set(NAMES)
    assert any("no thresholds" in note for note in report.quantization.notes)


def test_without_missing_values_in_training_the_default_is_the_median(tmp_path: Path) -> None:
    report = export_small(tmp_path / "m" / "1")
    medians = np.median(make_data().x, axis=0)
    assert [f.default for f in report.schema.features] == medians.tolist()
    with pytest.raises(InputError, match="f1: null passes NaN"):
        export_small(tmp_path / "m" / "2", features={"f1": FeatureOptions(default=None)})


def test_prior_shifts_scores_and_thresholds_but_not_the_graph(tmp_path: Path) -> None:
    model = fitted()
    plain = export_small(tmp_path / "m" / "1", model)
    moved = export_small(tmp_path / "m" / "2", model, prior=0.01)
    shift = moved.manifest.outputs.prior_log_odds_shift
    rate = make_data().y.mean()
    assert shift == pytest.approx(np.log(0.01 / 0.99) - np.log(rate / (1 - rate)))
    one, two = read_bundle(plain.path), read_bundle(moved.path)
    assert one.content["model.onnx"] == two.content["model.onnx"]
    low, high = (b.manifest.thresholds[0].raw_score for b in (one, two))
    assert high - low == pytest.approx(-shift, abs=1e-5)


def test_pruned_bundles_serve_the_pruned_model(tmp_path: Path) -> None:
    report = export_small(tmp_path / "m" / "1", select_features=3, max_trees=4)
    kinds = [item.kind for item in report.quantization.pruning]
    assert kinds == ["features", "trees"]
    assert report.quantization.n_trees == 4
    assert [f.name for f in report.schema.features] == report.quantization.pruning[0].kept
    small = GradientBoostingClassifier(n_estimators=10, random_state=0)
    data, valid = make_data(), make_data(100, seed=5)
    kept = report.quantization.pruning[0].kept
    small.fit(data.frame[kept], data.y)
    expected = list(small.staged_predict_proba(valid.frame[kept]))[3][:, 1]
    raw = load_model(read_bundle(report.path)).model.score(valid.frame[kept].to_numpy())
    assert np.abs(to_score(raw, "logit") - expected).max() < 1e-5


def test_linear_models_without_names(tmp_path: Path) -> None:
    data = make_data()
    x = data.frame.assign(f4=data.x[:, 4] / np.float32(1e6))
    model = LogisticRegression().fit(x.to_numpy(), data.y)
    report = export_model(model, x, data.y, x, data.y, out=tmp_path / "m" / "1")
    assert report.quantization.engine == "linear"
    assert report.quantization.max_abs_delta_p < 1e-5


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tolerance": 1e-12}, ExportError, r"over the tolerance 1e-12, on row \{f0: "),
        ({"thresholds": {"a": 1.5}}, InputError, "threshold a=1.5"),
        ({"thresholds": {"a": 0.5, "b": 0.5}}, InputError, "are the same raw score"),
        ({"thresholds": {"approve": 0.5}}, BundleError, "stands twice"),
        ({"prior": 0.0}, InputError, "--prior"),
        ({"features": {"zz": FeatureOptions()}}, InputError, "zz is not a feature"),
        (
            {"features": {"f0": FeatureOptions(default=9, maximum=1)}},
            InputError,
            r"--defaults: feature 'f0'",
        ),
        ({"name": "no/slash"}, BundleError, "name"),
        ({"select_features": 9}, InputError, "--select-features 9"),
        ({"max_trees": 0}, InputError, "--max-trees 0"),
    ],
)
def test_refusals_leave_nothing_behind(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        export_small(tmp_path / "m" / "1", **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_version_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    with pytest.raises(BundleError, match="exists already"):
        export_small(tmp_path / "m" / "1", model="not even a model")


def test_rows_that_scikit_learn_refuses_are_reported_in_its_words(tmp_path: Path) -> None:
    data = make_data(missing=0.1)
    with pytest.raises(ExportError, match="contains NaN"):
        export_model(fitted(), data.frame, data.y, data.frame, data.y, out=tmp_path / "m" / "1")
