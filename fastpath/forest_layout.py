"""From the arrays of a forest to the packed form that the kernels walk.

Rules: plain numpy, no loop over nodes; whatever the arrays hold, it ends, and with a ModelError that
names the tree and the node. Nothing here runs while scoring.

How it works. `trace` walks all trees one level at a time, which proves that they are trees (no node is
shared, left over or part of a cycle) and tells each node's tree and depth. `quantize_leaves` looks
for the coarsest power of two of which all leaves are whole multiples. `pack` then gives each tree
to the perfect heaps of its depth or to the pre-order nodes; `forest_kernels.h` describes both forms and
why their sums are exact.

It does not look at how a forest was made: two exports of the same trees give the same arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastpath.errors import ModelError

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
ArrayT = TypeVar("ArrayT", bound=NDArray[Any])

MAX_FEATURES = 1024
MAX_NODES = 1 << 28  # 2 GiB of packed nodes
MAX_TREES = 1 << 20
MAX_LEVELS = 4096
MAX_OFFSET = (1 << 21) - 1  # of a false child, in a packed node
LANES = 8
MIN_HEAP_DEPTH = 3
MAX_HEAP_DEPTH = 8
MAX_SLOTS = 256
CHUNK = 255  # thresholds that one byte can rank
BLOCK = 16  # thresholds that one search step compares
NO_SLOT = 256
NAN_FALSE = 255
# A tree becomes a heap if that has at most this many times the entries of its leaves; up to
# depth 6 always: 64 entries cost less than the branches of an uneven tree.
ALWAYS_HEAP_DEPTH = 6
HEAP_PADDING = 4
EXACT_UNITS = 1 << 24  # float32 holds every whole number up to here

SEARCH = np.dtype(
    [
        ("offset", np.uint32),
        ("feature", np.uint16),
        ("second", np.uint16),
        ("nan_first", np.uint8),
        ("nan_second", np.uint8),
        ("reserved", np.uint16),
    ]
)
COPY = np.dtype([("feature", np.uint16), ("nan_low", np.uint16)])
NODE = np.dtype([("bits", np.uint32), ("link", np.uint32)])


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


class Heaps(NamedTuple):
    """The perfect heaps of one depth."""

    depth: int
    n_trees: int  # with padding
    slot: NDArray[np.uint8]
    cut: NDArray[np.uint8]
    leaf: NDArray[np.signedinteger[Any]]


class Packed(NamedTuple):
    """The arrays of a `forest_t`."""

    exact: bool
    wide: bool
    scale: float
    base: float
    n_slots: int
    searches: NDArray[np.void]
    thresholds: Float32  # aligned to 64 bytes
    heaps: list[Heaps]
    copies: NDArray[np.void]
    nodes: NDArray[np.void]
    roots: NDArray[np.uint32]

    @property
    def resident_bytes(self) -> int:
        """Bytes of all arrays together."""
        arrays = [self.searches, self.thresholds, self.copies, self.nodes, self.roots]
        arrays += [a for h in self.heaps for a in (h.slot, h.cut, h.leaf)]
        return sum(a.nbytes for a in arrays)


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
        n_leaves += np.bincount(owner[~inner], minlength=n_trees)
        parents, owners = level[inner], owner[inner]
        level = np.stack([trees.true_child[parents], trees.false_child[parents]], axis=1)
        level = level.astype(np.int64).ravel()
        owner = np.repeat(owners, 2)
    if (tree < 0).any():
        raise ModelError(
            f"node {int(np.argmax(tree < 0))} belongs to no tree; every node must be reached from a root"
        )
    return Trace(levels, tree, depth, n_leaves)


def _check_nodes(trees: Trees) -> None:
    """Ranges of everything, node by node; says which node."""
    n_nodes = len(trees.feature)
    outside = (trees.roots < 0) | (trees.roots >= n_nodes)
    if outside.any():
        i = int(np.argmax(outside))
        raise ModelError(f"tree {i}: its root, node {trees.roots[i]}, is not one of {n_nodes} nodes")
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
    position = node
    for _ in range(MAX_LEVELS):
        roots = np.flatnonzero(trees.roots == position)
        if len(roots):
            return f"tree {roots[0]}, node {node}"
        inner = trees.feature >= 0
        is_parent = inner & ((trees.true_child == position) | (trees.false_child == position))
        if not is_parent.any():
            break
        position = int(np.argmax(is_parent))
    return f"node {node} (in no tree)"


def thresholds_by_feature(trees: Trees) -> list[Float32]:
    """Sorted distinct thresholds of every feature (-0.0 and 0.0 are one)."""
    inner = trees.feature >= 0
    feature, threshold = trees.feature[inner], trees.threshold[inner]
    order = np.lexsort((threshold, feature))
    feature, threshold = feature[order], threshold[order]
    bounds = np.searchsorted(feature, np.arange(trees.n_features + 1))
    return [
        np.unique(threshold[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    ]


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


def pack(trees: Trees, traced: Trace, thresholds: list[Float32]) -> Packed:
    """Choose each tree's form and make all arrays."""
    grid = quantize_leaves(trees, traced)
    padded = np.left_shift(1, np.maximum(traced.depth, MIN_HEAP_DEPTH).clip(max=62))
    is_heap = (traced.depth <= MAX_HEAP_DEPTH) & (
        (traced.depth <= ALWAYS_HEAP_DEPTH) | (padded <= HEAP_PADDING * traced.n_leaves)
    )
    # Heaps add their leaves in no particular order: only whole numbers may be added so.
    if grid is None:
        is_heap[:] = False
    searches, first_threshold, node_slot, node_cut = _searches(trees, traced, thresholds, is_heap)
    n_slots = int(max(node_slot.max(initial=0) + 1, 1))
    if n_slots > MAX_SLOTS:
        is_heap[:] = False
        searches, first_threshold = searches[:0], first_threshold[:0]
    heaps: list[Heaps] = []
    wide = False
    if grid is not None:
        leaves = grid[0][is_heap[traced.tree]]
        wide = bool(leaves.size and (leaves.min() < -32768 or leaves.max() > 32767))
        kind = np.int32 if wide else np.int16
        levels = np.maximum(traced.depth, MIN_HEAP_DEPTH)
        for depth in np.unique(levels[is_heap]):
            members = np.flatnonzero(is_heap & (levels == depth))
            heaps.append(_heaps(trees, members, int(depth), node_slot, node_cut, grid[0], kind))
    copies, nodes, roots = _nodes(trees, traced, ~is_heap, grid)
    return Packed(
        exact=grid is not None,
        wide=wide,
        scale=1.0 if grid is None else float(np.ldexp(np.float32(1), -grid[1])),
        base=trees.base,
        n_slots=n_slots,
        searches=searches,
        thresholds=first_threshold,
        heaps=heaps,
        copies=copies,
        nodes=nodes,
        roots=roots,
    )


