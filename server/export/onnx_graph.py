"""Writes the ONNX graphs that bundles hold; anyone can run them in stock onnxruntime.

Forest: one TreeEnsembleRegressor, one target, SUM, no post-transform. A regressor, because a binary
classifier takes onnxruntime's slow path; no sigmoid, because onnxruntime's computes 1 - v and turns
a raw score of -20 into exactly 0. Linear: float64 inside, rounded to float32 once at the end, so
that neither the order of summation nor the batch can show.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from server.export.linear import LinearModel
from server.export.trees import Trees

OPSET = 17
ML_OPSET = 3
IR_VERSION = 8
INPUT = "features"
OUTPUT = "raw_score"


def forest_graph(trees: Trees, n_features: int) -> bytes:
    """Write a forest whose thresholds and leaves are float32 values.

    Parameters
    ----------
    trees : Trees
        Quantized, over the model's input columns.
    n_features : int
        Columns of the input.

    Returns
    -------
    bytes
        The serialized model, checked by onnx.
    """
    tree = trees.tree_of_node()
    local = trees.roots[tree]  # node ids start at 0 in every tree
    node_id = np.arange(len(tree)) - local
    inner = ~trees.is_leaf
    leaves = np.flatnonzero(trees.is_leaf)
    node = helper.make_node(
        "TreeEnsembleRegressor",
        [INPUT],
        [OUTPUT],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[trees.base],
        nodes_treeids=tree.tolist(),
        nodes_nodeids=node_id.tolist(),
        nodes_featureids=np.where(inner, trees.feature, 0).tolist(),
        nodes_values=trees.threshold.tolist(),
        nodes_modes=np.where(inner, "BRANCH_LEQ", "LEAF").tolist(),
        nodes_truenodeids=np.where(inner, trees.true_child - local, 0).tolist(),
        nodes_falsenodeids=np.where(inner, trees.false_child - local, 0).tolist(),
        nodes_missing_value_tracks_true=trees.missing_true.astype(int).tolist(),
        target_treeids=tree[leaves].tolist(),
        target_nodeids=node_id[leaves].tolist(),
        target_ids=[0] * len(leaves),
        target_weights=trees.leaf[leaves].tolist(),
    )
    return _model([node], [], n_features, "forest")


def linear_graph(model: LinearModel) -> bytes:
    """Write a linear model: [IsNaN, Where] Cast, MatMul, Add, Cast."""
    n_features = len(model.coefficients)
    nodes = []
    constants = {
        "coefficients": model.coefficients.reshape(-1, 1),
        "intercept": np.array([model.intercept]),
    }
    source = INPUT
    if not np.isnan(model.fill).all():
        constants["fill"] = model.fill
        nodes += [
            helper.make_node("IsNaN", [INPUT], ["missing"]),
            helper.make_node("Where", ["missing", "fill", INPUT], ["filled"]),
        ]
        source = "filled"
    nodes += [
        helper.make_node("Cast", [source], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["wide", "coefficients"], ["products"]),
        helper.make_node("Add", ["products", "intercept"], ["sum"]),
        helper.make_node("Cast", ["sum"], [OUTPUT], to=TensorProto.FLOAT),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return _model(nodes, initializers, n_features, "linear")


def _model(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    n_features: int,
    name: str,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", n_features])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", 1])],
        initializers,
    )
    model = helper.make_model(
        graph,
        producer_name="scoregate",
        opset_imports=[
            helper.make_opsetid("", OPSET),
            helper.make_opsetid("ai.onnx.ml", ML_OPSET),
        ],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
