"""Tree ensembles: arrays in, raw scores out.

Rules: the constructor checks everything (`forest_trees.py`: a hostile forest ends with an error)
and packs the trees once (`forest_layout.py`); scoring runs the kernels of `forest_kernels.h` on
the packed arrays: without the GIL, without allocating, its scratch memory on the stack, every row
by itself. The raw score is the sum of one leaf per tree, plus the base: in whole multiples of a
power of two where the leaves allow it, and then bit-identical to ONNX Runtime's
TreeEnsembleRegressor (one target, SUM, post_transform NONE) whatever the order of additions.
Leaves on no such grid are added as float32 in tree order; that ONNX Runtime adds in the same
order is likely, but nothing promises it.

It does not know links, probabilities or classes.
"""

import numpy as np

from fastpath.errors import ModelError
from fastpath import forest_layout, forest_trees

from libc.stdint cimport int32_t, uint8_t, uint32_t, uintptr_t
from libc.string cimport memset

from fastpath._types cimport score_rows_fn
from fastpath.model cimport Model

cdef extern from "forest_kernels.h" nogil:
    enum:
        FOREST_BASELINE
        FOREST_AVX2
        FOREST_AVX512
        FOREST_MAX_SLOTS
        FOREST_NO_SLOT
        FOREST_MAX_COPIES
        FOREST_MIN_DEPTH
        FOREST_MAX_DEPTH
        FOREST_LANES
    ctypedef struct forest_search_t:
        pass
    ctypedef struct forest_copy_t:
        pass
    ctypedef struct forest_node_t:
        pass
    ctypedef struct forest_heaps_t:
        int32_t depth
        int32_t n_trees
        const uint8_t* slot
        const uint8_t* cut
        const int32_t* key
        const void* leaf
    ctypedef struct forest_masks_t:
        int32_t n_groups
        int32_t n_rows
        const uint8_t* slot
        const uint8_t* cut
        const uint32_t* mask
        const void* leaf
    ctypedef struct forest_t:
        int32_t exact
        int32_t wide
        int32_t ranked
        int32_t copy_bits
        float scale
        float base
        int32_t n_searches
        int32_t n_slots
        int32_t n_heaps
        int32_t n_copies
        int32_t n_roots
        const forest_search_t* searches
        const float* thresholds
        const forest_copy_t* copies
        const uint32_t* roots
        const forest_node_t* nodes
        forest_heaps_t[6] heaps
        forest_masks_t masks
    int forest_has_isa(int isa)
    score_rows_fn forest_score_of(int isa)

ISAS = {"baseline": FOREST_BASELINE, "avx2": FOREST_AVX2, "avx512": FOREST_AVX512}

# The layout and the kernels state the same limits, each in its own language.
if (
    sizeof(forest_search_t) != forest_layout.SEARCH.itemsize
    or sizeof(forest_copy_t) != forest_layout.COPY.itemsize
    or sizeof(forest_node_t) != forest_layout.NODE.itemsize
    or forest_layout.MAX_SLOTS != FOREST_MAX_SLOTS
    or forest_layout.NO_SLOT != FOREST_NO_SLOT
    or forest_layout.LANES != FOREST_LANES
    or forest_layout.MIN_HEAP_DEPTH != FOREST_MIN_DEPTH
    or forest_layout.MAX_HEAP_DEPTH != FOREST_MAX_DEPTH
    or 2 * forest_trees.MAX_FEATURES != FOREST_MAX_COPIES
):
    raise ImportError("forest_layout.py and forest_kernels.h disagree; rebuild the extensions")


cdef const void* address(array):
    """Where an ndarray's data begin; whoever keeps the address keeps the array."""
    return <const void*> <uintptr_t> array.ctypes.data


def available_isas():
    """Names of the kernels that this machine can run, the slowest first.

    Returns
    -------
    tuple of str
        Out of "baseline", "avx2" and "avx512".
    """
    return tuple(name for name, isa in ISAS.items() if forest_has_isa(isa))


