"""Everything that has no native engine: through skl2onnx, as a graph for onnxruntime.

skl2onnx is right for most models and silently wrong for some. So its graph is taken only if it
reproduces scikit-learn on the rows that it is tried on (the caller's check), and what is known to
go wrong without showing on ordinary rows is refused here: categorical splits inside
HistGradientBoosting. The graph's two outputs are replaced by one, the positive class's
probability; there is no ZipMap and no label.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from server.errors import ExportError
from server.export.onnx_graph import INPUT, ML_OPSET, OPSET, OUTPUT
from server.export.stock import first_line


def convert_opaque(model: Any, n_features: int) -> bytes:
    """Convert a fitted binary classifier to a graph from float32 features to one probability.

    Raises
    ------
    ExportError
        skl2onnx cannot convert it, or is known to convert it wrongly; the message says why.
    """
    name = type(model).__name__
    for part in _parts(model, set()):
        categorical = getattr(part, "is_categorical_", None)
        if isinstance(
            part, HistGradientBoostingClassifier | HistGradientBoostingRegressor
        ) and np.any(categorical if categorical is not None else False):
            raise ExportError(
                f"{name} contains a {type(part).__name__} with categorical features, whose splits "
                "cannot be exported exactly: encode them as numbers before the model"
            )
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own use of deprecated numpy and onnx calls
            graph = convert_sklearn(
                model,
                initial_types=[(INPUT, FloatTensorType([None, n_features]))],
                options={id(model): {"zipmap": False}},
                target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            )
        return _one_probability(graph)
    except ExportError:
        raise
    except Exception as error:  # a converter may raise anything
        raise ExportError(
            f"{name} has no native engine, and skl2onnx cannot convert it: {first_line(error)}"
        ) from error


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield every estimator inside a fitted estimator, itself included."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, BaseEstimator):
        yield value
        for member in vars(value).values():
            yield from _parts(member, seen)
    elif isinstance(value, list | tuple) or (
        isinstance(value, np.ndarray) and value.dtype == object
    ):
        for member in value:
            yield from _parts(member, seen)
    elif isinstance(value, dict):
        for member in value.values():
            yield from _parts(member, seen)


def _one_probability(model: onnx.ModelProto) -> bytes:
    """Make the positive class's column of the probabilities the only output."""
    graph = model.graph
    outputs = {output.name: output for output in graph.output}
    matrices = [
        name
        for name, output in outputs.items()
        if output.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    if len(matrices) != 1:
        raise ExportError(f"skl2onnx's graph has outputs {sorted(outputs)}, not one of floats")
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "positive_class"))
    graph.node.append(helper.make_node("Gather", [matrices[0], "positive_class"], [OUTPUT], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", 1]))
    _drop_unused(graph)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants that do not lead to the output."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    initializers = [item for item in graph.initializer if item.name in needed]
    del graph.node[:]
    graph.node.extend(reversed(kept))
    del graph.initializer[:]
    graph.initializer.extend(initializers)
