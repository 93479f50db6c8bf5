"""Runs graphs in stock onnxruntime, through its Python package: the outside witness.

Export process only. The serving process reaches onnxruntime through `fastpath.onnx`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from server.errors import ExportError

MAX_LINE = 300


def open_session(model: bytes) -> Any:
    """Load a graph with one thread; ExportError where onnxruntime refuses it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class of their own
        raise ExportError(f"onnxruntime does not load the graph: {first_line(error)}") from error


def run(session: Any, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score rows in one call.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Of a graph with one input and the raw score as its first output.
    rows : array of float32, shape (n_rows, n_features)

    Returns
    -------
    numpy.ndarray of float32, shape (n_rows,)
    """
    name = session.get_inputs()[0].name
    scores = session.run(None, {name: np.ascontiguousarray(rows)})[0]
    return np.asarray(scores, np.float32).reshape(len(rows))


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, shortened; its type where there is none."""
    lines = str(error).strip().splitlines()
    line = lines[0].strip() if lines else type(error).__name__
    return line if len(line) <= MAX_LINE else line[:MAX_LINE] + " …"
