"""Latencies in a fixed number of logarithmic buckets.

A bucket is 1/32 of a power of two wide, so a quantile is off by at most 2.2 %, whatever the load
and however long it lasts. From 1 microsecond to about 67 seconds; what lies outside counts in the
first or last bucket, and the largest value is kept exactly.
"""

from __future__ import annotations

import math

BUCKETS_PER_OCTAVE = 32
N_BUCKETS = 26 * BUCKETS_PER_OCTAVE


class LatencyHistogram:
    """Counts latencies. Not safe for concurrent use."""

    def __init__(self) -> None:
        self._counts = [0] * N_BUCKETS
        self.n = 0
        self.max_us = 0.0

    def add(self, latency_us: float) -> None:
        """Count one latency, in microseconds."""
        index = int(math.log2(latency_us) * BUCKETS_PER_OCTAVE) if latency_us > 1 else 0
        self._counts[min(index, N_BUCKETS - 1)] += 1
        self.n += 1
        self.max_us = max(self.max_us, latency_us)

    def quantile_us(self, share: float) -> float:
        """Return the upper end of the bucket that holds a quantile; 0 without values.

        Parameters
        ----------
        share : float
            0.99 for the 99th percentile.
        """
        if not self.n:
            return 0.0
        wanted = max(1, math.ceil(share * self.n))
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return min(2 ** ((index + 1) / BUCKETS_PER_OCTAVE), self.max_us)
        return self.max_us

    def merge(self, other: LatencyHistogram) -> None:
        """Add another histogram's counts to this one."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self.n += other.n
        self.max_us = max(self.max_us, other.max_us)
