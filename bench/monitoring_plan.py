"""How long the monitoring benchmark is.

FULL is `python -m bench`: under six minutes. QUICK is a first look in a minute and a half.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import rollout_plan


@dataclass(frozen=True)
class Plan:
    """How often each load is made, and how long it is."""

    loads: rollout_plan.Plan  # how often a load that the machine spoiled may be made again
    closed_s: float  # rates of capture follow the traffic within two seconds
    closed_repetitions: int
    leg_s: float
    legs: int
    realtime_legs: int
    scraped_s: float


FULL = Plan(rollout_plan.FULL, 3.0, 5, 5.0, 5, 3, 10.0)
QUICK = Plan(rollout_plan.QUICK, 1.0, 2, 1.5, 2, 1, 2.0)
