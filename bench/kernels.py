"""One row through the forest kernel and through ONNX Runtime's C API, of the same model.

Both are called from C, row by row, by `Model.score`; binning is part of the forest's time. Rows
differ, so that no branch predictor learns them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from bench.model import BenchModel
from bench.results import Spread, Target, ratios
from fastpath.model import Model
from fastpath.onnx import OnnxModel
from server.bundle import load_model, read_bundle


def ns_per_row(model: Model, rows: np.ndarray) -> float:
    """Return the time of one row, in nanoseconds of wall time."""
    started_ns = time.perf_counter_ns()
    model.score(rows)
    return (time.perf_counter_ns() - started_ns) / len(rows)


def run(
    bench: BenchModel, repetitions: int, say: Callable[[str], None]
) -> tuple[dict[str, object], list[Target]]:
    """Measure both engines, alternating; return values and targets."""
    say("kernels")
    forest = load_model(read_bundle(bench.bundle)).model
    ort = OnnxModel((bench.bundle / "model.onnx").read_bytes(), n_features=forest.n_features)
    rows = np.ascontiguousarray(bench.rows)
    if not np.array_equal(forest.score(rows), ort.score(rows)):
        raise RuntimeError("the engines disagree; no time is worth quoting")
    ours, theirs = [], []
    for _ in range(3 * repetitions):
        ours.append(ns_per_row(forest, rows))
        theirs.append(ns_per_row(ort, rows))
    speedup = ratios(theirs, ours)
    values: dict[str, object] = {
        "forest_ns_per_row": Spread.of(ours),
        "ort_ns_per_row": Spread.of(theirs),
        "forest_speedup_over_ort": speedup,
    }
    return values, [Target("forest_speedup_over_ort", speedup.median, ">=", 4.0)]
