"""Outcomes, and decisions that they met, as arrays: what joining works on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.feedback.keys import Int64Array

BoolArray = NDArray[np.bool_]


class Batch(NamedTuple):
    """Outcomes, n of them, in the order in which they came."""

    first: Int64Array  # halves of the ids' hashes
    second: Int64Array
    model: Int64Array  # hash of its name; 0: every model
    label: Int64Array
    seen: Int64Array
    amount: NDArray[np.float64]
    source: Int64Array

    def pick(self, which: BoolArray) -> Batch:
        """Return some of them."""
        return Batch(*(column[which] for column in self))  # type: ignore[arg-type]


class Rows(NamedTuple):
    """Decisions that outcomes met, n of them."""

    at: Int64Array  # index of the id that was asked for
    id: Int64Array
    v: Int64Array
    raw: NDArray[np.float32]
    score: NDArray[np.float64]
    d: Int64Array
    weight: NDArray[np.float64]
    label: Int64Array
    seen: Int64Array  # -1: no outcome
    amount: NDArray[np.float64]

    def pick(self, which: BoolArray) -> Rows:
        """Return some of them."""
        return Rows(*(column[which] for column in self))  # type: ignore[arg-type]


class Asked(NamedTuple):
    """Ids of decisions that a batch is about, and which of its outcomes are about each."""

    ids: Int64Array  # ascending
    second: Int64Array
    starts: Int64Array  # outcomes of the i-th: who[starts[i] : starts[i] + sizes[i]]
    sizes: Int64Array
    who: Int64Array


class Known(NamedTuple):
    """What is known of decisions, n of them."""

    label: Int64Array
    seen: Int64Array
    amount: NDArray[np.float64]
    source: Int64Array


def group(ids: Int64Array, second: Int64Array, who: Int64Array) -> Asked:
    """Sort outcomes by the decision that they are about, and then as they came."""
    order = np.lexsort((who, ids))
    ids = ids[order]
    # Differences of 64-bit numbers may overflow, but never to nothing.
    starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))
    sizes = np.diff(starts, append=len(ids))
    return Asked(ids[starts], second[order][starts], starts, sizes, who[order])


def equal(a: NDArray[np.float64], b: NDArray[np.float64]) -> BoolArray:
    """Return where amounts are the same: none is as good as none."""
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)), np.bool_)
