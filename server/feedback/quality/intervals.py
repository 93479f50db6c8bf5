"""Wilson's interval of a proportion.

E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference". Unlike
value +- 1.96 standard errors it holds near 0 and 1 and with few rows, where fraud lives. Where rows
have weights, n is what they are worth (`trials`).

It takes rows to be independent. Several frauds of one card are not: `bootstrap` resamples cards.
"""

from __future__ import annotations

import math
from typing import NamedTuple

Z = 1.959963984540054  # the normal's 97.5 % quantile


class Interval(NamedTuple):
    """A 95 % interval; NaN where there is nothing to say."""

    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


def wilson(share: float, n: float) -> Interval:
    """Return the 95 % interval of a share of n (effective) trials.

    Parameters
    ----------
    share
        0 to 1, or NaN.
    n
        Trials; need not be whole.
    """
    if not n > 0 or math.isnan(share):
        return UNKNOWN
    centre = share + Z * Z / (2 * n)
    reach = Z * math.sqrt(max(0.0, share * (1 - share)) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    # The bounds are the share itself at 0 and 1; rounding must not put them beyond it.
    low = 0.0 if share <= 0 else (centre - reach) / scale
    high = 1.0 if share >= 1 else (centre + reach) / scale
    return Interval(min(max(low, 0.0), share), max(min(high, 1.0), share))
