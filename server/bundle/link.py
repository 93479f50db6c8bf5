"""From raw scores to scores, and from a score back to the first raw score that reaches it.

The same arithmetic as the engine's: the raw score is a float32, everything after it is double
precision. Decisions compare raw scores, so a threshold that a user gives as a score becomes the
smallest float32 whose score is not below it, once, at export; decisions then replay exactly.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from server.errors import InputError

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Link = Literal["logit", "identity"]

RANK_OF_INFINITY = 0x7F800000


def float32_from_rank(rank: NDArray[np.int64]) -> Float32Array:
    """Return the float32 at a place in the order -inf < ... < -0.0 < 0.0 < ... < inf.

    Rank 0 is 0.0, rank -1 is -0.0.
    """
    bits = np.where(rank >= 0, rank, 0x80000000 - rank - 1).astype(np.uint32)
    return bits.view(np.float32)


def to_score(raw: ArrayLike, link: Link, shift: float = 0.0) -> Float64Array:
    """Return scores of raw scores.

    Parameters
    ----------
    raw : array of float32
    link : {"logit", "identity"}
        Whether raw is the log-odds or the probability.
    shift : float
        Added to the log-odds: the correction for another prevalence at serving.

    Returns
    -------
    numpy.ndarray of float64
    """
    wide = np.asarray(raw, np.float64)
    if link == "logit":
        with np.errstate(over="ignore"):
            return np.asarray(1.0 / (1.0 + np.exp(-(wide + shift))))
    return shift_odds(wide, shift)


def shift_odds(p: ArrayLike, shift: float) -> Float64Array:
    """Multiply the odds of probabilities by exp(shift)."""
    wide = np.asarray(p, np.float64)
    if shift == 0.0:
        return wide
    moved = wide * np.exp(shift)
    return np.asarray(moved / (moved + (1.0 - wide)))


def prior_shift(serving: float, training: float) -> float:
    """Return the log-odds between two prevalences, each strictly between 0 and 1."""
    for name, p in (("--prior", serving), ("the training data's prevalence", training)):
        if not 0.0 < p < 1.0:
            raise InputError(f"{name} is {p}; it must lie between 0 and 1")
    return float(np.log(serving) - np.log1p(-serving) - (np.log(training) - np.log1p(-training)))


def smallest_raw(score: float, link: Link, shift: float, name: str) -> float:
    """Return the smallest float32 raw score whose score is at least `score`.

    Parameters
    ----------
    score : float
        Above 0, at most 1.
    link, shift
        See `to_score`.
    name : str
        The threshold's name, for the message.
    """
    if not 0.0 < score <= 1.0:
        raise InputError(f"threshold {name}={score}: a score above 0 and at most 1 is needed")
    # The score grows with the raw score: low is below the threshold, high reaches it. A raw
    # probability lies in 0..1, beyond which shifted odds mean nothing.
    top = np.float32(np.finfo(np.float32).max) if link == "logit" else np.float32(1.0)
    low = -RANK_OF_INFINITY if link == "logit" else -1
    high = int(top.view(np.int32))
    while high - low > 1:
        middle = (low + high) // 2
        raw = float32_from_rank(np.array([middle]))
        if to_score(raw, link, shift)[0] >= score:
            high = middle
        else:
            low = middle
    return float(float32_from_rank(np.array([high]))[0])
