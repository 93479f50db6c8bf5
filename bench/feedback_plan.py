"""How long the feedback benchmark is.

FULL is `python -m bench --only feedback`: under five minutes. QUICK is a first look in under one.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import rollout_plan


@dataclass(frozen=True)
class Plan:
    """How much is done, and how long a run is."""

    loads: rollout_plan.Plan  # how often a load that the machine spoiled may be made again
    n_records: int  # of the store on its own
    n_delayed: int  # decisions of the process whose memory is looked at
    n_messages: int  # different requests of one server
    sustained_s: float
    settle_s: float  # until the share that is recorded fits the traffic
    capacity_s: float
    closed_s: float
    closed_repetitions: int
    console_s: float


FULL = Plan(rollout_plan.FULL, 1_000_000, 200_000, 220_000, 10.0, 4.0, 3.0, 2.0, 5, 8.0)
QUICK = Plan(rollout_plan.QUICK, 100_000, 50_000, 60_000, 2.0, 3.0, 1.0, 1.0, 2, 2.0)
