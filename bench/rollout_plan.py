"""How long the rollout benchmark is.

FULL is `python -m bench`: a thousand cycles, some four minutes. QUICK is a first look in well under
a minute; of thirty cycles it can say little about memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import measure


@dataclass(frozen=True)
class Plan:
    """How much is done, and how long a run is."""

    n_cycles: int
    leg_s: float  # of a load with cycles beside it
    still_s: float  # of the load without, that follows
    n_rollbacks: int
    repetitions: int
    n_closed: int
    n_keys: int
    attempts: int


FULL = Plan(1_000, 14.0, 7.0, 30, 5, 200_000, 200_000, measure.ATTEMPTS)
QUICK = Plan(30, 3.0, 1.5, 5, 2, 40_000, 50_000, measure.QUICK_ATTEMPTS)
