"""Which entities are asked for, one after the other: all alike, or a few of them most of the time.

Rules: an order is drawn from a seed, and the same arguments give the same numbers on any machine.
"zipf" gives rank r a share proportional to 1 / r**exponent among exactly `n_entities` ranks; which
entity has which rank is drawn too, so that popular ones do not lie side by side in a store that
keeps its keys sorted.

What it does not do: no order in time (bursts of one entity, sessions).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError

Order = Literal["uniform", "zipf"]


def indices(
    n_entities: int, n: int, order: Order, *, seed: int, exponent: float = 1.0
) -> NDArray[np.int64]:
    """Draw a sequence of entities.

    Parameters
    ----------
    n_entities : int
        How many there are: at least 1.
    n : int
        Length of the sequence.
    order : {"uniform", "zipf"}
    seed : int
    exponent : float
        Of "zipf": 0 is uniform, 1 is the classical law.

    Returns
    -------
    int64[n]
        Numbers from 0 to n_entities - 1.

    Raises
    ------
    BenchError
        No entities, a negative length or exponent, or an unknown order.
    """
    if n_entities < 1 or n < 0 or not exponent >= 0:
        raise BenchError(
            f"{n} draws from {n_entities} entities with exponent {exponent}: there must be an "
            "entity, and neither number may be negative"
        )
    rng = np.random.default_rng(seed)
    if order == "uniform":
        return rng.integers(0, n_entities, n)
    if order != "zipf":
        raise BenchError(f"order {order!r} is unknown: one of {', '.join(get_args(Order))}")
    shares = np.arange(1, n_entities + 1, dtype=np.float64) ** -exponent
    cumulative = np.cumsum(shares)
    ranks = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right")
    # The last sum may round to less than a draw times itself.
    drawn: NDArray[np.int64] = rng.permutation(n_entities)[np.minimum(ranks, n_entities - 1)]
    return drawn
