"""What a bundle says of its validation rows, against scikit-learn on those rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import recall_score, roc_auc_score

from server.bundle import load_model, read_bundle
from server.bundle.manifest import MANIFEST
from server.export import ExportOptions, export_model
from server.export.rebuild import rebuild_reference
from server.feedback.validation import validation_of
from tests.support.serving import MODEL, example_repository, example_rows

N_VALID = 20_000  # more than a reference keeps


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is exported with many validation rows."""
    out = tmp_path_factory.mktemp("models") / MODEL / "1"
    model = GradientBoostingClassifier(n_estimators=20, max_depth=3, random_state=0)
    train, target = example_rows(2000, 1)
    model.fit(train, target)
    valid, valid_target = example_rows(N_VALID, 2)
    options = ExportOptions(thresholds={"review": 0.3, "block": 0.8})
    export_model(model, train, target, valid, valid_target, out=out, options=options)
    return out


def test_figures_are_those_of_the_validation_rows(path: Path) -> None:
    bundle = read_bundle(path)
    rows, positive = example_rows(N_VALID, 2)
    model = load_model(bundle, n_threads=1).model
    raw = model.score(np.ascontiguousarray(rows.to_numpy(np.float32)))
    cuts = {f"at {share}": float(np.quantile(raw, share)) for share in (0.3, 0.6, 0.9, 0.99)}
    cuts |= {one.name: one.raw_score for one in bundle.manifest.thresholds}
    found = validation_of(bundle, cuts)
    assert found.figure("auc") == pytest.approx(roc_auc_score(positive, raw), abs=1e-9)
    for name, cut in cuts.items():
        expected = recall_score(positive, raw >= cut)
        assert found.figure("recall", name) == pytest.approx(expected, abs=0.01), name
    for (name, blocked), value in found.allowed.items():
        under = raw < cuts[blocked]
        expected = recall_score(positive[under], raw[under] >= cuts[name])
        assert value == pytest.approx(expected, abs=0.015), (name, blocked)
    assert len(found.allowed) == len(cuts) * (len(cuts) - 1) / 2
    assert np.isnan(found.figure("recall", "unheard of"))
    assert found.n_positive == positive.sum()
    assert found.n_trained_positive == bundle.manifest.training.n_positive
    assert not found.note


def test_a_reference_of_other_rows_has_no_outcomes(tmp_path: Path) -> None:
    repository = Path(shutil.copytree(example_repository().path, tmp_path / "repository"))
    rows, _ = example_rows(2000, 3)
    rows.to_parquet(tmp_path / "month.parquet")
    newest = sorted(one.parent for one in (repository / MODEL).glob(f"*/{MANIFEST}"))[-1]
    made = rebuild_reference(newest, tmp_path / "month.parquet")
    found = validation_of(read_bundle(made.path), {"review": 0.0})
    assert found.figure("auc") > 0.5
    assert np.isnan(found.figure("recall", "review"))
    assert "its reference was built of" in found.note
