"""p-values for reports, by scipy.

The serving process must not import this: scipy.stats alone doubles its memory, and thirty p-values
take 100 ms. There, `critical.py` compares with tables instead.
"""

from __future__ import annotations

from scipy.stats import kstwo


def ks_p_value(distance: float, n: float, m: float, design_effect: float = 1.0) -> float:
    """Return the asymptotic two-sided p-value of a two-sample D.

    As `scipy.stats.ks_2samp(method="asymp")`: the one-sample distribution at the rounded effective
    sample size.

    Parameters
    ----------
    distance : float
    n, m : float
        Sizes of the samples.
    design_effect : float
        What the effective size is divided by.
    """
    size = max(1, round(n * m / (n + m) / design_effect))
    return float(min(1.0, max(0.0, kstwo.sf(distance, size))))
