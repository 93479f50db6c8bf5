"""Uneven trees of up to 32 leaves as leaf masks, for the kernel that compares 64 trees at once.

Rules: plain numpy, nothing here runs while scoring. Every inner node of a tree gets a mask of the
leaves that are left when its answer is false: all but those below its true child. The leaf that a
row ends in is the leftmost one that all false nodes leave (QuickScorer, Lucchese et al., SIGIR
2015): no walk, no branch, and the order of the nodes does not matter. Leaf 0 is bit 31.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastpath.forest_trees import Bools, Ints, Trace, Trees

MAX_LEAVES = 32
GROUP = 64  # trees of one comparison


class Masks(NamedTuple):
    """Groups of 64 trees, each `n_rows` nodes a tree; [n_groups, n_rows, 64] but `leaf`."""

    n_groups: int
    n_rows: int
    slot: NDArray[np.uint8]
    cut: NDArray[np.uint8]  # 255 in the padding: no bin is above it
    mask: NDArray[np.uint32]
    leaf: NDArray[np.signedinteger[Any]]  # [n_groups * 64, 32]


def pack_masks(
    trees: Trees, traced: Trace, chosen: Bools, slot: Ints, cut: Ints, units: Ints, wide: bool
) -> Masks:
    """Pack the chosen trees (bool [T], each of at most MAX_LEAVES leaves)."""
    inner = trees.feature >= 0
    n_leaves = (~inner).astype(np.int64)
    for level in reversed(traced.levels):
        parents = level[inner[level]]
        n_leaves[parents] = n_leaves[trees.true_child[parents]]
        n_leaves[parents] += n_leaves[trees.false_child[parents]]
    first = np.zeros(len(inner), dtype=np.int64)  # leftmost leaf below a node
    for level in traced.levels:
        parents = level[inner[level]]
        first[trees.true_child[parents]] = first[parents]
        first[trees.false_child[parents]] = first[parents] + n_leaves[trees.true_child[parents]]
    # Trees are numbered among the chosen, inner nodes within their tree.
    number = np.cumsum(chosen) - 1
    nodes = np.flatnonzero(inner & chosen[traced.tree])
    nodes = nodes[np.argsort(traced.tree[nodes], kind="stable")]
    tree = number[traced.tree[nodes]]
    counts = np.bincount(tree, minlength=int(chosen.sum()))
    row = np.arange(len(nodes)) - np.repeat(np.cumsum(counts) - counts, counts)
    n_groups = -(-int(chosen.sum()) // GROUP)
    n_rows = int(counts.max())
    shape = (n_groups, n_rows, GROUP)
    at = (tree // GROUP, row, tree % GROUP)
    out = Masks(
        n_groups,
        n_rows,
        slot=np.zeros(shape, dtype=np.uint8),
        cut=np.full(shape, 255, dtype=np.uint8),
        mask=np.full(shape, 0xFFFFFFFF, dtype=np.uint32),
        leaf=np.zeros((n_groups * GROUP, MAX_LEAVES), dtype=np.int32 if wide else np.int16),
    )
    out.slot[at] = slot[nodes]
    out.cut[at] = cut[nodes]
    gone = n_leaves[trees.true_child[nodes]]
    block = (np.left_shift(1, gone) - 1) << (MAX_LEAVES - first[nodes] - gone)
    out.mask[at] = 0xFFFFFFFF ^ block
    leaves = np.flatnonzero(~inner & chosen[traced.tree])
    out.leaf[number[traced.tree[leaves]], first[leaves]] = units[leaves]
    return out
