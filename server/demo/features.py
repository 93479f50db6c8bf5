"""The 15 model inputs of the *Fraud Detection Handbook*, computed with prefix sums.

Per transaction: its amount, whether it falls on a weekend or at night (hour <= 6); per customer
the number of transactions and their mean amount over 1, 7 and 30 days; per terminal the number of
transactions and the share of frauds (the risk) over windows of 1, 7 and 30 days that end 7 days
before the transaction, because a fraud is known only about a week after it happened.

Two definitions of the customer's windows:

* `as_published=True` includes the current transaction, as the handbook does: (t - w, t], and of
  equal times the rows up to this one. It reproduces the handbook's columns. A server cannot know
  it: the store holds what came *before* the transaction that is being scored.
* `as_published=False`, which the demo trains and serves on, is the state of the world before the
  transaction: (t - w, t), without any row of the same second. Terminal windows, (t - 7d - w,
  t - 7d], lie in the past already and are the same in both.

An empty window has a count of 0 and a mean or risk of 0 (as published, for the risk). That is
knowledge, "this card did nothing today", which the count beside it tells from a mean that is
really 0. NaN stays free to say the other thing, "nobody could tell me": on the wire it is a
missing feature, and the server falls back and counts it.

How: rows are sorted by (entity, time) under one integer key, entity x span + seconds, where the
span exceeds all times and windows, so that one `searchsorted` over all rows finds where each
row's window begins without ever reaching into a neighbour's rows; a window's sum is the difference
of two prefix sums. No loop over customers or terminals.

What it does not do: know what happened before the first row. The first 37 days of a data set have
shorter windows than later ones; whoever trains should leave them out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from server.demo.columns import (
    DELAY_DAYS,
    FEATURES,
    HISTORY_DAYS,
    NEEDED_COLUMNS,
    WINDOWS_DAYS,
)
from server.errors import InputError

LAST_NIGHT_HOUR = 6
DAY_S = 86_400

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def compute_features(transactions: pd.DataFrame, *, as_published: bool) -> pd.DataFrame:
    """Compute the 15 features of every transaction.

    Parameters
    ----------
    transactions : pandas.DataFrame
        With `columns.NEEDED_COLUMNS`, in any order of rows, without missing values.
    as_published : bool
        Whether the customer's windows include the transaction itself.

    Returns
    -------
    pandas.DataFrame
        The columns of `columns.FEATURES` in that order, float32, with the index of `transactions`.

    Raises
    ------
    InputError
        When a column is missing or not of a usable type, or a value is missing.
    """
    _check(transactions)
    moment = transactions["TX_DATETIME"].to_numpy(dtype="datetime64[s]")
    seconds = moment.astype(np.int64)
    amount = transactions["TX_AMOUNT"].to_numpy(dtype=np.float64)
    fraud = transactions["TX_FRAUD"].to_numpy(dtype=np.float64)
    hour = seconds % DAY_S // 3_600
    weekday = (seconds // DAY_S + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    columns: dict[str, npt.NDArray[np.generic]] = {
        "TX_AMOUNT": amount,
        "TX_DURING_WEEKEND": weekday >= 5,
        "TX_DURING_NIGHT": hour <= LAST_NIGHT_HOUR,
    }
    customer = transactions["CUSTOMER_ID"]
    columns |= _customer_windows(customer, seconds, amount, as_published=as_published)
    columns |= _terminal_windows(transactions["TERMINAL_ID"], seconds, fraud)
    return pd.DataFrame(
        {name: columns[name].astype(np.float32) for name in FEATURES}, index=transactions.index
    )


def _check(transactions: pd.DataFrame) -> None:
    """Refuse what the arithmetic below would silently turn into wrong features."""
    missing = [name for name in NEEDED_COLUMNS if name not in transactions.columns]
    if missing:
        raise InputError(
            f"columns needed to compute the features are missing: {', '.join(missing)}"
        )
    for name in NEEDED_COLUMNS:
        n_empty = int(transactions[name].isna().sum())
        if n_empty:
            raise InputError(f"column {name} has {n_empty} empty values; fill or drop those rows")
    if not pd.api.types.is_datetime64_any_dtype(transactions["TX_DATETIME"]):
        kind = transactions["TX_DATETIME"].dtype
        raise InputError(f"column TX_DATETIME is {kind}; it must hold timestamps")
    for name in ("TX_AMOUNT", "TX_FRAUD"):
        kind = transactions[name].dtype
        if not (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)):
            raise InputError(f"column {name} is {kind}; it must hold numbers")


class _Grouped:
    """Rows sorted by (entity, time), with positions of windows."""

    def __init__(self, entity: pd.Series, seconds: IntArray) -> None:
        codes = pd.factorize(entity)[0].astype(np.int64)
        since = seconds - (seconds.min() if len(seconds) else 0)
        # Longer than any window before any time: a window never reaches the entity before.
        span = (int(since.max()) if len(since) else 0) + (HISTORY_DAYS + 1) * DAY_S
        key = codes * span + since
        # Stable: equal times keep the order of the rows, as the published windows need.
        self.order = np.argsort(key, kind="stable")
        self.key = key[self.order]
        self.n_rows = len(key)

    def up_to(self, days: int, *, included: bool) -> IntArray:
        """Return, per sorted row, how many rows lie before, or `included` at, its time - days."""
        limit = self.key - days * DAY_S
        found = np.searchsorted(self.key, limit, side="right" if included else "left")
        return found.astype(np.int64)

    def prefix(self, values: FloatArray) -> FloatArray:
        """Return running sums over the sorted rows, beginning with 0."""
        return np.concatenate([[0.0], np.cumsum(values[self.order])])

    def unsorted(self, values: FloatArray) -> FloatArray:
        """Bring values of sorted rows back into the order of the input."""
        out = np.empty_like(values)
        out[self.order] = values
        return out


def _share(total: FloatArray, count: FloatArray) -> FloatArray:
    """Return total / count, 0 where the count is 0."""
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)


def _customer_windows(
    customer: pd.Series, seconds: IntArray, amount: FloatArray, *, as_published: bool
) -> dict[str, npt.NDArray[np.generic]]:
    """Count and average each customer's transactions over the windows."""
    rows = _Grouped(customer, seconds)
    # The published windows end with the row itself, ours before its second.
    end = np.arange(1, rows.n_rows + 1) if as_published else rows.up_to(0, included=False)
    amounts = rows.prefix(amount)
    columns: dict[str, npt.NDArray[np.generic]] = {}
    for days in WINDOWS_DAYS:
        begin = rows.up_to(days, included=True)
        count = (end - begin).astype(np.float64)
        mean = _share(amounts[end] - amounts[begin], count)
        columns[f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW"] = rows.unsorted(count)
        columns[f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW"] = rows.unsorted(mean)
    return columns


def _terminal_windows(
    terminal: pd.Series, seconds: IntArray, fraud: FloatArray
) -> dict[str, npt.NDArray[np.generic]]:
    """Count each terminal's transactions and the share of frauds, as known after the delay."""
    rows = _Grouped(terminal, seconds)
    end = rows.up_to(DELAY_DAYS, included=True)
    frauds = rows.prefix(fraud)
    columns: dict[str, npt.NDArray[np.generic]] = {}
    for days in WINDOWS_DAYS:
        begin = rows.up_to(DELAY_DAYS + days, included=True)
        count = (end - begin).astype(np.float64)
        risk = _share(frauds[end] - frauds[begin], count)
        columns[f"TERMINAL_ID_NB_TX_{days}DAY_WINDOW"] = rows.unsorted(count)
        columns[f"TERMINAL_ID_RISK_{days}DAY_WINDOW"] = rows.unsorted(risk)
    return columns
