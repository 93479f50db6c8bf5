"""Reading graphs: ours come back as the arrays they were written from; others are told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from server.bundle import Bundle, load_model, read_bundle
from server.bundle.graph import ForestGraph, LinearGraph, OpaqueGraph, read_graph
from server.bundle.manifest import MODEL
from server.errors import BundleError
from server.export.linear import LinearModel
from server.export.onnx_graph import linear_graph
from tests.support.models import export_small, make_data


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(export_small(tmp_path_factory.mktemp("repository") / "fraud" / "1").path)


@pytest.fixture(scope="module")
def forest(bundle: Bundle) -> bytes:
    return bundle.content[MODEL]


def changed(model: bytes, change: Callable[[onnx.ModelProto, dict[str, Any]], object]) -> bytes:
    """Apply a change to a model whose single node's attributes are given by name."""
    proto = onnx.load_from_string(model)
    change(proto, {item.name: item for item in proto.graph.node[0].attribute})
    return proto.SerializeToString()


def with_model(bundle: Bundle, model: bytes) -> Bundle:
    return Bundle(
        bundle.path, bundle.manifest, bundle.schema, bundle.sha256, {**bundle.content, MODEL: model}
    )


def test_forest_arrays_equal_the_official_readers(forest: bytes) -> None:
    graph = read_graph(forest, "x")
    assert isinstance(graph, ForestGraph)
    node = onnx.load_from_string(forest).graph.node[0]
    official = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    assert graph.threshold.tolist() == list(official["nodes_values"])
    assert graph.missing_true.tolist() == [
        bool(x) for x in official["nodes_missing_value_tracks_true"]
    ]
    inner = graph.feature >= 0
    assert inner.tolist() == [mode == b"BRANCH_LEQ" for mode in official["nodes_modes"]]
    assert graph.leaf[~inner].tolist() == list(official["target_weights"])
    assert graph.base == official["base_values"][0]
    assert len(graph.roots) == 10


def test_linear_arrays_come_back() -> None:
    model = LinearModel(np.array([0.5, -1e-9, 3.0]), -7.25, np.array([np.nan, 2, 0], np.float32))
    graph = read_graph(linear_graph(model), "x")
    assert isinstance(graph, LinearGraph)
    assert graph.coefficients.tolist() == model.coefficients.tolist()
    assert graph.intercept == -7.25
    assert np.array_equal(graph.fill, model.fill, equal_nan=True)


def test_a_linear_graph_with_a_twist_is_not_taken_for_ours() -> None:
    model = LinearModel(np.array([1.0, 2.0]), 0.5, np.full(2, np.nan, np.float32))
    proto = onnx.load_from_string(linear_graph(model))
    proto.graph.node[2].input[0] = "intercept"  # adds the intercept to itself
    assert isinstance(read_graph(proto.SerializeToString(), "x"), OpaqueGraph)


@pytest.mark.parametrize(
    "change",
    [
        lambda _, a: a["post_transform"].__setattr__("s", b"LOGISTIC"),
        lambda _, a: a["aggregate_function"].__setattr__("s", b"MAX"),
        lambda _, a: a["nodes_modes"].strings.__setitem__(0, b"BRANCH_LT"),
        lambda m, _: m.opset_import[1].__setattr__("version", 5),
    ],
)
def test_other_ensembles_are_left_to_onnxruntime(
    forest: bytes, change: Callable[[onnx.ModelProto, dict[str, Any]], object]
) -> None:
    assert isinstance(read_graph(changed(forest, change), "x"), OpaqueGraph)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _, a: a["nodes_truenodeids"].ints.__setitem__(0, 0), "parents before children"),
        (lambda _, a: a["nodes_truenodeids"].ints.__setitem__(0, 999), "not there"),
        (lambda _, a: a["nodes_featureids"].ints.__setitem__(0, 6), "outside 0..5"),
        (lambda _, a: a["nodes_nodeids"].ints.__setitem__(1, 0), "same tree and node id"),
        (lambda _, a: a["nodes_values"].floats.pop(), "nodes_values holds"),
        (lambda _, a: a["target_weights"].floats.pop(), "target weights"),
        (lambda _, a: a["target_nodeids"].ints.__setitem__(0, 0), "target weights"),
        (lambda _, a: a["base_values"].floats.append(1.0), "base_values holds 2"),
        (lambda _, a: a["nodes_treeids"].ints.__setitem__(0, -1), "out of range"),
    ],
)
def test_broken_trees_are_refused(
    forest: bytes, change: Callable[[onnx.ModelProto, dict[str, Any]], object], words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        read_graph(changed(forest, change), "x")


def two_inputs() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])],
        "two",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 6]) for n in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [None, 6])],
    )
    return helper.make_model(graph).SerializeToString()


def a_classifier() -> bytes:
    data = make_data(200)
    model = LogisticRegression().fit(data.x, data.y)
    return bytes(to_onnx(model, data.x[:1], options={"zipmap": False}).SerializeToString())


def external(tensor: TensorProto) -> TensorProto:
    """Let a tensor point to a file, as onnx's own external data does."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def weights_in_a_file() -> bytes:
    linear = linear_graph(LinearModel(np.ones(6), 0.0, np.full(6, np.nan, np.float32)))
    model = onnx.load_model_from_string(linear)
    external(model.graph.initializer[0])
    return bytes(model.SerializeToString())


def a_branch_with_weights_in_a_file() -> bytes:
    model = onnx.load_model_from_string(weights_in_a_file())
    hidden = model.graph.initializer.pop(0)
    inner = helper.make_graph([], "inner", [], [], initializer=[hidden])
    model.graph.node[0].attribute.append(helper.make_attribute("then_branch", inner))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (weights_in_a_file, "is kept in another file"),
        (a_branch_with_weights_in_a_file, "is kept in another file"),
        (lambda: b"", "not an ONNX model"),
        (lambda: b"\x00garbage\xff" * 20, "not an ONNX model"),
        (lambda: Path(__file__).read_bytes(), "not an ONNX model"),
        (two_inputs, "one input is needed, the graph has 2"),
        (a_classifier, "a classifier's label"),
    ],
)
def test_foreign_files_are_refused(bundle: Bundle, make: Callable[[], bytes], words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        load_model(with_model(bundle, make()))
    assert MODEL in str(caught.value)


def test_graphs_that_do_not_fit_the_schema_or_the_runtime(bundle: Bundle, forest: bytes) -> None:
    linear = linear_graph(LinearModel(np.ones(3), 0.0, np.full(3, np.nan, np.float32)))
    with pytest.raises(BundleError, match="takes 3 features, the schema has 6"):
        load_model(with_model(bundle, linear))
    future = changed(forest, lambda m, _: m.opset_import[0].__setattr__("version", 999))
    with pytest.raises(BundleError, match=r"999|opset|onnxruntime"):
        load_model(with_model(bundle, future))
    # Shortened anywhere, the bytes are refused, never half read.
    for size in np.linspace(1, len(forest) - 1, 25).astype(int):
        with pytest.raises(BundleError):
            load_model(with_model(bundle, forest[:size]))
