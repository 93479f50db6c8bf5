"""Reads `model.onnx` as the arrays of a native engine, without the onnx package.

The serving process builds its engines from the graph itself, so there is no second copy of the
trees that could disagree with it. Three shapes are told apart:

* one `TreeEnsembleRegressor` with one target, SUM, no post-transform, only `<=` splits: a forest;
* [IsNaN, Where] Cast(double), MatMul, Add, Cast(float): a linear model;
* any other graph that takes one float32 matrix and returns one float32 column: onnxruntime's.

The reader is strict: what it does not understand is never guessed at. A graph that no engine can
serve (a classifier's label, two inputs, strings) raises BundleError.

This module and the control plane are the only places in `server` that import generated protobuf
(see docs/decisions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from server.errors import BundleError
from server.pb import onnx_subset_pb2 as pb

FLOAT = 1  # TensorProto.FLOAT
DOUBLE = 11  # TensorProto.DOUBLE
ML_DOMAIN = "ai.onnx.ml"
# The versions of ai.onnx.ml in which TreeEnsembleRegressor means the same.
ML_VERSIONS = range(1, 5)
TREE_ATTRIBUTES = frozenset(
    {
        "n_targets", "aggregate_function", "post_transform", "base_values",
        "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes",
        "nodes_truenodeids", "nodes_falsenodeids", "nodes_missing_value_tracks_true",
        "nodes_hitrates", "target_treeids", "target_nodeids", "target_ids", "target_weights",
    }
)  # fmt: skip


@dataclass(frozen=True)
class ForestGraph:
    """The arrays of `fastpath.forest.Forest`; N nodes, T trees."""

    n_features: int
    roots: NDArray[np.int32]  # [T]
    feature: NDArray[np.int32]  # [N], -1: leaf
    threshold: NDArray[np.float32]  # [N]
    true_child: NDArray[np.int32]  # [N]
    false_child: NDArray[np.int32]  # [N]
    missing_true: NDArray[np.bool_]  # [N]
    leaf: NDArray[np.float32]  # [N]
    base: float


@dataclass(frozen=True)
class LinearGraph:
    """The arrays of `fastpath.linear.Linear`."""

    n_features: int
    coefficients: NDArray[np.float64]  # [F]
    intercept: float
    fill: NDArray[np.float32]  # [F], NaN: no fill


@dataclass(frozen=True)
class OpaqueGraph:
    """A graph that only onnxruntime understands."""

    n_features: int


def read_graph(model: bytes, where: str) -> ForestGraph | LinearGraph | OpaqueGraph:
    """Recognise a graph and take its arrays.

    Parameters
    ----------
    model : bytes
        The content of `model.onnx`.
    where : str
        The file's path, for messages.

    Raises
    ------
    BundleError
        Not an ONNX model, or one that no engine here can serve.
    """
    message = pb.Model()
    try:
        message.ParseFromString(model)
    except DecodeError as error:
        raise BundleError(f"{where}: not an ONNX model: {error}") from error
    graph = message.graph
    _refuse_external_data(message, where)
    if not graph.node or not message.opset_import:
        raise BundleError(f"{where}: not an ONNX model: no nodes or no operator set")
    n_features = _check_interface(graph, where)
    operators = [node.op_type for node in graph.node]
    if operators == ["TreeEnsembleRegressor"] and graph.node[0].domain == ML_DOMAIN:
        versions = {item.domain: item.version for item in message.opset_import}
        attributes = {item.name: item for item in graph.node[0].attribute}
        if versions.get(ML_DOMAIN, 0) in ML_VERSIONS and _is_plain_sum(attributes):
            return _read_forest(attributes, n_features, where)
    if operators[-4:] == ["Cast", "MatMul", "Add", "Cast"]:
        linear = _read_linear(graph, n_features)
        if linear is not None:
            return linear
    return OpaqueGraph(n_features)


def _refuse_external_data(message: Message, where: str) -> None:
    """Refuse tensors kept in other files, wherever in the graph they stand.

    onnxruntime would read whatever path the model names, below the process's working directory;
    a bundle is what its manifest hashes, and nothing else.
    """
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if isinstance(value, Sequence) else [value]:
            if isinstance(part, pb.Tensor) and (part.external_data or part.data_location):
                raise BundleError(
                    f"{where}: tensor {part.name!r} is kept in another file; save the model with "
                    "all data inside"
                )
            _refuse_external_data(part, where)


def _check_interface(graph: pb.Graph, where: str) -> int:
    """Require one float32 matrix in and a float32 column out; return the number of features."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [item for item in graph.input if item.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs) or "none"
        raise BundleError(f"{where}: one input is needed, the graph has {len(inputs)} ({names})")
    tensor = inputs[0].type.tensor_type
    dims = tensor.shape.dim
    if tensor.elem_type != FLOAT or len(dims) != 2 or dims[1].dim_value <= 0:
        raise BundleError(
            f"{where}: input {inputs[0].name!r} must be a float32 matrix [rows, features] with a "
            "fixed number of features"
        )
    n_features = int(dims[1].dim_value)
    if not graph.output:
        raise BundleError(f"{where}: the graph has no output")
    tensor = graph.output[0].type.tensor_type
    dims = tensor.shape.dim
    if tensor.elem_type != FLOAT or len(dims) > 2 or (len(dims) == 2 and dims[1].dim_value > 1):
        raise BundleError(
            f"{where}: the first output, {graph.output[0].name!r}, must be one float32 raw score a "
            "row; a classifier's label or probabilities cannot be served: export the model with "
            "`scoregate export`"
        )
    return n_features


