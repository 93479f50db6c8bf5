"""How many decisions are captured: a steady number of rows a second, whatever the traffic.

Rules: every (model, version) gets the same number of rows a second at most, spread evenly over
time, so that a window of so many rows spans the same time at 10 and at 100,000 calls a second.
With less traffic than that everything is captured. Rates follow the traffic of the last moments,
and change slowly enough that a window is not a mixture of extremes.
"""

from __future__ import annotations

from collections.abc import Mapping

# What a slot's traffic is taken for before it was measured: a server that starts under load must
# not fill its rings with the first half second.
UNKNOWN_CALLS_PER_S = 1000.0
# Weight of the newest measurement in the smoothed calls a second.
SMOOTHING = 0.3


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
                self._calls_per_s[slot] = smooth + SMOOTHING * (now - smooth)
            calls_per_s = self._calls_per_s.get(slot, UNKNOWN_CALLS_PER_S)
            rates[slot] = min(1.0, self._rows_per_s / calls_per_s) if calls_per_s > 0 else 1.0
        return rates
