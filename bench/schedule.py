"""When calls are to be sent, decided before the first one is.

Rules: a schedule is a pure function of its parameters and its seed: int64 nanoseconds from the
start, ascending, the last one before the duration's end. What the server does cannot move them;
that is what makes an open loop.

How it works: a rate over time is integrated, and call i is due when the integral reaches i (evenly
spaced), or the i-th sum of exponential gaps of mean 1 (a Poisson process of that rate).

What it does not do: it knows nothing of sending.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors import LoadInputError

MOST_CALLS = 200_000_000  # 1.6 GB of times
MOST_PER_S = 10_000_000.0

Times = NDArray[np.int64]
Points = tuple[tuple[float, float, float, float], ...]  # start s, end s, rate then, rate at its end


def _check_rate(name: str, rate: float, *, zero: bool = False) -> None:
    if not (math.isfinite(rate) and 0 <= rate <= MOST_PER_S) or (rate == 0 and not zero):
        least = "0" if zero else "above 0"
        raise LoadInputError(
            f"{name} is {rate} calls/s; a rate is {least} and at most {MOST_PER_S:.0f}"
        )


@dataclass(frozen=True)
class Schedule:
    """Intended send times. Make one with `constant`, `poisson`, `ramp` or `bursts`.

    Attributes
    ----------
    kind
        "constant", "poisson", "ramp" or "bursts".
    rates
        What the constructor was given, calls/s: one rate, or start and end, or base and peak.
    seed
        Of the Poisson process; None = evenly spaced.
    period_s, burst_s
        Bursts: one of `burst_s` seconds opens every period.
    """

    kind: str
    rates: tuple[float, ...]
    seed: int | None = None
    period_s: float = 0.0
    burst_s: float = 0.0

    @classmethod
    def constant(cls, calls_per_s: float) -> Schedule:
        """Return evenly spaced calls."""
        _check_rate("calls_per_s", calls_per_s)
        return cls("constant", (float(calls_per_s),))

    @classmethod
    def poisson(cls, calls_per_s: float, seed: int) -> Schedule:
        """Return independent arrivals: exponential gaps. What many callers make together."""
        _check_rate("calls_per_s", calls_per_s)
        return cls("poisson", (float(calls_per_s),), seed)

    @classmethod
    def ramp(cls, start_per_s: float, end_per_s: float, seed: int | None = None) -> Schedule:
        """Return a rate that moves in a line over the whole duration."""
        _check_rate("start_per_s", start_per_s, zero=True)
        _check_rate("end_per_s", end_per_s, zero=True)
        if start_per_s == end_per_s == 0:
            raise LoadInputError("a ramp from 0 to 0 calls/s has no calls; give it a rate")
        return cls("ramp", (float(start_per_s), float(end_per_s)), seed)

    @classmethod
    def bursts(
        cls,
        base_per_s: float,
        peak_per_s: float,
        period_s: float,
        burst_s: float,
        seed: int | None = None,
    ) -> Schedule:
        """Return a base rate with a burst at the begin of every period."""
        _check_rate("base_per_s", base_per_s, zero=True)
        _check_rate("peak_per_s", peak_per_s)
        if not (math.isfinite(period_s) and 0 < burst_s <= period_s):
            raise LoadInputError(
                f"bursts of {burst_s} s every {period_s} s: a burst is above 0 s and no longer than"
                " its period"
            )
        return cls(
            "bursts", (float(base_per_s), float(peak_per_s)), seed, float(period_s), float(burst_s)
        )

    def times_ns(self, duration_s: float) -> Times:
        """Return the intended send times.

        Parameters
        ----------
        duration_s
            Length of the schedule, seconds.

        Returns
        -------
        int64 (n,), C-contiguous
            Nanoseconds from the start, ascending, below `duration_s`.

        Raises
        ------
        LoadInputError
            The duration is not positive, or holds no call or more than 200 million.
        """
        if not (math.isfinite(duration_s) and duration_s > 0):
            raise LoadInputError(f"a schedule of {duration_s} s; a duration is above 0")
        pieces = self._pieces(duration_s)
        expected = sum((b - a) * (r + s) / 2 for a, b, r, s in pieces)
        if expected > MOST_CALLS:
            raise LoadInputError(
                f"{expected:.3g} calls in {duration_s} s; at most {MOST_CALLS}: "
                "lower the rate or the duration"
            )
        seconds = _inverse(pieces, self._sums(expected))
        times = np.floor(seconds * 1e9).astype(np.int64)
        times = times[times < duration_s * 1e9]
        if len(times) == 0:
            raise LoadInputError(
                f"{duration_s} s of {' and '.join(f'{r:g}' for r in self.rates)} calls/s "
                f"({self.kind}) hold no call; raise the rate or the duration"
            )
        return np.ascontiguousarray(times)

    def _pieces(self, duration_s: float) -> Points:
        # The rate as straight lines.
        if self.kind == "ramp":
            return ((0.0, duration_s, *self.rates),)  # type: ignore[return-value]
        if self.kind != "bursts":
            return ((0.0, duration_s, self.rates[0], self.rates[0]),)
        base, peak = self.rates
        pieces: list[tuple[float, float, float, float]] = []
        for i in range(math.ceil(duration_s / self.period_s)):
            start = i * self.period_s
            middle = min(start + self.burst_s, duration_s)
            end = min(start + self.period_s, duration_s)
            pieces.append((start, middle, peak, peak))
            if middle < end:
                pieces.append((middle, end, base, base))
        return tuple(pieces)

    def _sums(self, expected: float) -> NDArray[np.float64]:
        # At which values of the integrated rate a call is due.
        if self.seed is None:
            return np.arange(math.ceil(expected), dtype=np.float64)
        rng = np.random.default_rng(self.seed)
        # Six standard deviations more than the mean: the process does not end too soon.
        n = int(expected + 6 * math.sqrt(expected) + 16)
        sums = np.cumsum(rng.exponential(size=n))
        return sums[sums < expected]


def _inverse(
    pieces: Sequence[tuple[float, float, float, float]], sums: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return when the integral of the rate reaches each of `sums`."""
    seconds = np.empty_like(sums)
    done, reached = 0, 0.0
    for start, end, first, last in pieces:
        area = (end - start) * (first + last) / 2
        upto = int(np.searchsorted(sums, reached + area, side="left"))
        if upto > done:
            rest = sums[done:upto] - reached
            slope = (last - first) / (end - start)
            # first * t + slope * t^2 / 2 = rest, in the form that is exact for slope 0 as well.
            root = np.sqrt(np.maximum(first * first + 2 * slope * rest, 0.0))
            with np.errstate(invalid="ignore"):
                offset = np.where(rest == 0, 0.0, 2 * rest / (first + root))
            seconds[done:upto] = start + np.minimum(offset, end - start)
        done, reached = upto, reached + area
    seconds[done:] = pieces[-1][1]  # rounding: due at the very end, which is outside
    return seconds
