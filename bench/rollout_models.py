"""The repositories of the rollout benchmark, made once and kept in `var/bench`.

`versions`: the bench's model as version 1 and a sibling, trained otherwise, as version 2; what is
swapped. `fleet`: eight models of three versions each, all of them the bench's model under another
name, so that every answer's score is known; an engine of its own is built of each.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from bench import model
from bench.model import MODEL_NAME, BenchModel
from bench.random_forests import stock_scores
from server.bundle import read_bundle
from server.bundle.manifest import MANIFEST
from server.bundle.writer import write_bundle

LEARNING_RATE = 0.09  # of version 2; scikit-learn's default made version 1
# As long as the first, so that requests are.
FLEET = (MODEL_NAME, *(f"bnch{letter}" for letter in "bcdefgh"))
FLEET_VERSIONS = ("1", "2", "3")


@dataclass(frozen=True)
class Versions:
    """A repository with two versions of one model."""

    repository: Path
    rows: np.ndarray  # float32 (n_rows, 30)

    def raw_scores(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return stock onnxruntime's raw score of each row, by version."""
        return {
            version: stock_scores(
                (self.repository / MODEL_NAME / version / "model.onnx").read_bytes(), rows
            )
            for version in ("1", "2")
        }


def copy_bundle(bundle: Path, out: Path) -> None:
    """Write a bundle again as `<repository>/<model>/<version>`; nothing but its names differs."""
    found = read_bundle(bundle)
    content = {path.name: path.read_bytes() for path in bundle.iterdir() if path.name != MANIFEST}
    manifest = msgspec.structs.replace(found.manifest, name=out.parent.name, version=out.name)
    shutil.rmtree(out, ignore_errors=True)
    write_bundle(out, manifest, content)


@cache
def prepare_versions() -> Versions:
    """Train and export the sibling, unless it is there."""
    base = model.prepare()
    recipe: list[object] = [base.repository.name, LEARNING_RATE]
    # Version 1 says that everything is there, so it is written last.
    repository, first, there = model.bundle_place("versions", recipe)
    if not there:
        from sklearn.ensemble import HistGradientBoostingClassifier

        from server.export import export_model

        train, target = model.rows_and_target(model.N_ROWS, seed=1)
        valid, valid_target = model.rows_and_target(20_000, seed=2)
        sibling = HistGradientBoostingClassifier(
            max_iter=model.N_TREES,
            max_depth=model.DEPTH,
            max_leaf_nodes=2**model.DEPTH,
            min_samples_leaf=20,
            learning_rate=LEARNING_RATE,
            early_stopping=False,
            random_state=0,
        ).fit(train, target)
        out = first.parent / "2"
        shutil.rmtree(out, ignore_errors=True)
        options = model.export_options()
        export_model(sibling, train, target, valid, valid_target, out=out, options=options)
        copy_bundle(base.bundle, first)
    return Versions(repository, base.rows)


@cache
def prepare_fleet() -> BenchModel:
    """Copy the bench's model under every name, unless it is there; returns the first of them."""
    base = model.prepare()
    recipe: list[object] = [base.repository.name, *FLEET, *FLEET_VERSIONS]
    repository, first, there = model.bundle_place("fleet", recipe)
    if not there:
        places = [repository / name / version for name in FLEET for version in FLEET_VERSIONS]
        for place in [place for place in places if place != first] + [first]:
            copy_bundle(base.bundle, place)
    return BenchModel(repository, first, base.rows)
