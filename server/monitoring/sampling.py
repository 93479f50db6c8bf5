"""How many decisions are captured: a steady number of rows a second, whatever the traffic.

Rules: every (model, version) gets the same number of rows a second at most, spread evenly over
time, so that a window of so many rows spans the same time at 10 and at 100,000 calls a second.
With less traffic than that everything is captured. Rates fall within seconds when traffic rises,
and rise over a minute when it falls: where calls come in bursts, the rate is that of the bursts,
and the next one does not fill the rings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

# What a slot's traffic is taken for before it was measured: a server that starts under load must
# not fill its rings with the first half second.
UNKNOWN_CALLS_PER_S = 1000.0
# Time constants of the smoothed calls a second.
RISE_S = 2.0
FALL_S = 60.0


class Sampler:
    """Rates of capture by metrics slot.

    Parameters
    ----------
    rows_per_s
        Rows a second that are wanted of each slot.
    """

    def __init__(self, rows_per_s: float) -> None:
        self._rows_per_s = rows_per_s
        self._seen: dict[int, int] = {}
        self._calls_per_s: dict[int, float] = {}

    def rates(self, predictions: Mapping[int, int], elapsed_s: float) -> dict[int, float]:
        """Return the rate of each slot.

        Parameters
        ----------
        predictions
            Slot -> predictions so far.
        elapsed_s
            Since the last time; 0 at first.
        """
        rates = {}
        for slot, count in predictions.items():
            before = self._seen.get(slot)
            self._seen[slot] = count
            if before is not None and elapsed_s > 0:
                now = (count - before) / elapsed_s
                smooth = self._calls_per_s.get(slot, now)
                weight = 1.0 - math.exp(-elapsed_s / (RISE_S if now > smooth else FALL_S))
                self._calls_per_s[slot] = smooth + weight * (now - smooth)
            rates[slot] = self.rate(slot)
        return rates

    def rate(self, slot: int) -> float:
        """Return the rate of a slot by what is known of its traffic so far."""
        calls_per_s = self._calls_per_s.get(slot, UNKNOWN_CALLS_PER_S)
        return min(1.0, self._rows_per_s / calls_per_s) if calls_per_s > 0 else 1.0
