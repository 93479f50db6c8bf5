"""From which distance on a difference is more than chance, without scipy.

Critical values of D come from a table that the export computed exactly (scipy's kstwo) at a grid
of effective sample sizes and tail probabilities, and are interpolated here. A bundle without the
table is read with Massart's bound, which holds for every size and is a little larger.

With K tests at once each is held to alpha / K (Bonferroni), so that the chance of any false one is
at most alpha, whatever the correlation between features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.drift.rates import fisher_p_value

LEAST_EXPECTED = 5.0  # rows in a cell of the chi-square test; Cochran (1954)
MAX_DOF = 2000


@dataclass(frozen=True)
class CriticalTable:
    """Critical values of D.

    Attributes
    ----------
    sizes : array of float, shape (n_sizes,), ascending
        Effective sample sizes.
    tails : array of float, shape (n_tails,), descending
        Probabilities of a larger D by chance.
    distances : array of float, shape (n_sizes, n_tails)
    """

    sizes: NDArray[np.float64]
    tails: NDArray[np.float64]
    distances: NDArray[np.float64]


def effective_size(n: float, m: float, design_effect: float = 1.0) -> float:
    """Return n m / (n + m), over the design effect: the size that D's distribution depends on."""
    return n * m / (n + m) / design_effect


def massart_bound(size: float, tail: float) -> float:
    """Return a D that chance exceeds with at most `tail`: 2 exp(-2 n D^2), Massart (1990)."""
    return min(1.0, math.sqrt(math.log(2 / tail) / (2 * size)))


class CriticalCurve:
    """The D that chance exceeds with one tail probability, at any effective sample size.

    Parameters
    ----------
    tail : float
        alpha / K.
    table : CriticalTable or None
        None, or a tail outside the table: Massart's bound.

    Notes
    -----
    D^2 is close to linear in the logarithm of the tail, and D sqrt(n) in 1 / sqrt(n): linear
    interpolation in those is off by under 0.2 %.
    """

    def __init__(self, tail: float, table: CriticalTable | None) -> None:
        self._tail = tail
        self._least = math.inf
        if table is None or not table.tails[-1] <= tail <= table.tails[0]:
            return
        self._least = float(table.sizes[0])
        self._places = -1 / np.sqrt(table.sizes)
        scaled = np.square(table.distances) * table.sizes[:, None]
        logs = np.log(table.tails)[::-1]
        found = [np.interp(math.log(tail), logs, row[::-1]) for row in scaled]
        self._roots = np.sqrt(np.array(found))

    def at(self, size: float) -> float:
        """Return the critical D at an effective sample size, `effective_size`."""
        bound = massart_bound(size, self._tail)
        if size < self._least:
            return bound
        # np.interp holds the last size's figure beyond the table, where it has converged.
        root = float(np.interp(-1 / math.sqrt(size), self._places, self._roots))
        return min(bound, root / math.sqrt(size))


def chi_square_tail(statistic: float, dof: int) -> float:
    """Return the probability that chi-square with `dof` degrees of freedom exceeds `statistic`.

    The closed sums of Abramowitz and Stegun 26.4.4 and 26.4.5.
    """
    if dof > MAX_DOF:  # Wilson and Hilferty (1931): at such sizes as good as exact
        z = ((statistic / dof) ** (1 / 3) - (1 - 2 / (9 * dof))) / math.sqrt(2 / (9 * dof))
        return 0.5 * math.erfc(z / math.sqrt(2))
    half = statistic / 2
    if half <= 0:
        return 1.0
    odd = dof % 2 == 1
    total = math.erfc(math.sqrt(half)) if odd else 0.0
    log_half = math.log(half)
    for i in range(dof // 2):
        power = i + 0.5 if odd else float(i)
        total += math.exp(power * log_half - half - math.lgamma(power + 1))
    return min(1.0, total)


def homogeneity_p_value(
    window: NDArray[Any], reference: NDArray[Any], design_effect: float = 1.0
) -> float:
    """Return the p-value of the chi-square test that two counts have one distribution.

    Cells whose expected count is under 5 in either sample are pooled into one (Cochran 1954).
    Where that is still too few, their share is tested exactly, and the smaller of both p-values
    is doubled: a category that comes up where there was none shows before it is frequent.
    """
    window = np.asarray(window, np.float64) / design_effect
    reference = np.asarray(reference, np.float64) / design_effect
    n, m = float(window.sum()), float(reference.sum())
    if not n or not m:
        return 1.0
    least = LEAST_EXPECTED * (n + m) / min(n, m)
    rare = window + reference < least
    a, b = float(window[rare].sum()), float(reference[rare].sum())
    window, reference = window[~rare], reference[~rare]
    if a + b >= least:
        return _chi_square_p_value(np.append(window, a), np.append(reference, b))
    p = _chi_square_p_value(window, reference)
    if not a + b:
        return p
    return min(1.0, 2 * min(p, fisher_p_value(round(a), round(n), round(b), round(m))))


def _chi_square_p_value(window: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    n, m = float(window.sum()), float(reference.sum())
    if len(window) < 2 or not n or not m:
        return 1.0
    spread = np.square(window / n - reference / m) / (window + reference)
    return chi_square_tail(n * m * float(spread.sum()), len(window) - 1)


def bonferroni(alpha: float, n_tests: int) -> float:
    """Return what each of `n_tests` p-values is held to."""
    return alpha / max(1, n_tests)


def table_of(sizes: Any, tails: Any, distances: Any) -> CriticalTable:
    """Return a table; the tails are put in descending order."""
    order = np.argsort(-np.asarray(tails, np.float64), kind="stable")
    return CriticalTable(
        np.asarray(sizes, np.float64),
        np.asarray(tails, np.float64)[order],
        np.asarray(distances, np.float64)[:, order],
    )