# ------------------------------------------------------------------ forests


def _is_plain_sum(attributes: dict[str, pb.Attribute]) -> bool:
    """Tell whether the ensemble is the sum of its leaves and nothing more."""

    def text(name: str, default: bytes) -> bytes:
        return attributes[name].s if name in attributes else default

    return (
        attributes.keys() <= TREE_ATTRIBUTES
        and "n_targets" in attributes
        and attributes["n_targets"].i == 1
        and text("aggregate_function", b"SUM") == b"SUM"
        and text("post_transform", b"NONE") == b"NONE"
        and set(attributes["nodes_modes"].strings) <= {b"BRANCH_LEQ", b"LEAF"}
        and not any(attributes["target_ids"].ints)
    )


def _ints(attributes: dict[str, pb.Attribute], name: str) -> NDArray[np.int64]:
    values: Sequence[int] = attributes[name].ints if name in attributes else ()
    return np.fromiter(values, dtype=np.int64, count=len(values))


def _floats(attributes: dict[str, pb.Attribute], name: str) -> NDArray[np.float32]:
    values: Sequence[float] = attributes[name].floats if name in attributes else ()
    return np.fromiter(values, dtype=np.float32, count=len(values))


def _read_forest(attributes: dict[str, pb.Attribute], n_features: int, where: str) -> ForestGraph:
    tree = _ints(attributes, "nodes_treeids")
    n_nodes = len(tree)
    modes = attributes["nodes_modes"].strings
    arrays: dict[str, NDArray[Any]] = {
        "nodes_nodeids": _ints(attributes, "nodes_nodeids"),
        "nodes_featureids": _ints(attributes, "nodes_featureids"),
        "nodes_truenodeids": _ints(attributes, "nodes_truenodeids"),
        "nodes_falsenodeids": _ints(attributes, "nodes_falsenodeids"),
        "nodes_values": _floats(attributes, "nodes_values"),
        "nodes_missing_value_tracks_true": _ints(attributes, "nodes_missing_value_tracks_true"),
        "nodes_modes": np.fromiter((m == b"LEAF" for m in modes), np.bool_, count=len(modes)),
    }
    if not len(arrays["nodes_missing_value_tracks_true"]):
        arrays["nodes_missing_value_tracks_true"] = np.zeros(n_nodes, np.int64)
    for name, array in arrays.items():
        if len(array) != n_nodes or not n_nodes:
            raise BundleError(f"{where}: {name} holds {len(array)} values for {n_nodes} nodes")
    is_leaf = arrays["nodes_modes"]
    feature = np.where(is_leaf, -1, arrays["nodes_featureids"])
    if ((feature < 0) != is_leaf).any() or (feature >= n_features).any():
        raise BundleError(f"{where}: a node splits on a feature outside 0..{n_features - 1}")
    find = _NodeIndex(tree, arrays["nodes_nodeids"], where)
    true_child = np.zeros(n_nodes, np.int32)
    false_child = np.zeros(n_nodes, np.int32)
    inner = np.flatnonzero(~is_leaf)
    true_child[inner] = find(tree[inner], arrays["nodes_truenodeids"][inner])
    false_child[inner] = find(tree[inner], arrays["nodes_falsenodeids"][inner])
    # Children after their parent, and one parent each: no cycles, no shared branches.
    children = np.concatenate([true_child[inner], false_child[inner]])
    if (children <= np.concatenate([inner, inner])).any() or len(np.unique(children)) != len(
        children
    ):
        raise BundleError(f"{where}: the nodes do not form trees with parents before children")
    roots = np.setdiff1d(np.arange(n_nodes), children)
    if len(np.unique(tree[roots])) != len(roots):
        raise BundleError(f"{where}: a tree has more than one root")
    base = _floats(attributes, "base_values")
    if len(base) > 1:
        raise BundleError(f"{where}: base_values holds {len(base)} values for one target")
    return ForestGraph(
        n_features=n_features,
        roots=roots.astype(np.int32),
        feature=feature.astype(np.int32),
        threshold=arrays["nodes_values"],
        true_child=true_child,
        false_child=false_child,
        missing_true=arrays["nodes_missing_value_tracks_true"] != 0,
        leaf=_leaf_weights(attributes, find, is_leaf, where),
        base=float(base[0]) if len(base) else 0.0,
    )


