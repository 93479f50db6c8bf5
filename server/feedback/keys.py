"""How decisions are named in the store: by request and model, and by what decided them.

A decision's id is the first half of the hash of its request id, mixed with its model's name, so
that one request that several models score has several decisions. The second half is kept beside it:
two requests are the same when both halves are.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]


class VersionKey(NamedTuple):
    """What decided."""

    model: str
    version: str
    sha256: str  # of its manifest
    arm: str


class Decider(NamedTuple):
    """What decided, and how its scores are counted."""

    key: VersionKey
    edges: NDArray[np.float32]  # of raw scores, ascending: n edges make n + 1 bins


def model_hash(model: str) -> int:
    """Return 64 bits that stand for a model's name, as a signed integer."""
    return int.from_bytes(hashlib.sha256(model.encode()).digest()[:8], "little", signed=True)


def decision_ids(id_hash: NDArray[np.uint64], model: str) -> Int64Array:
    """Return the ids of decisions of one model.

    Parameters
    ----------
    id_hash : array of uint64, shape (n, 2)
        Of the request ids.
    model : str
    """
    return id_hash[:, 0].view(np.int64) ^ np.int64(model_hash(model))


def bins_of(edges: NDArray[np.float32], raw: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the bins of raw scores: a score at an edge, such as a threshold, is above it."""
    return np.searchsorted(edges, raw, side="right").astype(np.int64)
