"""From proven trees to the packed arrays that the kernels walk.

Rules: plain numpy, nothing here runs while scoring. A tree becomes a perfect heap of its depth or
pre-order nodes; `forest_kernels.h` describes both forms and why their sums are exact. It does
not look at how a forest was made: the same trees give the same arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastpath.errors import ModelError
from fastpath.forest_masks import MAX_LEAVES, Masks, pack_masks
from fastpath.forest_trees import Bools, Float32, Int32, Ints, Trace, Trees, quantize_leaves

LINK_BITS = 32  # of a packed node: the copy, then the offset of the false child
LANES = 8
MIN_MASKED = 16  # trees: the masks of 64 cost as much as walking about ten
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
NODE = np.dtype([("key", np.int32), ("link", np.uint32)])


class Heaps(NamedTuple):
    """The perfect heaps of one depth."""

    depth: int
    n_trees: int  # with padding
    slot: NDArray[np.uint8]
    cut: NDArray[np.uint8] | Int32  # bins, or keys
    leaf: NDArray[np.signedinteger[Any]]


class Packed(NamedTuple):
    """The arrays of a `forest_t`."""

    exact: bool
    wide: bool
    ranked: bool
    copy_bits: int
    scale: float
    base: float
    n_slots: int
    searches: NDArray[np.void]
    thresholds: Float32  # aligned to 64 bytes
    heaps: list[Heaps]
    masks: Masks | None
    copies: NDArray[np.void]
    nodes: NDArray[np.void]
    roots: NDArray[np.uint32]

    @property
    def resident_bytes(self) -> int:
        """Bytes of all arrays together."""
        arrays = [self.searches, self.thresholds, self.copies, self.nodes, self.roots]
        arrays += [a for h in self.heaps for a in (h.slot, h.cut, h.leaf)]
        if self.masks is not None:
            arrays += [self.masks.slot, self.masks.cut, self.masks.mask, self.masks.leaf]
        return sum(a.nbytes for a in arrays)


def pack(trees: Trees, traced: Trace, thresholds: list[Float32], *, can_mask: bool) -> Packed:
    """Choose each tree's form and make all arrays; `can_mask`: the kernel knows leaf masks."""
    grid = quantize_leaves(trees, traced)
    padded = np.left_shift(1, np.maximum(traced.depth, MIN_HEAP_DEPTH).clip(max=62))
    is_heap = (traced.depth <= MAX_HEAP_DEPTH) & (
        (traced.depth <= ALWAYS_HEAP_DEPTH) | (padded <= HEAP_PADDING * traced.n_leaves)
    )
    # Heaps add their leaves in no particular order: only whole numbers may be added so.
    if grid is None:
        is_heap[:] = False
    is_masked = ~is_heap & (traced.n_leaves <= MAX_LEAVES)
    if grid is None or not can_mask or is_masked.sum() < MIN_MASKED:
        is_masked[:] = False
    copies, node_copy = _copies(trees)
    ranks = _searches(trees, traced, thresholds, is_heap | is_masked)
    ranked = bool((is_heap | is_masked).any()) and ranks.n_slots <= MAX_SLOTS
    if not ranked:
        is_masked[:] = False
    if not ranked and len(copies) > MAX_SLOTS:
        is_heap[:] = False
    slot, cut = (ranks.slot, ranks.cut) if ranked else (node_copy, order_keys(trees.threshold))
    heaps: list[Heaps] = []
    masks = None
    wide = False
    if grid is not None and (is_heap | is_masked).any():
        leaves = grid[0][(is_heap | is_masked)[traced.tree]]
        wide = bool(leaves.min() < -32768 or leaves.max() > 32767)
        levels = np.maximum(traced.depth, MIN_HEAP_DEPTH)
        for depth in np.unique(levels[is_heap]):
            members = np.flatnonzero(is_heap & (levels == depth))
            shape = _heap_nodes(trees, members, int(depth))
            heaps.append(
                Heaps(
                    depth=int(depth),
                    n_trees=len(shape[0]),
                    slot=_heap_values(shape, slot, np.uint8),
                    cut=_heap_values(shape, cut, np.uint8 if ranked else np.int32),
                    leaf=_heap_leaves(shape, grid[0], np.int32 if wide else np.int16),
                )
            )
        if is_masked.any():
            masks = pack_masks(trees, traced, is_masked, ranks.slot, ranks.cut, grid[0], wide)
            masks = masks._replace(
                slot=aligned(masks.slot.ravel()),
                cut=aligned(masks.cut.ravel()),
                mask=aligned(masks.mask.ravel()),
            )
    copy_bits = len(copies).bit_length()  # the leaves' copy is number len(copies)
    nodes, roots = _nodes(trees, traced, ~(is_heap | is_masked), grid, node_copy, copy_bits)
    keeps_copies = len(roots) > 0 or (bool(heaps) and not ranked)
    return Packed(
        exact=grid is not None,
        wide=wide,
        ranked=ranked,
        copy_bits=copy_bits,
        scale=1.0 if grid is None else float(np.ldexp(np.float32(1), -grid[1])),
        base=trees.base,
        n_slots=ranks.n_slots if ranked else len(copies),
        searches=ranks.searches if ranked else ranks.searches[:0],
        thresholds=ranks.thresholds if ranked else ranks.thresholds[:0],
        heaps=heaps,
        masks=masks,
        copies=copies if keeps_copies else copies[:0],
        nodes=nodes,
        roots=roots,
    )