def _leaf_weights(
    attributes: dict[str, pb.Attribute], find: _NodeIndex, is_leaf: NDArray[np.bool_], where: str
) -> NDArray[np.float32]:
    """Return each leaf's weight at its node; every leaf has exactly one."""
    weights = _floats(attributes, "target_weights")
    at = find(_ints(attributes, "target_treeids"), _ints(attributes, "target_nodeids"))
    if len(weights) != len(at) or len(np.unique(at)) != len(at) or not is_leaf[at].all():
        raise BundleError(f"{where}: the target weights do not belong to one leaf each")
    if len(at) != int(is_leaf.sum()):
        raise BundleError(f"{where}: {int(is_leaf.sum())} leaves, but {len(at)} have a weight")
    leaf = np.zeros(len(is_leaf), np.float32)
    leaf[at] = weights
    return leaf


class _NodeIndex:
    """Finds the position of (tree id, node id) pairs."""

    def __init__(self, tree: NDArray[np.int64], node: NDArray[np.int64], where: str) -> None:
        self._where = where
        key = self._key(tree, node)
        self._order = np.argsort(key, kind="stable")
        self._sorted = key[self._order]
        if (self._sorted[1:] == self._sorted[:-1]).any():
            raise BundleError(f"{where}: two nodes have the same tree and node id")

    def _key(self, tree: NDArray[np.int64], node: NDArray[np.int64]) -> NDArray[np.int64]:
        both = (tree, node)
        if len(tree) != len(node) or any((x < 0).any() or (x >= 1 << 31).any() for x in both):
            raise BundleError(f"{self._where}: tree and node ids do not match or are out of range")
        return (tree << 32) | node

    def __call__(self, tree: NDArray[np.int64], node: NDArray[np.int64]) -> NDArray[np.intp]:
        key = self._key(tree, node)
        at = np.minimum(np.searchsorted(self._sorted, key), len(self._sorted) - 1)
        if (self._sorted[at] != key).any():
            raise BundleError(f"{self._where}: a node or weight refers to a node that is not there")
        return self._order[at]


# ------------------------------------------------------------ linear models


def _read_linear(graph: pb.Graph, n_features: int) -> LinearGraph | None:
    """Return the linear model, or None where the graph is not exactly ours."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = list(graph.node)
    source = graph.input[0].name
    fill = np.full(n_features, np.nan, np.float32)
    if [node.op_type for node in nodes[:-4]] == ["IsNaN", "Where"]:
        is_nan, where = nodes[:2]
        if list(is_nan.input) != [source] or len(where.input) != 3:
            return None
        condition, replacement, value = where.input
        if condition != is_nan.output[0] or value != source:
            return None
        filled = _constant(constants, replacement, FLOAT, [n_features])
        if filled is None:
            return None
        fill = filled.astype(np.float32)
        source = where.output[0]
    elif len(nodes) != 4:
        return None
    widen, product, total, narrow = nodes[-4:]
    chained = (
        list(widen.input) == [source]
        and len(product.input) == len(total.input) == 2
        and product.input[0] == widen.output[0]
        and total.input[0] == product.output[0]
        and list(narrow.input) == [total.output[0]]
        and narrow.output[0] == graph.output[0].name
        and [a.i for a in widen.attribute if a.name == "to"] == [DOUBLE]
        and [a.i for a in narrow.attribute if a.name == "to"] == [FLOAT]
        and not any(node.domain for node in nodes)
    )
    if not chained:
        return None
    coefficients = _constant(constants, product.input[1], DOUBLE, [n_features, 1])
    intercept = _constant(constants, total.input[1], DOUBLE, [1])
    if coefficients is None or intercept is None:
        return None
    return LinearGraph(n_features, coefficients.ravel(), float(intercept[0]), fill)


def _constant(
    constants: dict[str, pb.Tensor], name: str, kind: int, shape: list[int]
) -> NDArray[Any] | None:
    """Return an initializer of exactly this type and shape, else None."""
    tensor = constants.get(name)
    if tensor is None or tensor.data_type != kind or list(tensor.dims) != shape:
        return None
    dtype = np.dtype("<f4" if kind == FLOAT else "<f8")
    if tensor.raw_data:
        if len(tensor.raw_data) % dtype.itemsize:
            return None
        values = np.frombuffer(tensor.raw_data, dtype)
    else:
        values = np.array(tensor.float_data if kind == FLOAT else tensor.double_data, dtype)
    return values.reshape(shape) if values.size == int(np.prod(shape)) else None
