"""Calendar features are compared with the same hours of the week.

A night flag is 1 at night: a window of one night against a reference of whole weeks would always
be "drifted". So the reference keeps a histogram per hour of the week (UTC, Monday 00:00 first),
and what a window is held against is those hours' mixture, in the window's own proportions. Rows of
hours that the reference hardly knows are left out; where that is most of the window, nothing can
be said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOURS = 168
HOUR_MS = 3_600_000
THURSDAY_H = 72  # 1970-01-01 was a Thursday
LEAST_ROWS = 20  # of the reference in an hour, for the hour to be known
LEAST_COVERED = 0.5  # of the window's rows, in known hours


def hour_of_week(time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the hour of the week, 0 to 167, of times since the epoch (UTC)."""
    return (time_ms // HOUR_MS + THURSDAY_H) % HOURS


def count_by_hour(
    hours: NDArray[np.int64], places: NDArray[np.intp], n_bins: int
) -> NDArray[np.int64]:
    """Count rows by hour and bin.

    Returns
    -------
    array of int64, shape (168, n_bins)
    """
    flat = np.bincount(hours * n_bins + places, minlength=HOURS * n_bins)
    return flat.reshape(HOURS, n_bins).astype(np.int64)


@dataclass(frozen=True)
class SameHours:
    """A window, and what the reference expects of its hours."""

    window: NDArray[np.int64]  # [n_bins], rows in known hours
    expected: NDArray[np.float64]  # [n_bins], as many rows as `n_reference`
    n_reference: float  # effective size of the mixture
    covered: float  # share of the window's rows in known hours


def same_hours(window: NDArray[Any], reference: NDArray[np.int64]) -> SameHours | None:
    """Mix the reference's hours as the window has them; None where most are unknown.

    Parameters
    ----------
    window, reference : array of int64, shape (168, n_bins)

    Notes
    -----
    With weights w_h and m_h reference rows an hour, the mixture's variance is that of
    1 / sum(w_h^2 / m_h) rows, as for any stratified estimate.
    """
    per_hour = window.sum(axis=1)
    rows = reference.sum(axis=1)
    known = rows >= LEAST_ROWS
    n = int(per_hour[known].sum())
    total = int(per_hour.sum())
    if not total or n / total < LEAST_COVERED:
        return None
    used = known & (per_hour > 0)
    weight = per_hour[used] / n
    shares = (weight[:, None] * reference[used] / rows[used, None]).sum(axis=0)
    size = 1 / float((np.square(weight) / rows[used]).sum())
    return SameHours(window[used].sum(axis=0), shares * size, size, n / total)
