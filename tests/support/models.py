"""Small fitted models and rows for tests of the export and of bundles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier
from threadpoolctl import threadpool_limits

from server.export import ExportOptions, ExportReport, export_model

# Small fits gain nothing from OpenMP, and its spinning threads stall on a busy machine.
threadpool_limits(limits=1, user_api="openmp")

N_FEATURES = 6
NAMES = [f"f{j}" for j in range(N_FEATURES)]


@dataclass(frozen=True)
class Data:
    """Float32 rows with atoms, large and tiny values; y depends on an interaction."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    @property
    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.x, columns=NAMES)


def make_data(n_rows: int = 1200, seed: int = 0, missing: float = 0.0) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, N_FEATURES))
    x[:, 3] = np.round(x[:, 3] * 2)
    x[:, 4] *= 1e6
    x[:, 5] = x[:, 5] * 1e-3 + 5  # far from 0 for its spread: scaling cancels digits
    y = (x[:, 0] + x[:, 1] * x[:, 2] + 0.3 * x[:, 3] + rng.normal(size=n_rows) > 1).astype(np.int64)
    x[rng.random(x.shape) < missing] = np.nan
    return Data(np.ascontiguousarray(x, dtype=np.float32), y)


def fitted(n_estimators: int = 10) -> Any:
    data = make_data()
    model = GradientBoostingClassifier(n_estimators=n_estimators, random_state=0)
    return model.fit(data.frame, data.y)


def export_small(out: Path, model: Any = None, **options: Any) -> ExportReport:
    train, valid = make_data(), make_data(800, seed=1)
    return export_model(
        model if model is not None else fitted(),
        train.frame,
        train.y,
        valid.frame,
        valid.y,
        out=out,
        options=ExportOptions(**{"thresholds": {"review": 0.3, "block": 0.7}, **options}),
    )
