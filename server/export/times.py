"""Event times of rows, for what of the reference depends on the hour of the week."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray


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
