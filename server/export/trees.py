"""Trees as arrays: the one form between scikit-learn's families and the ONNX graph.

All trees of an ensemble lie in one set of arrays. A node's children come after it, the nodes of a
tree are contiguous, and a tree's root is its first node. `x <= threshold` goes to the true child;
NaN goes there iff `missing_true`. The raw score of a row is `base` plus the sum of its leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
Int32Array = NDArray[np.int32]


@dataclass(frozen=True)
class Trees:
    """An ensemble of T trees and N nodes; see the module's docstring for the rules."""

    roots: Int32Array  # [T], ascending
    feature: Int32Array  # [N], -1: leaf
    threshold: Float64Array  # [N], 0 at leaves
    true_child: Int32Array  # [N], 0 at leaves
    false_child: Int32Array  # [N], 0 at leaves
    missing_true: NDArray[np.bool_]  # [N]
    leaf: Float64Array  # [N], contribution to the raw score, 0 at inner nodes
    base: float

    @property
    def n_trees(self) -> int:
        """Return T."""
        return len(self.roots)

    @property
    def is_leaf(self) -> NDArray[np.bool_]:
        """Return which nodes are leaves, shape (N,)."""
        return self.feature < 0

    def tree_of_node(self) -> Int32Array:
        """Return the index of each node's tree, shape (N,)."""
        sizes = np.diff([*self.roots.tolist(), len(self.feature)])
        return np.repeat(np.arange(self.n_trees, dtype=np.int32), sizes)

    def max_depth(self) -> int:
        """Return the number of splits on the longest path."""
        depth = np.zeros(len(self.feature), np.int64)
        inner = np.flatnonzero(~self.is_leaf)
        for node in inner.tolist():  # parents come before their children
            below = depth[node] + 1
            depth[self.true_child[node]] = below
            depth[self.false_child[node]] = below
        return int(depth.max(initial=0))

    def apply(self, rows: NDArray[np.float32]) -> Int32Array:
        """Return the leaf that each row reaches in each tree.

        Parameters
        ----------
        rows : array of float32, shape (n_rows, n_features)

        Returns
        -------
        numpy.ndarray of int32, shape (n_rows, T)
            Positions in the node arrays.
        """
        out = np.empty((len(rows), self.n_trees), np.int32)
        for tree, root in enumerate(self.roots.tolist()):
            at = np.full(len(rows), root, np.int32)
            active = np.flatnonzero(self.feature[at] >= 0)
            while len(active):
                node = at[active]
                x = rows[active, self.feature[node]].astype(np.float64)
                true = np.where(np.isnan(x), self.missing_true[node], x <= self.threshold[node])
                at[active] = np.where(true, self.true_child[node], self.false_child[node])
                active = active[self.feature[at[active]] >= 0]
            out[:, tree] = at
        return out

    def with_arrays(self, **arrays: Any) -> Trees:
        """Return a copy with some arrays replaced."""
        return replace(self, **arrays)


def join(parts: Sequence[dict[str, NDArray[Any]]], base: float) -> Trees:
    """Join single trees, each with node numbers of its own, into one ensemble.

    Parameters
    ----------
    parts : sequence of dict
        Per tree: feature, threshold, true_child, false_child, missing_true, leaf; a leaf has
        feature -1.
    base : float
        What is added to the sum of the leaves.
    """
    sizes = [len(part["feature"]) for part in parts]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    feature = np.concatenate([part["feature"] for part in parts]).astype(np.int32)
    is_leaf = feature < 0

    def children(name: str) -> Int32Array:
        shifted = [p[name].astype(np.int64) + root for p, root in zip(parts, roots, strict=True)]
        return np.where(is_leaf, 0, np.concatenate(shifted)).astype(np.int32)

    def values(name: str, keep: NDArray[np.bool_]) -> Float64Array:
        return np.where(keep, np.concatenate([part[name] for part in parts]), 0.0)

    missing = np.concatenate([part["missing_true"] for part in parts]).astype(np.bool_)
    return Trees(
        roots=roots,
        feature=feature,
        threshold=values("threshold", ~is_leaf),
        true_child=children("true_child"),
        false_child=children("false_child"),
        missing_true=missing & ~is_leaf,
        leaf=values("leaf", is_leaf),
        base=base,
    )
