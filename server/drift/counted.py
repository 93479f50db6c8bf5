"""The fast window's rows as counts on the reference's bins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.drift.columns import Columns, Counts, Float32Array
from server.drift.hours import count_by_hour, hour_of_week


class Counted(NamedTuple):
    """A window of rows, counted."""

    counts: Counts
    values: list[Float32Array]  # sorted present values of each column
    hours: dict[int, NDArray[np.int64]]  # bins by hour of the week, of calendar columns


def count_rows(
    columns: Columns,
    calendar: Iterable[int],
    values: Float32Array,
    fallback: NDArray[np.bool_],
    times: NDArray[np.int64],
) -> Counted:
    """Count copies of a window's rows; the values are sorted in place.

    Parameters
    ----------
    columns : Columns
    calendar : iterable of int
        Columns to count by hour of the week, too.
    values, fallback, times
        As `FastWindow.rows` returns them.
    """
    hours = {}
    hour = hour_of_week(times)
    for j in calendar:
        present = ~np.isnan(values[j])
        size = int(columns.offsets[j + 1] - columns.offsets[j])
        hours[j] = count_by_hour(hour[present], columns.place(j, values[j, present]), size)
    values.sort(axis=1)  # NaN goes to the end
    n_present = values.shape[1] - np.isnan(values).sum(axis=1)
    present_values = [values[j, : n_present[j]] for j in range(columns.n_columns)]
    counts = np.zeros(columns.size, np.int64)
    columns.missing(counts)[:] = values.shape[1] - n_present
    columns.fallback(counts)[:] = fallback.sum(axis=1)
    for j, column in enumerate(present_values):
        if columns.is_category[j]:
            size = columns.n_categories[j] + 1
            columns.bins(counts, j)[:] = np.bincount(columns.place(j, column), minlength=size)
        else:
            columns.bins(counts, j)[:] = columns.sorted_bins(j, column)
    return Counted(counts, present_values, hours)