def order_keys(values: Float32) -> Int32:
    """int32 that order as these float32 do: `forest_key` of the kernels."""
    bits = (values + np.float32(0)).view(np.int32)
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _copies(trees: Trees) -> tuple[NDArray[np.void], Ints]:
    """List the keys that a row needs, and which of them each inner node compares."""
    branches = np.flatnonzero(trees.feature >= 0)
    wanted, copy = np.unique(
        2 * trees.feature[branches].astype(np.int64) + trees.missing_true[branches],
        return_inverse=True,
    )
    copies = np.zeros(len(wanted), dtype=COPY)
    copies["feature"] = wanted // 2
    copies["nan_low"] = wanted % 2
    node_copy = np.full(len(trees.feature), len(wanted), dtype=np.int64)
    node_copy[branches] = copy.reshape(-1)
    return copies, node_copy


class Ranks(NamedTuple):
    """The searches of a ranked forest, and what each inner node compares."""

    searches: NDArray[np.void]
    thresholds: Float32
    n_slots: int
    slot: Ints  # [N]
    cut: Ints  # [N]


def _searches(trees: Trees, traced: Trace, thresholds: list[Float32], is_heap: Bools) -> Ranks:
    """Make the searches that the heaps need; slot and cut of every inner node of a heap."""
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
    n_slots = max(n + int(both.sum()), 1)
    return Ranks(searches, aligned(flat), n_slots, node_slot, node_cut)


def _blocks(values: Float32) -> Float32:
    """Sixteen pivots, then blocks of sixteen; padded with +inf, which is below nothing."""
    n_blocks = len(values) // BLOCK + 1
    out = np.full(BLOCK * (1 + n_blocks), np.inf, dtype=np.float32)
    out[BLOCK : BLOCK + len(values)] = values
    out[: n_blocks - 1] = values[BLOCK - 1 :: BLOCK]
    return out


def _heap_nodes(trees: Trees, members: Ints, depth: int) -> list[Ints]:
    """List the trees' nodes level by level, [n_padded, 2^level]; -1: no node (padding).

    A leaf above the last level is repeated below: both children of a leaf are the leaf.
    """
    n_padded = -(-len(members) // LANES) * LANES
    level = np.full((n_padded, 1), -1, dtype=np.int64)
    level[: len(members), 0] = trees.roots[members]
    levels = [level]
    for _ in range(depth):
        inner = (level >= 0) & (trees.feature[level] >= 0)
        true = np.where(inner, trees.true_child[level], level)
        false = np.where(inner, trees.false_child[level], level)
        level = np.stack([true, false], axis=2).reshape(n_padded, -1)
        levels.append(level)
    levels[:-1] = [np.where(trees.feature[at] >= 0, at, -1) for at in levels[:-1]]
    return levels


def _heap_values(shape: list[Ints], values: Ints | Int32, dtype: type[Any]) -> NDArray[Any]:
    """Values of the inner nodes in heap order; 0 where there is none."""
    out = np.zeros((len(shape[0]), 1 << (len(shape) - 1)), dtype=dtype)
    for i, level in enumerate(shape[:-1]):
        out[:, 1 << i : 2 << i] = np.where(level >= 0, values[level], 0)
    return aligned(out.ravel())


def _heap_leaves(shape: list[Ints], units: Ints, dtype: type[Any]) -> NDArray[Any]:
    """Leaves from left to right; 0 in the padding."""
    return aligned(np.where(shape[-1] >= 0, units[shape[-1]], 0).astype(dtype).ravel())


def _nodes(
    trees: Trees,
    traced: Trace,
    is_deep: Bools,
    grid: tuple[Ints, int] | None,
    node_copy: Ints,
    copy_bits: int,
) -> tuple[NDArray[np.void], NDArray[np.uint32]]:
    """Pre-order nodes of the other trees, in tree order, and a zero leaf that pads the lanes."""
    in_deep = is_deep[traced.tree]
    if not in_deep.any():
        return np.zeros(0, NODE), np.zeros(0, np.uint32)
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
        after = position[parents] + 1
        position[trees.true_child[parents]] = after
        position[trees.false_child[parents]] = after + size[trees.true_child[parents]]
    branches = np.flatnonzero(in_deep & inner)
    offset = np.zeros(len(inner), dtype=np.int64)
    offset[branches] = position[trees.false_child[branches]] - position[branches]
    limit = (1 << (LINK_BITS - copy_bits)) - 1
    if (offset > limit).any():
        node = int(np.argmax(offset > limit))
        raise ModelError(
            f"tree {traced.tree[node]}, node {node}: {offset[node] - 1} nodes below its true "
            f"child; at most {limit - 1} are supported; limit max_leaf_nodes when training"
        )
    chosen = np.flatnonzero(in_deep)
    values = trees.leaf.view(np.int32) if grid is None else grid[0].astype(np.int32)
    key = np.where(inner, order_keys(trees.threshold), values)
    nodes = np.zeros(len(chosen) + 1, dtype=NODE)
    nodes["link"][-1] = node_copy.max()  # a leaf's; every tree has one
    nodes["key"][position[chosen]] = key[chosen]
    nodes["link"][position[chosen]] = (node_copy + (offset << copy_bits))[chosen]
    n_roots = len(deep_roots)
    roots = np.full(-(-n_roots // LANES) * LANES, len(chosen), dtype=np.uint32)
    roots[:n_roots] = position[deep_roots]
    return nodes, roots


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Copy to memory that begins at a multiple of 64 bytes."""
    raw = np.zeros(array.nbytes + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    out = raw[start : start + array.nbytes].view(array.dtype)
    out[:] = array
    return out
