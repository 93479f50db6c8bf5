"""Random forests and the stock ONNX graph of the same arrays: for benchmarks and tests.

Trees grow as boosting grows them at their largest (perfect), as leaf-wise growth does (uneven), or
as no trainer would (chains): what a kernel must stand. Leaves lie on a dyadic grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

Arrays = dict[str, Any]


class Builder:
    """Collects nodes of trees, in the order of their making."""

    def __init__(
        self, rng: np.random.Generator, n_features: int, pool: NDArray[np.float32]
    ) -> None:
        self.rng = rng
        self.n_features = n_features
        self.pool = pool  # thresholds to draw from
        self.nodes: list[list[Any]] = []
        self.roots: list[int] = []
        self.missing: str = "random"  # "random" | "true" | "false"
        self.units = 1 << 12
        self.k = 10

    def _node(self) -> int:
        self.nodes.append([-1, 0.0, 0, 0, False, 0.0])
        return len(self.nodes) - 1

    def leaf(self) -> int:
        """Add a leaf; every builder returns the new node's place."""
        at = self._node()
        self.nodes[at][5] = float(self.rng.integers(-self.units, self.units + 1)) / 2.0**self.k
        return at

    def split(self, left: int, right: int) -> int:
        """Add a node above two others."""
        at = self._node()
        missing = {"true": True, "false": False}.get(self.missing, bool(self.rng.integers(2)))
        feature = int(self.rng.integers(self.n_features))
        self.nodes[at][:5] = [feature, float(self.rng.choice(self.pool)), left, right, missing]
        return at

    def perfect(self, depth: int) -> int:
        """Grow a tree whose leaves all lie at one depth."""
        if depth == 0:
            return self.leaf()
        return self.split(self.perfect(depth - 1), self.perfect(depth - 1))

    def uneven(self, n_leaves: int) -> int:
        """Grow a tree by splitting a random piece, as leaf-wise growth does."""
        if n_leaves == 1:
            return self.leaf()
        left = int(self.rng.integers(1, n_leaves))
        return self.split(self.uneven(left), self.uneven(n_leaves - left))

    def chain(self, depth: int) -> int:
        """Grow a tree in which every node has a leaf: as deep as its leaves are many."""
        at = self.leaf()
        for _ in range(depth):
            other = self.leaf()
            at = self.split(at, other) if self.rng.integers(2) else self.split(other, at)
        return at

    def arrays(self, base: float = 0.0) -> Arrays:
        """Return Forest's arguments, nodes shuffled so that no order is presumed."""
        order = self.rng.permutation(len(self.nodes))
        place = np.argsort(order)
        columns = list(zip(*(self.nodes[i] for i in order), strict=True))
        feature = np.array(columns[0], dtype=np.int32)
        inner = feature >= 0
        return {
            "n_features": self.n_features,
            "roots": place[self.roots].astype(np.int32),
            "feature": feature,
            "threshold": np.array(columns[1], dtype=np.float32),
            "true_child": np.where(inner, place[list(columns[2])], 0).astype(np.int32),
            "false_child": np.where(inner, place[list(columns[3])], 0).astype(np.int32),
            "missing_true": np.array(columns[4], dtype=bool),
            "leaf": np.array(columns[5], dtype=np.float32),
            "base": base,
        }


def perfect_forest(
    seed: int, n_trees: int, depth: int, n_features: int, missing: str = "random"
) -> Arrays:
    """Trees as boosting makes them at their largest."""
    rng = np.random.default_rng(seed)
    builder = Builder(rng, n_features, rng.normal(size=20_000).astype(np.float32))
    builder.missing = missing
    builder.roots = [builder.perfect(depth) for _ in range(n_trees)]
    return builder.arrays(base=0.5)


def onnx_forest(arrays: Arrays) -> bytes:
    """Serialize a TreeEnsembleRegressor of the same trees."""
    tree_of = np.full(len(arrays["feature"]), -1)
    node_of = np.zeros(len(arrays["feature"]), dtype=int)
    lists: dict[str, list[Any]] = {
        name: []
        for name in (
            "treeids",
            "nodeids",
            "featureids",
            "modes",
            "values",
            "truenodeids",
            "falsenodeids",
            "missing_value_tracks_true",
            "hitrates",
        )
    }
    targets: list[tuple[int, int, float]] = []
    for tree, root in enumerate(arrays["roots"]):
        order: list[int] = []
        stack = [int(root)]
        while stack:
            node = stack.pop()
            node_of[node], tree_of[node] = len(order), tree
            order.append(node)
            if arrays["feature"][node] >= 0:
                stack += [int(arrays["false_child"][node]), int(arrays["true_child"][node])]
        for node in order:
            is_leaf = arrays["feature"][node] < 0
            lists["treeids"].append(tree)
            lists["nodeids"].append(int(node_of[node]))
            lists["featureids"].append(0 if is_leaf else int(arrays["feature"][node]))
            lists["modes"].append("LEAF" if is_leaf else "BRANCH_LEQ")
            lists["values"].append(0.0 if is_leaf else float(arrays["threshold"][node]))
            for name in ("true", "false"):
                child = 0 if is_leaf else int(node_of[arrays[f"{name}_child"][node]])
                lists[f"{name}nodeids"].append(child)
            missing = 0 if is_leaf else int(arrays["missing_true"][node])
            lists["missing_value_tracks_true"].append(missing)
            lists["hitrates"].append(1.0)
            if is_leaf:
                targets.append((tree, int(node_of[node]), float(arrays["leaf"][node])))
    attributes: dict[str, Any] = {f"nodes_{name}": values for name, values in lists.items()}
    regressor = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["raw"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[float(arrays["base"])],
        target_treeids=[t[0] for t in targets],
        target_nodeids=[t[1] for t in targets],
        target_ids=[0] * len(targets),
        target_weights=[t[2] for t in targets],
        **attributes,
    )
    return one_node_model([regressor], arrays["n_features"])


def one_node_model(nodes: list[onnx.NodeProto], n_features: int, **initializers: Any) -> bytes:
    """Wrap nodes from x [N, F] to raw [N, 1] into a model, serialized."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, n_features])],
        [helper.make_tensor_value_info("raw", TensorProto.FLOAT, [None, 1])],
        [onnx.numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return bytes(model.SerializeToString())


def stock_scores(model: bytes, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Raw scores of the stock onnxruntime Python package, one row per run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [session.run(None, {name: row[None]})[0] for row in rows]
    return np.concatenate([np.asarray(o, dtype=np.float32).reshape(-1) for o in outputs])


def hard_rows(arrays: Arrays, rng: np.random.Generator, n_rows: int) -> NDArray[np.float32]:
    """Rows of thresholds, their neighbours, NaN, infinities, zeros of both signs and noise."""
    inner = arrays["feature"] >= 0
    thresholds = arrays["threshold"][inner] if inner.any() else np.zeros(1, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        pool = np.concatenate(
            [
                thresholds,
                np.nextafter(thresholds, np.float32(np.inf)),
                np.nextafter(thresholds, np.float32(-np.inf)),
            ]
        ).astype(np.float32)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype=np.float32)
    shape = (n_rows, arrays["n_features"])
    rows = rng.choice(pool, size=shape)
    noise = rng.random(shape)
    rows = np.where(noise < 0.15, rng.choice(special, size=shape), rows)
    rows = np.where(noise > 0.7, rng.normal(size=shape).astype(np.float32), rows)
    return np.ascontiguousarray(rows, dtype=np.float32)
