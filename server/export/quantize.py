"""Puts leaves on a dyadic grid, so that every float32 partial sum of them is exact.

A leaf becomes q * 2**-k with an integer q. A float32 holds every integer up to 2**24, so while the
sum over trees of the largest |q|, plus the base value's, stays within 2**24, adding leaves in
any order gives the same float32, bit for bit, in onnxruntime and in any kernel. k is the
largest for which that holds.

Boosted leaves can be enormous (4.6e8 where a leaf is pure) and would take the whole budget. A raw
score of 64 is a probability of 1 - 1.6e-28: leaves and the base value are clipped at +-64, and the
report counts them.

Where the raw score is a probability of T trees, k is 24. Votes meet thresholds exactly (50 of 100
trees against .5), and a sum that rounds below would flip the decision. So leaves round up, to no
more than a tree's share floor(2**24 / T); what T full votes then lack to 1 is the base value. The
raw score is never below scikit-learn's probability, above it by less than 2 T * 2**-24, and never
above 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.bundle.link import Link
from server.export.trees import Trees

BUDGET_BITS = 24
BUDGET = 1 << BUDGET_BITS  # every integer up to this is a float32
CLIP = 64.0
# Beyond this a step is far below what float32 raw scores are used for, and 2**-k stays normal.
MAX_EXPONENT = 64


@dataclass(frozen=True)
class Quantized:
    """Trees on the grid: leaves and base are float32 values, thresholds too."""

    trees: Trees
    exponent: int  # k
    leaf_dtype: str  # the smallest of int16 and int32 that holds every q
    clipped: int


def quantize(trees: Trees, link: Link) -> Quantized:
    """Put leaves and base value on the finest grid whose sums are exact in float32.

    Parameters
    ----------
    trees : Trees
        Thresholds are float32 values already.
    link : {"logit", "identity"}
        Whether the raw score is the log-odds, or a probability.
    """
    clipped = int((np.abs(trees.leaf) > CLIP).sum()) + int(abs(trees.base) > CLIP)
    leaf = np.clip(trees.leaf, -CLIP, CLIP)
    base = float(np.clip(trees.base, -CLIP, CLIP))
    if link == "identity":
        exponent = BUDGET_BITS
        q = np.minimum(np.ceil(np.ldexp(leaf, exponent)), BUDGET // trees.n_trees)
        base = float(np.ldexp(BUDGET % trees.n_trees, -exponent))
    else:
        exponent = _finest(leaf, base, trees.roots)
        q = np.rint(np.ldexp(leaf, exponent))
    return Quantized(
        trees=trees.with_arrays(
            leaf=np.ldexp(q, -exponent),
            base=float(np.ldexp(np.rint(np.ldexp(base, exponent)), -exponent)),
        ),
        exponent=exponent,
        leaf_dtype="int16" if np.abs(q).max(initial=0) <= np.iinfo(np.int16).max else "int32",
        clipped=clipped,
    )


def _finest(leaf: NDArray[np.float64], base: float, roots: NDArray[np.int32]) -> int:
    """Return the largest k whose partial sums, after rounding, fit the budget."""

    def units(k: int) -> float:
        q = np.abs(np.rint(np.ldexp(leaf, k)))
        largest = np.maximum.reduceat(q, roots).sum()
        return float(largest + abs(np.rint(np.ldexp(base, k))))

    exponent = MAX_EXPONENT
    while units(exponent) > BUDGET:
        exponent -= 1
    return exponent