def _searches(
    trees: Trees, traced: Trace, thresholds: list[Float32], is_heap: Bools
) -> tuple[NDArray[np.void], Float32, Ints, Ints]:
    """The searches that the heaps need; slot and cut of every inner node of a heap."""
    chosen = np.flatnonzero((trees.feature >= 0) & is_heap[traced.tree])
    rank = np.zeros(len(chosen), dtype=np.int64)
    for feature in np.unique(trees.feature[chosen]):
        at = trees.feature[chosen] == feature
        rank[at] = np.searchsorted(thresholds[feature], trees.threshold[chosen[at]])
    key = np.stack([trees.feature[chosen], rank // CHUNK], axis=1)
    keys, search = np.unique(key, axis=0, return_inverse=True)
    search = search.reshape(-1)
    n = len(keys)
    low = trees.missing_true[chosen]
    has_low = np.bincount(search[low], minlength=n) > 0
    has_high = np.bincount(search[~low], minlength=n) > 0
    both = has_low & has_high
    searches = np.zeros(n, dtype=SEARCH)
    searches["feature"] = keys[:, 0]
    # The first slot is the false direction's, unless the search has only the other one.
    searches["nan_first"] = np.where(has_high, NAN_FALSE, 0)
    second = np.full(n, NO_SLOT, dtype=np.int64)
    second[both] = n + np.arange(int(both.sum()))
    searches["second"] = np.minimum(second, 65535)
    slot = np.where(low & both[search], second[search], search)

    blocks = []
    offset = 0
    for i, (feature, chunk) in enumerate(keys):
        values = thresholds[feature][chunk * CHUNK : (chunk + 1) * CHUNK]
        searches["offset"][i] = offset
        blocks.append(_blocks(values))
        offset += len(blocks[-1])
    node_slot = np.zeros(len(trees.feature), dtype=np.int64)
    node_cut = np.zeros(len(trees.feature), dtype=np.int64)
    node_slot[chosen] = slot
    node_cut[chosen] = rank % CHUNK
    flat = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    return searches, aligned(flat), node_slot, node_cut


def _blocks(values: Float32) -> Float32:
    """Sixteen pivots, then blocks of sixteen; padded with +inf, which is below nothing."""
    n_blocks = len(values) // BLOCK + 1
    out = np.full(BLOCK * (1 + n_blocks), np.inf, dtype=np.float32)
    out[BLOCK : BLOCK + len(values)] = values
    out[: n_blocks - 1] = values[BLOCK - 1 :: BLOCK]
    return out


def _heaps(
    trees: Trees,
    members: Ints,
    depth: int,
    node_slot: Ints,
    node_cut: Ints,
    units: Ints,
    kind: type[np.signedinteger[Any]],
) -> Heaps:
    """Perfect heaps of these trees; a leaf above the last level is repeated below."""
    n, n_padded = len(members), -(-len(members) // LANES) * LANES
    slot = np.zeros((n_padded, 1 << depth), dtype=np.uint8)
    cut = np.zeros_like(slot)
    leaf = np.zeros((n_padded, 1 << depth), dtype=kind)
    level = trees.roots[members].astype(np.int64)[:, None]
    for i in range(depth):
        place = slice(1 << i, 2 << i)
        inner = trees.feature[level] >= 0
        slot[:n, place] = np.where(inner, node_slot[level], 0)
        cut[:n, place] = np.where(inner, node_cut[level], 0)
        true = np.where(inner, trees.true_child[level], level)
        false = np.where(inner, trees.false_child[level], level)
        level = np.stack([true, false], axis=2).reshape(n, -1)
    leaf[:n] = units[level]
    return Heaps(depth, n_padded, aligned(slot.ravel()), aligned(cut.ravel()), aligned(leaf.ravel()))


def _nodes(
    trees: Trees, traced: Trace, is_deep: Bools, grid: tuple[Ints, int] | None
) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.uint32]]:
    """Pre-order nodes of the other trees, in tree order, and a zero leaf that pads the lanes."""
    in_deep = is_deep[traced.tree]
    if not in_deep.any():
        return np.zeros(0, COPY), np.zeros(0, NODE), np.zeros(0, np.uint32)
    inner = trees.feature >= 0
    size = np.ones(len(inner), dtype=np.int64)
    for level in reversed(traced.levels):
        parents = level[inner[level]]
        size[parents] += size[trees.true_child[parents]] + size[trees.false_child[parents]]
    position = np.zeros(len(inner), dtype=np.int64)
    deep_roots = trees.roots[is_deep]
    position[deep_roots] = np.cumsum(size[deep_roots]) - size[deep_roots]
    for level in traced.levels:
        parents = level[inner[level] & in_deep[level]]
        position[trees.true_child[parents]] = position[parents] + 1
        position[trees.false_child[parents]] = (
            position[parents] + 1 + size[trees.true_child[parents]]
        )
    chosen = np.flatnonzero(in_deep)
    branches = np.flatnonzero(in_deep & inner)
    offset = np.zeros(len(inner), dtype=np.int64)
    offset[branches] = position[trees.false_child[branches]] - position[branches]
    if (offset > MAX_OFFSET).any():
        node = int(np.argmax(offset > MAX_OFFSET))
        raise ModelError(
            f"tree {traced.tree[node]}, node {node}: {offset[node] - 1} nodes below its true child, at "
            f"most {MAX_OFFSET - 1} are supported; limit max_leaf_nodes when training"
        )
    wanted, copy = np.unique(
        2 * trees.feature[branches].astype(np.int64) + trees.missing_true[branches],
        return_inverse=True,
    )
    copies = np.zeros(len(wanted), dtype=COPY)
    copies["feature"] = wanted // 2
    copies["nan_low"] = wanted % 2
    link = np.zeros(len(inner), dtype=np.int64)
    link[branches] = copy.reshape(-1) + (offset[branches] << 11)
    values = trees.leaf if grid is None else grid[0].astype(np.int32)
    bits = np.where(inner, trees.threshold.view(np.uint32), values.view(np.uint32))
    nodes = np.zeros(len(chosen) + 1, dtype=NODE)
    nodes["bits"][position[chosen]] = bits[chosen]
    nodes["link"][position[chosen]] = link[chosen]
    n_roots = len(deep_roots)
    roots = np.full(-(-n_roots // LANES) * LANES, len(chosen), dtype=np.uint32)
    roots[:n_roots] = position[deep_roots]
    return copies, nodes, roots


def aligned(array: ArrayT) -> ArrayT:
    """A copy that begins at a multiple of 64 bytes."""
    raw = np.zeros(array.nbytes + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    out = raw[start : start + array.nbytes].view(array.dtype)
    out[:] = array
    return out
