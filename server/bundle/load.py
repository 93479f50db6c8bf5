"""Turns a verified bundle into an engine that is proven equal to stock onnxruntime.

The engine is chosen from the graph alone (see `graph.py`). Native engines are compared, bit by bit,
with onnxruntime's C API on the bundle's golden rows and on rows built from the thresholds; the
golden rows' stored raw scores must come out too. A difference raises ParityError: nothing of the
bundle serves. Imports neither onnx, onnxruntime's Python module, scipy nor scikit-learn.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastpath.errors import FastpathError
from fastpath.forest import Forest
from fastpath.linear import Linear
from fastpath.model import Model
from fastpath.onnx import OnnxModel
from fastpath.schema import Schema
from server.bundle.graph import ForestGraph, LinearGraph, OpaqueGraph, read_graph
from server.bundle.manifest import GOLDEN, MODEL, Manifest
from server.bundle.parity import LOAD_ROWS, check_equal, threshold_rows
from server.bundle.reader import Bundle
from server.bundle.schema import compile_schema
from server.errors import BundleError, ParityError

Engine = Literal["forest", "linear", "onnx"]
# An opaque graph may round differently in another release of onnxruntime; golden scores must
# come out within this distance, absolute and relative.
OPAQUE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class LoadedModel:
    """An engine, its schema and where they came from. Immutable; owns its memory."""

    model: Model
    engine: Engine
    schema: Schema
    manifest: Manifest
    sha256: bytes  # of the manifest file
    resident_bytes: int  # of the engine's arrays; for onnxruntime the size of the file
    parity_rows: int  # rows on which the native engine was compared with onnxruntime


def load_model(bundle: Bundle, *, n_threads: int = 1) -> LoadedModel:
    """Build the engine of a bundle and prove it.

    Parameters
    ----------
    bundle : Bundle
        As `read_bundle` returns it.
    n_threads : int
        How many threads will call the model at once.

    Raises
    ------
    BundleError
        The graph cannot be served, or does not fit the schema.
    ParityError
        An engine and onnxruntime disagree; the message holds the row that shows it.
    """
    try:
        return _build(bundle, n_threads)
    except FastpathError as error:
        raise BundleError(f"{bundle.path}: {error}") from error
    finally:
        _return_freed_memory()


def _build(bundle: Bundle, n_threads: int) -> LoadedModel:
    where = str(bundle.path / MODEL)
    graph = read_graph(bundle.content[MODEL], where)
    n_features = len(bundle.schema.features)
    if graph.n_features != n_features:
        raise BundleError(
            f"{where}: the graph takes {graph.n_features} features, the schema has {n_features}"
        )
    rows, raw = golden_rows(bundle)
    schema = compile_schema(bundle.schema)
    native = native_engine(graph)
    # As a witness onnxruntime is called from here only.
    callers = n_threads if native is None else 1
    reference = OnnxModel(bundle.content[MODEL], n_features=n_features, n_threads=callers)
    names = [feature.name for feature in bundle.schema.features]
    if native is None:
        _check_golden(rows, reference.score(rows), raw, names, where)
        parity_rows = 0
        resident = len(bundle.content[MODEL])
    else:
        parity_rows = prove(native, reference, rows, raw, names, where)
        resident = int(native.resident_bytes)
    return LoadedModel(
        model=reference if native is None else native,
        engine=engine_name(graph),
        schema=schema,
        manifest=bundle.manifest,
        sha256=bundle.sha256,
        resident_bytes=resident,
        parity_rows=parity_rows,
    )


def _return_freed_memory() -> None:
    """Give freed heap pages back to the system, where the C library can (glibc).

    Parsing a deep forest and its proof in onnxruntime leave some 40 MB of freed, resident pages.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def engine_name(graph: ForestGraph | LinearGraph | OpaqueGraph) -> Engine:
    """Return which engine serves a graph."""
    if isinstance(graph, ForestGraph):
        return "forest"
    return "linear" if isinstance(graph, LinearGraph) else "onnx"


def native_engine(graph: ForestGraph | LinearGraph | OpaqueGraph) -> Forest | Linear | None:
    """Compile a graph for a native engine; None where only onnxruntime can serve it."""
    if isinstance(graph, ForestGraph):
        return Forest(
            n_features=graph.n_features,
            roots=graph.roots,
            feature=graph.feature,
            threshold=graph.threshold,
            true_child=graph.true_child,
            false_child=graph.false_child,
            missing_true=graph.missing_true,
            leaf=graph.leaf,
            base=graph.base,
        )
    if isinstance(graph, LinearGraph):
        return Linear(coefficients=graph.coefficients, intercept=graph.intercept, fill=graph.fill)
    return None


def golden_rows(bundle: Bundle) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the golden rows and their raw scores, shapes checked."""
    where = bundle.path / GOLDEN
    arrays = bundle.arrays(GOLDEN)
    rows, raw = arrays.get("rows"), arrays.get("raw")
    if rows is None or raw is None or rows.dtype != np.float32 or raw.dtype != np.float32:
        raise BundleError(f"{where}: float32 arrays `rows` and `raw` are needed")
    if rows.shape != (len(raw), len(bundle.schema.features)) or not len(raw):
        raise BundleError(
            f"{where}: rows {rows.shape} and raw {raw.shape} do not fit "
            f"{len(bundle.schema.features)} features"
        )
    return rows, raw


def prove(
    native: Forest | Linear,
    reference: OnnxModel,
    rows: NDArray[np.float32],
    raw: NDArray[np.float32],
    names: list[str],
    where: str,
    limit: int | None = LOAD_ROWS,
) -> int:
    """Compare a native engine with onnxruntime; return the number of rows compared."""
    check_equal(rows, native.score(rows), raw, names, f"{where}: golden rows as stored")
    if isinstance(native, Forest):
        thresholds = [np.asarray(t, np.float32) for t in native.thresholds]
    else:
        thresholds = [np.empty(0, np.float32)] * len(names)
    every = np.concatenate([rows, threshold_rows(thresholds, rows, limit)])
    check_equal(every, native.score(every), reference.score(every), names, where)
    return len(every)


def _check_golden(
    rows: NDArray[np.float32],
    scores: NDArray[np.float32],
    raw: NDArray[np.float32],
    names: list[str],
    where: str,
) -> None:
    close = np.isclose(scores, raw, rtol=OPAQUE_TOLERANCE, atol=OPAQUE_TOLERANCE, equal_nan=True)
    if not close.all():
        at = int((~close).argmax())
        pairs = ", ".join(f"{n}: {v!s}" for n, v in zip(names, rows[at].tolist(), strict=True))
        raise ParityError(
            f"{where}: onnxruntime here gives {scores[at]!s}, at export it gave {raw[at]!s} on "
            f"golden row {at} {{{pairs}}}: export the model again with this onnxruntime"
        )
