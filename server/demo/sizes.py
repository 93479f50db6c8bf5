"""How much to simulate. Free of pandas: a second run of the demo needs only this."""

from __future__ import annotations

from dataclasses import dataclass

from server.demo.columns import HISTORY_DAYS
from server.errors import InputError

PART_DAYS = 7
N_PARTS = 4  # training, validation, delay, test


@dataclass(frozen=True)
class Size:
    """How much to simulate. The defaults are those of the published data set.

    Attributes
    ----------
    n_customers, n_terminals : int
        At least 1 each.
    n_days : int
        Days from `start_date` on, at least 2 (frauds begin on each day but the last).
    start_date : str
        ISO date of the first day.
    radius : float
        How far a customer goes to a terminal, in units of the 100 x 100 grid.
    """

    n_customers: int = 5_000
    n_terminals: int = 10_000
    n_days: int = 183
    start_date: str = "2018-04-01"
    radius: float = 5.0

    def __post_init__(self) -> None:
        for name, least in (("n_customers", 1), ("n_terminals", 1), ("n_days", 2)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name} is {value}; give at least {least}")
        if not self.radius > 0:
            raise InputError(f"radius is {self.radius}; give a number above 0")


# What the demo simulates: history for whole windows, then the four parts.
DEMO_SIZE = Size(n_days=HISTORY_DAYS + N_PARTS * PART_DAYS)
