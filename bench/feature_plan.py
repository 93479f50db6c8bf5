"""How much the features benchmark stores, and how long its runs are.

FULL is `python -m bench`: a million customers, some four minutes. QUICK is a first look at a tenth
of that, in half a minute; its stores fit a processor's cache better: its figures are no claim.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import measure
from bench.feature_store_data import Sizes


@dataclass(frozen=True)
class Plan:
    """How much is stored, and how long a run is."""

    entities: Sizes
    n_messages: int
    repetitions: int
    n_loads: int
    offered_s: float
    lmdb_per_s: int
    redis_per_s: int
    paused_per_s: int
    unbroken_per_s: int  # few enough for a stuck connection to owe all their answers
    n_pauses: int
    paused_s: float
    n_single: int
    n_closed: int
    n_floor_gets: int
    n_floor_calls: int
    peers: Sizes
    feast: Sizes | None  # None: Feast is not asked, it takes its time
    n_peer_calls: int
    attempts: int


FULL = Plan(
    entities=Sizes(),
    n_messages=100_000,
    repetitions=5,
    n_loads=3,
    offered_s=3.0,
    lmdb_per_s=40_000,
    redis_per_s=20_000,
    paused_per_s=10_000,
    unbroken_per_s=1_000,
    n_pauses=3,
    paused_s=3.0,
    n_single=10_000,
    n_closed=150_000,
    n_floor_gets=600_000,
    n_floor_calls=10_000,
    peers=Sizes(20_000, 5_000),
    feast=Sizes(2_000, 500),
    n_peer_calls=5_000,
    attempts=measure.ATTEMPTS,
)
QUICK = Plan(
    entities=Sizes(100_000, 20_000),
    n_messages=20_000,
    repetitions=2,
    n_loads=1,
    offered_s=0.7,
    lmdb_per_s=40_000,
    redis_per_s=20_000,
    paused_per_s=10_000,
    unbroken_per_s=1_000,
    n_pauses=1,
    paused_s=1.2,
    n_single=2_000,
    n_closed=30_000,
    n_floor_gets=200_000,
    n_floor_calls=2_000,
    peers=Sizes(2_000, 500),
    feast=None,
    n_peer_calls=500,
    attempts=measure.QUICK_ATTEMPTS,
)
