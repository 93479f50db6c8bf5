"""Event times of rows, for what of the reference depends on the hour of the week."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from server.errors import InputError


def event_times_ms(column: pd.Series) -> NDArray[np.int64] | None:
    """Return times in milliseconds since the epoch, or None where the column holds no timestamps.

    Timestamps without a zone count as UTC; texts are read as ISO 8601. Numbers could be seconds,
    milliseconds or days: they order rows, and no hour is read from them.
    """
    if pd.api.types.is_numeric_dtype(column.dtype):
        return None
    try:
        times = pd.to_datetime(column, utc=True, format="ISO8601")
    except (TypeError, ValueError):
        return None
    if times.isna().any():
        return None
    return times.dt.tz_convert(None).to_numpy(dtype="datetime64[ms]").astype(np.int64)


def needed_times_ms(column: pd.Series, where: str) -> NDArray[np.int64]:
    """Return the same for a column that was named for its times alone.

    Raises
    ------
    InputError
        It holds numbers, texts that are no times, or rows without one.
    """
    times = event_times_ms(column)
    if times is None:
        raise InputError(
            f"{where}: column {column.name!r} ({column.dtype}) does not hold a time in every row: "
            "give timestamps, or ISO 8601 texts as in 2026-03-01T12:00:00Z"
        )
    return times
