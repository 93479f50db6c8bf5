"""The model that the benchmarks serve: 100 boosted trees of depth 6 on 30 features.

Made once by scikit-learn and `server.export`, kept in `var/bench`, and made again when a library
version or this recipe changes. Training and pandas are imported only then: a load on somebody
else's server needs neither.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.results import versions
from fastpath.spec import layout_fingerprint

if TYPE_CHECKING:
    import pandas as pd

    from server.export import ExportOptions

FOLDER = Path("var/bench")
MODEL_NAME = "bench"
N_FEATURES = 30
N_TREES = 100
DEPTH = 6
N_ROWS = 40_000
EXPORT_FORM = 2  # raise it when the export writes something else that a benchmark looks at
HEAVY_TREES = 200
HEAVY_DEPTH = 12
NAMES = [f"f{i:02d}" for i in range(N_FEATURES)]


@dataclass(frozen=True)
class BenchModel:
    """A repository with one bundle, and rows to send."""

    repository: Path
    bundle: Path
    rows: np.ndarray  # float32 (n_rows, 30), none seen in training

    def raw_scores(self, rows: np.ndarray) -> np.ndarray:
        """Return stock onnxruntime's raw score of each row: what answers have to carry."""
        from bench.random_forests import stock_scores

        return stock_scores((self.bundle / "model.onnx").read_bytes(), rows)

    def request(self, row: int = 0) -> bytes:
        """Return an encoded ScoreRequest: dense form, request id, one entity."""
        from server.pb.scoregate.v1 import scoring_pb2 as pb

        request = pb.ScoreRequest(request_id="0190b0a6-5f2e-7c3a-9d41-6f6c1f0e8a77")
        request.event_time_ms = 1_532_000_000_000
        request.entities.add(role="payer", type="customer", id="customer-4711")
        request.dense.layout = layout_fingerprint([(name, "numeric") for name in NAMES])
        request.dense.values.extend(self.rows[row].tolist())
        return request.SerializeToString()


def rows_and_target(n_rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Make rows in which every feature matters a little, so that trees use all of them."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_rows, N_FEATURES)).astype(np.float32)
    signal = (values * np.linspace(0.2, 0.6, N_FEATURES)).sum(axis=1)
    signal += np.sin(2 * values[:, 0] * values[:, 1]) * 2
    chance = 1 / (1 + np.exp(-(signal - 3)))
    return pd.DataFrame(values, columns=NAMES), (rng.random(n_rows) < chance).astype(int)


def export_options() -> ExportOptions:
    """Return what every model of the benchmarks is exported with."""
    from server.export import ExportOptions

    return ExportOptions(thresholds={"review": 0.5, "block": 0.9}, routing_entity="customer")


def bundle_place(kind: str, recipe: list[object]) -> tuple[Path, Path, bool]:
    """Return repository and bundle of one recipe, and whether the bundle is there already."""
    key = hashlib.sha256(json.dumps([*recipe, versions()]).encode()).hexdigest()[:12]
    repository = FOLDER / f"{kind}-{key}"
    bundle = repository / MODEL_NAME / "1"
    if (bundle / "manifest.json").exists():
        return repository, bundle, True
    for old in FOLDER.glob(f"{kind}-*"):
        shutil.rmtree(old, ignore_errors=True)
    bundle.parent.mkdir(parents=True, exist_ok=True)
    return repository, bundle, False


@cache
def prepare() -> BenchModel:
    """Train and export the model, unless this recipe's bundle is there."""
    repository, bundle, there = bundle_place(
        "boosted", [N_FEATURES, N_TREES, DEPTH, N_ROWS, EXPORT_FORM]
    )
    valid, valid_target = rows_and_target(20_000, seed=2)
    if not there:
        from sklearn.ensemble import HistGradientBoostingClassifier

        from server.export import export_model

        train, target = rows_and_target(N_ROWS, seed=1)
        model = HistGradientBoostingClassifier(
            max_iter=N_TREES,
            max_depth=DEPTH,
            max_leaf_nodes=2**DEPTH,
            min_samples_leaf=20,
            early_stopping=False,
            random_state=0,
        ).fit(train, target)
        export_model(
            model, train, target, valid, valid_target, out=bundle, options=export_options()
        )
    return BenchModel(repository, bundle, valid.to_numpy())


@cache
def prepare_heavy() -> BenchModel:
    """Train and export a forest that costs many times more: a server that one client overloads.

    Unbounded-style trees on the same features; nothing is claimed about this model itself.
    """
    repository, bundle, there = bundle_place("heavy", [N_FEATURES, HEAVY_TREES, HEAVY_DEPTH])
    valid, valid_target = rows_and_target(20_000, seed=2)
    if not there:
        from sklearn.ensemble import ExtraTreesClassifier

        from server.export import export_model

        train, target = rows_and_target(N_ROWS, seed=1)
        model = ExtraTreesClassifier(
            HEAVY_TREES, max_depth=HEAVY_DEPTH, n_jobs=-1, random_state=0
        ).fit(train, target)
        few, few_target = valid[:2000], valid_target[:2000]
        export_model(model, train, target, few, few_target, out=bundle, options=export_options())
    return BenchModel(repository, bundle, valid.to_numpy())
