"""Times and sizes before and after, for the report. Never a test's criterion."""

from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastpath.model import Model
from server.bundle.report import SizeReport, TimeReport
from server.export.metrics import probabilities
from server.export.stock import run

BUDGET_S = 0.2  # per figure
MAX_CALLS = 500
NATIVE_ROWS = 2048


def median_us(call: Callable[[int], Any], per_call: int = 1) -> float:
    """Return the median time of a call, in microseconds, divided by the rows it scores.

    `call` gets a running number, so that it can vary the row.
    """
    call(0)
    spent: list[float] = []
    start = time.perf_counter()
    while len(spent) < MAX_CALLS and time.perf_counter() - start < BUDGET_S:
        before = time.perf_counter_ns()
        call(len(spent))
        spent.append((time.perf_counter_ns() - before) / 1000 / per_call)
    return statistics.median(spent)


def measure_times(model: Any, session: Any, engine: Model, rows: NDArray[np.float32]) -> TimeReport:
    """Time one row in scikit-learn, in Python onnxruntime and in the serving engine.

    Parameters
    ----------
    model : fitted classifier
    session : onnxruntime.InferenceSession
    engine : Model
    rows : array of float32, shape (n_rows, n_features)
    """
    many = np.ascontiguousarray(np.resize(rows, (NATIVE_ROWS, rows.shape[1])))

    def one(i: int) -> NDArray[np.float32]:
        row = i % len(many)
        return many[row : row + 1]

    return TimeReport(
        sklearn_us=median_us(lambda i: probabilities(model, one(i))),
        onnxruntime_us=median_us(lambda i: run(session, one(i))),
        native_us=median_us(lambda i: engine.score(many), per_call=len(many)),
    )


def measure_sizes(
    model: Any, model_file: Path | None, onnx_bytes: int, resident_bytes: int | None
) -> SizeReport:
    """Collect sizes in bytes; `model` is the one that was given, before any pruning."""
    return SizeReport(
        model_file_bytes=model_file.stat().st_size if model_file is not None else None,
        pickled_bytes=len(pickle.dumps(model, protocol=pickle.HIGHEST_PROTOCOL)),
        onnx_file_bytes=onnx_bytes,
        engine_resident_bytes=resident_bytes,
    )