def flat_array(name, values, dtype, n=None):
    """One C-contiguous vector of a dtype; a value that the dtype cannot hold is refused.

    Raises
    ------
    ModelError
        Not one-dimensional, of another length, or of values that do not fit.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ModelError(f"{name} must have one dimension, it has {array.ndim}")
    if n is not None and len(array) != n:
        raise ModelError(f"{name} holds {len(array)} values, feature holds {n}: one per node")
    if array.size and not np.can_cast(array.dtype, dtype, casting="same_kind"):
        raise ModelError(f"{name} must hold {np.dtype(dtype).name}, it holds {array.dtype.name}")
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(array, dtype=dtype)
    # A rounded threshold is another model: only the exporter knows in which direction to round.
    same = (out == array) | (array != array)
    if not same.all():
        at = int(np.argmin(same))
        raise ModelError(
            f"node {at}: its {name}, {array[at]!r}, is no {np.dtype(dtype).name}; round it first"
            if n is not None or name == "feature" else
            f"{name}[{at}] is {array[at]!r}, which is no {np.dtype(dtype).name}"
        )
    return out


cdef class Forest(Model):
    """A compiled tree ensemble.

    N nodes in T trees. At an inner node, `x[feature] <= threshold` goes to `true_child`, and NaN
    goes there where `missing_true` says so. A node whose feature is -1 is a leaf and adds `leaf`;
    its other values are not looked at.

    Parameters
    ----------
    n_features : int
        1 to 1024.
    roots : int32 [T]
        At least one.
    feature : int32 [N]
        -1: a leaf.
    threshold : float32 [N]
        Not NaN at inner nodes; infinities are allowed.
    true_child, false_child : int32 [N]
    missing_true : bool [N]
    leaf : float32 [N]
        Finite at leaves.
    base : float
        Added last. Must be a float32 value.
    isa : str, optional
        One of `available_isas()`; the best by default. For tests and benchmarks.

    Raises
    ------
    ModelError
        The arrays are no forest, or beyond the limits; names the tree and the node.

    Attributes
    ----------
    n_trees, n_nodes, max_depth : int
        Of the forest as given.
    layout : str
        "heaps" (shallow trees), "preorder" (deep ones), "masks" (uneven trees of up to 32
        leaves, AVX-512 only) or "mixed".
    isa : str
    exact : bool
        Leaves are on a dyadic grid: raw scores are bit-identical to ONNX Runtime's.
    resident_bytes : int
        Memory of the packed arrays.
    thresholds : list of numpy.ndarray of float32
        Of every feature: its sorted distinct thresholds.
    """

    cdef forest_t forest
    cdef readonly int n_trees
    cdef readonly int n_nodes
    cdef readonly int max_depth
    cdef readonly str layout
    cdef readonly str isa
    cdef readonly bint exact
    cdef readonly Py_ssize_t resident_bytes
    cdef readonly list thresholds
    cdef object packed               # owns the arrays that `forest` points into

    def __cinit__(self, **_):
        memset(&self.forest, 0, sizeof(forest_t))

    def __init__(
        self, *, n_features, roots, feature, threshold, true_child, false_child, missing_true,
        leaf, base, isa=None
    ):
        cdef double base32
        if self.packed is not None:
            raise ModelError("a Forest is immutable; make a new one")
        if not 1 <= n_features <= forest_trees.MAX_FEATURES:
            raise ModelError(
                f"{n_features} features; 1 to {forest_trees.MAX_FEATURES} are supported"
            )
        base32 = <double> <float> base
        if base32 != base or not np.isfinite(base32):
            raise ModelError(f"the base {base!r} is not a finite float32 value; round it first")
        feature = flat_array("feature", feature, np.int32)
        n = len(feature)
        trees = forest_trees.Trees(
            n_features=int(n_features),
            roots=flat_array("roots", roots, np.int32),
            feature=feature,
            threshold=flat_array("threshold", threshold, np.float32, n),
            true_child=flat_array("true_child", true_child, np.int32, n),
            false_child=flat_array("false_child", false_child, np.int32, n),
            missing_true=flat_array("missing_true", missing_true, np.bool_, n),
            leaf=flat_array("leaf", leaf, np.float32, n),
            base=base32,
        )
        if not 1 <= len(trees.roots) <= forest_trees.MAX_TREES:
            raise ModelError(
                f"{len(trees.roots)} trees; 1 to {forest_trees.MAX_TREES} are supported"
            )
        if n > forest_trees.MAX_NODES:
            raise ModelError(f"{n} nodes; at most {forest_trees.MAX_NODES} are supported")
        self.isa = choose_isa(isa)
        traced = forest_trees.trace(trees)
        self.thresholds = forest_trees.thresholds_by_feature(trees)
        packed = forest_layout.pack(
            trees, traced, self.thresholds, can_mask=self.isa == "avx512"
        )
        self.n_trees = len(trees.roots)
        self.n_nodes = n
        self.max_depth = traced.depth.max()
        self.exact = packed.exact
        self.resident_bytes = packed.resident_bytes
        forms = (
            ["heaps"] * bool(packed.heaps)
            + ["masks"] * (packed.masks is not None)
            + ["preorder"] * bool(len(packed.roots))
        )
        self.layout = forms[0] if len(forms) == 1 else "mixed"
        self.fill(packed)
        self.n_features = n_features
        self.table.n_features = n_features
        self.table.impl = &self.forest
        self.table.score_rows = forest_score_of(ISAS[self.isa])

    cdef int fill(self, packed) except -1:
        """Point the C struct at the packed arrays and keep them alive."""
        cdef forest_heaps_t* target
        self.packed = packed
        self.forest.exact = packed.exact
        self.forest.wide = packed.wide
        self.forest.ranked = packed.ranked
        self.forest.copy_bits = packed.copy_bits
        self.forest.scale = packed.scale
        self.forest.base = packed.base
        self.forest.n_searches = <int32_t> len(packed.searches)
        self.forest.n_slots = packed.n_slots
        self.forest.n_copies = <int32_t> len(packed.copies)
        self.forest.n_roots = <int32_t> len(packed.roots)
        self.forest.searches = <const forest_search_t*> address(packed.searches)
        self.forest.thresholds = <const float*> address(packed.thresholds)
        self.forest.copies = <const forest_copy_t*> address(packed.copies)
        self.forest.roots = <const uint32_t*> address(packed.roots)
        self.forest.nodes = <const forest_node_t*> address(packed.nodes)
        self.forest.n_heaps = <int32_t> len(packed.heaps)
        for i, heaps in enumerate(packed.heaps):
            target = &self.forest.heaps[<Py_ssize_t> i]
            target.depth = heaps.depth
            target.n_trees = heaps.n_trees
            target.slot = <const uint8_t*> address(heaps.slot)
            if packed.ranked:
                target.cut = <const uint8_t*> address(heaps.cut)
            else:
                target.key = <const int32_t*> address(heaps.cut)
            target.leaf = address(heaps.leaf)
        if packed.masks is not None:
            self.forest.masks.n_groups = packed.masks.n_groups
            self.forest.masks.n_rows = packed.masks.n_rows
            self.forest.masks.slot = <const uint8_t*> address(packed.masks.slot)
            self.forest.masks.cut = <const uint8_t*> address(packed.masks.cut)
            self.forest.masks.mask = <const uint32_t*> address(packed.masks.mask)
            self.forest.masks.leaf = address(packed.masks.leaf)
        return 0


def choose_isa(isa):
    """The asked kernel, or the best that this machine can run."""
    names = available_isas()
    if isa is None:
        return names[len(names) - 1]
    if isa not in names:
        raise ModelError(f"no kernel {isa!r} on this machine; there are {', '.join(names)}")
    return isa
