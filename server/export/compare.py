"""Compares the three levels: scikit-learn, stock onnxruntime, the native engine.

onnxruntime against native: bit by bit, on validation rows and on rows at every threshold.
scikit-learn against quantized: within the tolerance, on the same rows as far as scikit-learn takes
them (no infinities; NaN where the model knows what to do with it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastpath.errors import FastpathError
from fastpath.forest import Forest
from fastpath.model import Model
from fastpath.onnx import OnnxModel
from server.bundle.graph import read_graph
from server.bundle.link import to_score
from server.bundle.load import Engine, engine_name, native_engine
from server.bundle.parity import check_equal, describe_row, neighbours, threshold_rows
from server.bundle.schema import SchemaFile
from server.errors import ExportError
from server.export.convert import Converted
from server.export.frame import Rows
from server.export.metrics import probabilities
from server.export.stock import open_session, run

Float32Array = NDArray[np.float32]
# Rows at thresholds: all of them for usual models, a fixed sample for huge or very wide ones.
MAX_EDGE_ROWS = 200_000
MAX_EDGE_VALUES = 20_000_000
MAX_SKLEARN_ROWS = 20_000
GOLDEN_ROWS = 256
# Beyond this, scikit-learn's own float32 transformers may overflow, which it then refuses.
LARGEST = 1e30


@dataclass(frozen=True)
class Engines:
    """A converted model, running: in stock onnxruntime and as it will be served."""

    session: Any
    served: Model
    engine: Engine
    resident_bytes: int | None
    layout: str | None
    thresholds: list[Float32Array]  # per feature, distinct; empty where it has none


def start(converted: Converted, where: str) -> Engines:
    """Start a converted model's engines, from its bytes alone."""
    session = open_session(converted.model)
    graph = read_graph(converted.model, where)
    try:
        native = native_engine(graph)
        served = native or OnnxModel(converted.model, n_features=converted.n_features)
    except FastpathError as error:
        raise ExportError(f"the model cannot be served: {error}") from error
    thresholds = [np.empty(0, np.float32)] * converted.n_features
    layout = None
    if isinstance(native, Forest):
        thresholds = [np.asarray(t, np.float32) for t in native.thresholds]
        layout = str(native.layout)
    return Engines(
        session=session,
        served=served,
        engine=engine_name(graph),
        resident_bytes=None if native is None else int(native.resident_bytes),
        layout=layout,
        thresholds=thresholds,
    )


def edge_rows(engines: Engines, valid: Float32Array) -> Float32Array:
    """Return rows at every threshold; for an opaque graph, neighbours of validation rows."""
    if engines.engine != "onnx":
        limit = min(MAX_EDGE_ROWS, MAX_EDGE_VALUES // valid.shape[1])
        return threshold_rows(engines.thresholds, valid, limit)
    return np.concatenate(neighbours(valid[: MAX_SKLEARN_ROWS // 4]))


def check_bitwise(
    engines: Engines, rows: Float32Array, raw: Float32Array, names: Sequence[str]
) -> int:
    """Compare native with stock onnxruntime; return the number of rows (0: no native engine)."""
    if engines.engine == "onnx":
        return 0
    check_equal(rows, raw, run(engines.session, rows), names, "export")
    return len(rows)


def check_tolerance(
    model: Any,
    converted: Converted,
    rows: Float32Array,
    raw: Float32Array,
    tolerance: float,
    names: Sequence[str],
) -> float:
    """Return the largest difference in probability; ExportError with the row if it is too large.

    Parameters
    ----------
    model : fitted classifier
    converted : Converted
    rows : array of float32, shape (n_rows, n_features)
        Only such as scikit-learn takes.
    raw : array of float32, shape (n_rows,)
        The served engine's raw scores.
    tolerance : float
    names : sequence of str
    """
    expected = probabilities(model, rows)
    got = to_score(raw, converted.link)
    difference = np.abs(expected - got)
    difference[np.isnan(difference)] = np.inf
    at = int(difference.argmax())
    if difference[at] > tolerance:
        own = converted.forest or converted.linear
        how = "" if own else " (converted by skl2onnx)"
        advice = (
            "raise --tolerance if that is acceptable"
            if own
            else "skl2onnx does not reproduce this model: use one that has a native engine"
        )
        raise ExportError(
            f"{type(model).__name__}{how}: scikit-learn gives {expected[at]:.9g}, the bundle "
            f"{got[at]:.9g}: the difference {difference[at]:.3g} is over the tolerance "
            f"{tolerance:g}, on row {describe_row(rows[at], names)}; {advice}"
        )
    return float(difference[at])


@dataclass(frozen=True)
class Proof:
    """What comparing found."""

    raw: Float32Array  # the served engine's raw scores of the validation rows
    golden: Float32Array  # rows that travel with the bundle
    max_abs_delta_p: float  # largest |scikit-learn - served| probability
    parity_rows: int  # rows on which onnxruntime and the native engine are bitwise equal


def prove(
    model: Any,
    converted: Converted,
    engines: Engines,
    valid: Rows,
    schema: SchemaFile,
    tolerance: float,
    *,
    missing: bool,
) -> Proof:
    """Compare all levels on validation rows and on rows at the thresholds.

    Raises
    ------
    ExportError
        scikit-learn is further away than the tolerance.
    ParityError
        onnxruntime and the native engine differ in a bit.
    """
    edges = edge_rows(engines, valid.features)
    raw = engines.served.score(valid.features)
    parity_rows = check_bitwise(engines, valid.features, raw, valid.names)
    parity_rows += check_bitwise(engines, edges, engines.served.score(edges), valid.names)
    delta = check_tolerance(model, converted, valid.features, raw, tolerance, valid.names)
    tried = sklearn_rows(edges, missing=missing)
    if engines.engine == "onnx" and missing:
        tried = np.concatenate([tried, _with_missing(valid.features, schema)])
    if len(tried):
        scores = engines.served.score(tried)
        delta = max(delta, check_tolerance(model, converted, tried, scores, tolerance, valid.names))
    return Proof(raw, golden_sample(valid.features, edges), delta, parity_rows)


def sklearn_rows(rows: Float32Array, *, missing: bool) -> Float32Array:
    """Return the rows that scikit-learn takes, at most MAX_SKLEARN_ROWS, evenly spread."""
    # NaN compares false: a NaN is not beyond any bound.
    refused = (np.abs(rows) > LARGEST).any(axis=1)
    if not missing:
        refused |= np.isnan(rows).any(axis=1)
    kept = rows[~refused]
    if len(kept) > MAX_SKLEARN_ROWS:
        kept = kept[np.linspace(0, len(kept) - 1, MAX_SKLEARN_ROWS).astype(np.intp)]
    return kept


def golden_sample(valid: Float32Array, edges: Float32Array) -> Float32Array:
    """Return the rows that travel with the bundle: validation rows and rows at thresholds."""
    rng = np.random.default_rng(0)
    parts = [
        part[np.sort(rng.choice(len(part), min(GOLDEN_ROWS, len(part)), replace=False))]
        for part in (valid, edges)
    ]
    return np.ascontiguousarray(np.concatenate(parts))


def _with_missing(rows: Float32Array, schema: SchemaFile) -> Float32Array:
    """Return validation rows with NaN wherever serving may pass NaN to the model."""
    passed = [j for j, feature in enumerate(schema.features) if feature.default is None]
    some = rows[:1000].copy()
    if passed:
        holes = np.random.default_rng(0).random((len(some), len(passed))) < 0.3
        some[:, passed] = np.where(holes, np.float32(np.nan), some[:, passed])
    return some
