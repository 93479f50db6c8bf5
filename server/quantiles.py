"""Quantiles of durations from the counters' buckets.

They are interpolated linearly in a bucket, as Prometheus does: as coarse as the buckets are.
Durations beyond the last bound count as that bound.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastpath.metrics import DURATION_BOUNDS_NS


def quantile_us(buckets: Sequence[int], share: float) -> float:
    """Return a quantile of a histogram of durations, in microseconds.

    Parameters
    ----------
    buckets
        Counts, not cumulative, by `DURATION_BOUNDS_NS`; the last has no upper bound.
    share
        0 to 1.

    Returns
    -------
    float
        0 where nothing was counted.
    """
    rank = share * sum(buckets)
    if not rank:
        return 0.0
    below = 0
    for index, (count, upper_ns) in enumerate(zip(buckets, DURATION_BOUNDS_NS, strict=False)):
        if count and below + count >= rank:
            lower_ns = DURATION_BOUNDS_NS[index - 1] if index else 0
            return (lower_ns + (upper_ns - lower_ns) * (rank - below) / count) / 1000
        below += count
    return DURATION_BOUNDS_NS[-1] / 1000
