"""The card-transaction simulator of the *Fraud Detection Handbook*, vectorised.

The rules are those of Le Borgne, Siblini, Lebichot and Bontempi, *Reproducible Machine Learning
for Credit Card Fraud Detection - Practical Handbook* (Université Libre de Bruxelles), chapter 3:

* Customers and terminals lie uniformly on a 100 x 100 grid. A customer uses the terminals nearer
  than 5, each equally often.
* A customer has a mean amount, U(5, 100), a standard deviation of half of it, and a mean number
  of transactions a day, U(0, 4). The number on one day is Poisson.
* The second of the day is the whole part of N(43200, 20000); what falls outside the day is
  dropped. The amount is normal; a negative one is drawn again from U(0, 2 x mean).
* Frauds, in this order, a later scenario replacing an earlier one's label:

  1. every amount over 220;
  2. each day but the last, 2 terminals are drawn: all their transactions for 28 days;
  3. each day but the last, 3 customers are drawn: a third (rounded down) of their transactions
     of the next 14 days, whose amounts are multiplied by 5. A transaction can be hit twice.

What it does not do: reproduce the published file bit for bit. That one was drawn with the legacy
generator, customer by customer; here one `numpy.random.Generator` draws whole columns. Equal
seeds give equal transactions as long as numpy keeps its streams.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from server.demo.sizes import Size
from server.errors import InputError

DAY_S = 86_400
GRID = 100.0  # side of the square that customers and terminals lie on
MEAN_AMOUNT = (5.0, 100.0)
MEAN_TX_PER_DAY = (0.0, 4.0)
TIME_MEAN_S = DAY_S / 2
TIME_SD_S = 20_000.0
LARGE_AMOUNT = 220.0  # scenario 1
TERMINALS_A_DAY, TERMINAL_DAYS = 2, 28  # scenario 2
CUSTOMERS_A_DAY, CUSTOMER_DAYS = 3, 14  # scenario 3
CUSTOMER_SHARE = 3  # one in so many of a compromised customer's transactions is fraud
CUSTOMER_FACTOR = 5.0

# Rows of the customer x terminal distance matrix that are held at a time.
_BLOCK = 256

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def simulate(size: Size | None = None, *, seed: int = 0) -> pd.DataFrame:
    """Simulate transactions with frauds.

    Parameters
    ----------
    size : Size, optional
        The published size (1.75 million transactions) where absent.
    seed : int
        Equal seeds and sizes give equal frames.

    Returns
    -------
    pandas.DataFrame
        The columns of `columns.RAW_COLUMNS`, in the published types, ordered by time.
        TRANSACTION_ID counts from 0 in that order.

    Raises
    ------
    InputError
        When no customer has a terminal within the radius.
    """
    size = size or Size()
    rng = np.random.default_rng(seed)
    customer, terminal, amount, time_s = _transactions(size, rng)
    day = time_s // DAY_S
    scenario = np.where(amount > LARGE_AMOUNT, 1, 0).astype(np.int8)
    compromised = _compromised_terminals(size, rng)
    scenario[compromised[terminal, day]] = 2
    for chosen in _compromised_rows(size, customer, day, rng):
        amount[chosen] *= CUSTOMER_FACTOR
        scenario[chosen] = 3
    start = np.datetime64(size.start_date, "ns")
    return pd.DataFrame(
        {
            "TRANSACTION_ID": np.arange(len(time_s), dtype=np.int32),
            "TX_DATETIME": start + time_s.astype("timedelta64[s]"),
            "CUSTOMER_ID": customer.astype(np.int32),
            "TERMINAL_ID": terminal.astype(np.int32),
            # Whole cents: the factor 5 leaves binary dust behind.
            "TX_AMOUNT": np.round(amount, 2),
            "TX_TIME_SECONDS": time_s.astype(np.int32),
            "TX_TIME_DAYS": day.astype(np.int32),
            "TX_FRAUD": (scenario > 0).astype(np.int8),
            "TX_FRAUD_SCENARIO": scenario,
        }
    )


def _transactions(
    size: Size, rng: np.random.Generator
) -> tuple[IntArray, IntArray, FloatArray, IntArray]:
    """Draw all genuine transactions: customer, terminal, amount, second since the start."""
    customer_xy = rng.uniform(0.0, GRID, (size.n_customers, 2))
    mean_amount = rng.uniform(*MEAN_AMOUNT, size.n_customers)
    tx_per_day = rng.uniform(*MEAN_TX_PER_DAY, size.n_customers)
    terminal_xy = rng.uniform(0.0, GRID, (size.n_terminals, 2))
    first, available = _terminals_in_reach(customer_xy, terminal_xy, size.radius)
    n_available = np.diff(first)
    if not n_available.any():
        raise InputError(
            f"no customer has a terminal within {size.radius:g} of the {GRID:g} x {GRID:g} grid: "
            f"give more than {size.n_terminals} terminals or a larger radius"
        )
    # A customer without a terminal in reach buys nothing.
    rate = np.where(n_available > 0, tx_per_day, 0.0)
    counts = rng.poisson(rate[:, None], (size.n_customers, size.n_days)).ravel()
    cell = np.repeat(np.arange(counts.size, dtype=np.int64), counts)
    second = np.trunc(rng.normal(TIME_MEAN_S, TIME_SD_S, cell.size)).astype(np.int64)
    keep = (second > 0) & (second < DAY_S)
    customer, day = np.divmod(cell[keep], size.n_days)
    time_s = day * DAY_S + second[keep]
    # Chronological; equal seconds by customer, so that the order is a function of the draw.
    order = np.lexsort((customer, time_s))
    customer, time_s = customer[order], time_s[order]
    mean = mean_amount[customer]
    amount = rng.normal(mean, mean / 2)
    negative = amount < 0
    amount[negative] = rng.uniform(0.0, 2 * mean[negative])
    chance = rng.random(customer.size)
    terminal = available[first[customer] + (chance * n_available[customer]).astype(np.int64)]
    return customer, terminal, np.round(amount, 2), time_s


def _terminals_in_reach(
    customer_xy: FloatArray, terminal_xy: FloatArray, radius: float
) -> tuple[IntArray, IntArray]:
    """Return `first` and `available`: customer c uses `available[first[c] : first[c + 1]]`."""
    found, counts = [], []
    for begin in range(0, len(customer_xy), _BLOCK):
        block = customer_xy[begin : begin + _BLOCK]
        distance2 = (block[:, :1] - terminal_xy[:, 0]) ** 2
        distance2 += (block[:, 1:] - terminal_xy[:, 1]) ** 2
        near = distance2 < radius**2
        counts.append(near.sum(axis=1))
        found.append(np.nonzero(near)[1])
    first = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return first, np.concatenate(found).astype(np.int64)


def _compromised_terminals(size: Size, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Draw scenario 2: whether a terminal (row) is compromised on a day (column)."""
    compromised = np.zeros((size.n_terminals, size.n_days), dtype=np.bool_)
    n_drawn = min(TERMINALS_A_DAY, size.n_terminals)
    for day in range(size.n_days - 1):
        drawn = rng.choice(size.n_terminals, n_drawn, replace=False)
        compromised[drawn, day : day + TERMINAL_DAYS] = True
    return compromised


def _compromised_rows(
    size: Size, customer: IntArray, day: IntArray, rng: np.random.Generator
) -> list[IntArray]:
    """Draw scenario 3: for each day, the rows whose amounts a fraudster multiplies."""
    # Sorted by (customer, day), one customer's rows of some days are one slice.
    key = customer * size.n_days + day
    order = np.argsort(key, kind="stable")
    key = key[order]
    n_drawn = min(CUSTOMERS_A_DAY, size.n_customers)
    chosen = []
    for today in range(size.n_days - 1):
        drawn = rng.choice(size.n_customers, n_drawn, replace=False) * size.n_days
        begin = np.searchsorted(key, drawn + today)
        end = np.searchsorted(key, drawn + min(today + CUSTOMER_DAYS, size.n_days))
        rows = np.concatenate([order[b:e] for b, e in zip(begin, end, strict=True)])
        chosen.append(rng.choice(rows, len(rows) // CUSTOMER_SHARE, replace=False))
    return chosen
