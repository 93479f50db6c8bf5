"""The arrays of a forest, and the proof that they are trees.

Rules: plain numpy, no loop over nodes; whatever the arrays hold, it ends, and with a ModelError
that names the tree and the node. `trace` walks all trees one level at a time: no node may be
shared, left over or part of a cycle. `quantize_leaves` looks for the coarsest power of two of which
all leaves are whole multiples: sums of such leaves are exact in any order.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastpath.errors import ModelError

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

MAX_FEATURES = 1024
MAX_NODES = 1 << 28  # 2 GiB of packed nodes
MAX_TREES = 1 << 20
MAX_LEVELS = 4096
EXACT_UNITS = 1 << 24  # float32 holds every whole number up to here


class Trees(NamedTuple):
    """The arrays of a forest, checked for type and length only. N nodes, T trees."""

    n_features: int
    roots: Int32  # [T]
    feature: Int32  # [N], -1: a leaf
    threshold: Float32  # [N]
    true_child: Int32  # [N]
    false_child: Int32  # [N]
    missing_true: Bools  # [N]
    leaf: Float32  # [N]
    base: float


class Trace(NamedTuple):
    """Where every node is."""

    levels: list[Ints]  # nodes by depth; levels[0] are the roots, in tree order
    tree: Ints  # [N]
    depth: Ints  # [T], of the deepest leaf
    n_leaves: Ints  # [T]


def trace(trees: Trees) -> Trace:
    """Prove that every node belongs to exactly one tree.

    Raises
    ------
    ModelError
        A root, child or feature is out of range, a node is shared, left over or in a cycle, a
        threshold is NaN, a leaf is not finite, or a tree is deeper than MAX_LEVELS.
    """
    n_nodes, n_trees = len(trees.feature), len(trees.roots)
    _check_nodes(trees)
    tree = np.full(n_nodes, -1, dtype=np.int64)
    depth = np.zeros(n_trees, dtype=np.int64)
    n_leaves = np.zeros(n_trees, dtype=np.int64)
    levels: list[Ints] = []
    level, owner = trees.roots.astype(np.int64), np.arange(n_trees, dtype=np.int64)
    while len(level):
        if len(levels) > MAX_LEVELS:
            raise ModelError(
                f"tree {owner[0]} is deeper than {MAX_LEVELS} levels (node {level[0]}); "
                "limit max_depth when training"
            )
        # A node met before, or twice in this level, has two parents: shared, or a cycle.
        order = np.argsort(level, kind="stable")
        again = tree[level] >= 0
        again[order[1:]] |= level[order[1:]] == level[order[:-1]]
        if again.any():
            i = int(np.argmax(again))
            raise ModelError(
                f"tree {owner[i]}, node {level[i]}: reached twice (a cycle, or a node that is "
                "shared between parents); every node must have one parent"
            )
        tree[level] = owner
        depth[owner] = len(levels)
        levels.append(level)
        inner = trees.feature[level] >= 0
        np.add.at(n_leaves, owner[~inner], 1)
        parents, owners = level[inner], owner[inner]
        level = np.stack([trees.true_child[parents], trees.false_child[parents]], axis=1)
        level = level.astype(np.int64).ravel()
        owner = np.repeat(owners, 2)
    if (tree < 0).any():
        raise ModelError(
            f"node {int(np.argmax(tree < 0))} belongs to no tree; "
            "every node must be reached from a root"
        )
    return Trace(levels, tree, depth, n_leaves)


def _check_nodes(trees: Trees) -> None:
    """Ranges of everything, node by node; says which node."""
    n_nodes = len(trees.feature)
    outside = (trees.roots < 0) | (trees.roots >= n_nodes)
    if outside.any():
        i = int(np.argmax(outside))
        raise ModelError(
            f"tree {i}: its root, node {trees.roots[i]}, is not one of {n_nodes} nodes"
        )
    inner = trees.feature >= 0

    def refuse(bad: Bools, what: str) -> None:
        if bad.any():
            node = int(np.argmax(bad))
            raise ModelError(f"{_place(trees, node)}: {what.format(node=node)}")

    bad = (trees.feature < -1) | (trees.feature >= trees.n_features)
    refuse(bad, f"its feature is not -1 (a leaf) and not below {trees.n_features}")
    for side, child in (("true", trees.true_child), ("false", trees.false_child)):
        refuse(
            inner & ((child < 0) | (child >= n_nodes)),
            f"its {side} child is not one of {n_nodes} nodes",
        )
    refuse(inner & np.isnan(trees.threshold), "its threshold is NaN, which compares with nothing")
    refuse(~inner & ~np.isfinite(trees.leaf), "its leaf value is not finite")


def _place(trees: Trees, node: int) -> str:
    """`tree 3, node 17`; the tree by climbing to a root, which a broken forest may not have."""
    n_nodes = len(trees.feature)
    parent = np.full(n_nodes, -1, dtype=np.int64)
    for child in (trees.true_child, trees.false_child):
        usable = np.flatnonzero((trees.feature >= 0) & (child >= 0) & (child < n_nodes))
        parent[child[usable]] = usable
    position = node
    for _ in range(MAX_LEVELS):
        roots = np.flatnonzero(trees.roots == position)
        if len(roots):
            return f"tree {roots[0]}, node {node}"
        position = int(parent[position])
        if position < 0:
            break
    return f"node {node} (in no tree)"


def thresholds_by_feature(trees: Trees) -> list[Float32]:
    """Sorted distinct thresholds of every feature (-0.0 and 0.0 are one)."""
    inner = trees.feature >= 0
    feature, threshold = trees.feature[inner], trees.threshold[inner]
    order = np.lexsort((threshold, feature))
    feature, threshold = feature[order], threshold[order]
    bounds = np.searchsorted(feature, np.arange(trees.n_features + 1))
    return [np.unique(threshold[a:b]) for a, b in pairwise(bounds)]


def quantize_leaves(trees: Trees, traced: Trace) -> tuple[Ints, int] | None:
    """Leaves as whole multiples of 2**-k, if their sums stay below 2**24 units.

    Returns
    -------
    (units, k) or None
        `units` is int64 [N], 0 for inner nodes. None: the leaves are on no such grid.
    """
    is_leaf = trees.feature < 0
    values = np.where(is_leaf, trees.leaf, np.float32(0)).astype(np.float64)
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 24).astype(np.int64)  # exact: a float32 has 24 bits
    used = whole != 0
    low_bit = np.log2(np.where(used, whole & -whole, 1)).astype(np.int64)
    k = int(max(0, np.max((24 - exponent - low_bit)[used], initial=0)))
    scaled = np.ldexp(values, k)
    largest = np.zeros(len(trees.roots))
    np.maximum.at(largest, traced.tree, np.abs(scaled))
    if largest.sum() > EXACT_UNITS:
        return None
    return scaled.astype(np.int64), k
