"""Whether two shares of rows differ: missing values, fallbacks, unseen categories.

Where both samples expect at least five of either kind, the two-proportion test with the pooled
variance; else Fisher's exact test, which is what counts of zero in the reference need. Both are
one-sided in the direction seen, with the p-value doubled.
"""

from __future__ import annotations

import math

LEAST_EXPECTED = 5.0


def rate_p_value(count: int, n: int, reference_count: int, m: int) -> float:
    """Return the two-sided p-value that `count` of n and `reference_count` of m share a rate.

    Parameters
    ----------
    count, n : int
        Rows of the kind, and rows, in the window.
    reference_count, m : int
        The same of the reference.
    """
    if n <= 0 or m <= 0:
        return 1.0
    together = count + reference_count
    pooled = together / (n + m)
    if min(n, m) * min(pooled, 1 - pooled) >= LEAST_EXPECTED:
        difference = abs(count / n - reference_count / m)
        deviation = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        return math.erfc(difference / deviation / math.sqrt(2))
    return fisher_p_value(count, n, reference_count, m)


def fisher_p_value(count: int, n: int, reference_count: int, m: int) -> float:
    """Return twice the hypergeometric tail in the direction seen, at most 1 (Fisher 1935)."""
    if count * m < reference_count * n:
        count, n, reference_count, m = reference_count, m, count, n
    together = count + reference_count
    if 2 * together > n + m:  # the same tail, counted in the rarer kind
        count, n, reference_count, m = m - reference_count, m, n - count, n
        together = count + reference_count
    whole = _log_choose(n + m, together)
    most = min(n, together)
    tail = sum(
        math.exp(_log_choose(n, i) + _log_choose(m, together - i) - whole)
        for i in range(max(count, together - m), most + 1)
    )
    return min(1.0, 2 * tail)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
