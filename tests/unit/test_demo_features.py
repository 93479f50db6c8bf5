"""The 15 features: against the handbook's own columns, and against pandas' rolling windows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.demo.columns import FEATURES, HISTORY_DAYS, NEEDED_COLUMNS
from server.demo.features import compute_features
from server.demo.simulator import simulate
from server.demo.sizes import Size
from server.errors import InputError

DAY = pd.Timedelta(days=1)


def handbook() -> pd.DataFrame:
    default = Path(__file__).parents[3] / "shared" / "data" / "handbook_transactions.parquet"
    path = Path(os.environ.get("SCOREGATE_HANDBOOK", default))
    if not path.is_file():
        pytest.skip(f"the handbook's file is not at {path}: set SCOREGATE_HANDBOOK")
    return pd.read_parquet(path)


def frame_of(rows: list[tuple[int, int, int, int, int]]) -> pd.DataFrame:
    """Rows of (second, customer, terminal, cents, fraud), ordered by time."""
    rows = sorted(rows, key=lambda row: row[0])
    second, customer, terminal, cents, fraud = np.array(rows, dtype=np.int64).T
    return pd.DataFrame(
        {
            "TX_DATETIME": pd.Timestamp("2018-04-01") + pd.to_timedelta(second, unit="s"),
            "CUSTOMER_ID": customer,
            "TERMINAL_ID": terminal,
            "TX_AMOUNT": cents / 100,
            "TX_FRAUD": fraud,
        }
    )


def slowly(frame: pd.DataFrame, *, as_published: bool) -> pd.DataFrame:
    """Compute the same row by row, straight from the definitions."""
    out = []
    moment = frame["TX_DATETIME"]
    for position, (_, row) in enumerate(frame.iterrows()):
        now = row["TX_DATETIME"]
        mine = frame["CUSTOMER_ID"] == row["CUSTOMER_ID"]
        there = frame["TERMINAL_ID"] == row["TERMINAL_ID"]
        past = np.arange(len(frame)) <= position if as_published else (moment < now).to_numpy()
        values = [row["TX_AMOUNT"], float(now.day_of_week >= 5), float(now.hour <= 6)]
        for days in (1, 7, 30):
            window = frame[mine & past & (moment > now - days * DAY)]
            values += [len(window), window["TX_AMOUNT"].mean() if len(window) else 0.0]
        for days in (1, 7, 30):
            window = frame[there & (moment <= now - 7 * DAY) & (moment > now - (7 + days) * DAY)]
            values += [len(window), window["TX_FRAUD"].mean() if len(window) else 0.0]
        out.append(values)
    return pd.DataFrame(out, columns=list(FEATURES), index=frame.index).astype(np.float32)


# Times on a coarse grid, so that ties and windows that begin exactly on a row are frequent.
ROWS = st.lists(
    st.tuples(
        st.integers(0, 160).map(lambda quarter: quarter * 21_600),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 30_000),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(ROWS, st.booleans())
def test_equals_the_definition(
    rows: list[tuple[int, int, int, int, int]], as_published: bool
) -> None:
    frame = frame_of(rows)
    fast = compute_features(frame, as_published=as_published)
    slow = slowly(frame, as_published=as_published)
    pd.testing.assert_frame_equal(fast, slow, rtol=1e-6, atol=1e-6)


def test_equals_the_handbook() -> None:
    theirs = handbook()
    names = list(NEEDED_COLUMNS)
    ours = compute_features(theirs[names], as_published=True)
    assert set(FEATURES) <= set(theirs.columns)
    whole = theirs["TX_DATETIME"] >= theirs["TX_DATETIME"].min() + HISTORY_DAYS * DAY
    assert whole.sum() > 70_000
    for name in FEATURES:
        a, b = ours.loc[whole, name], theirs.loc[whole, name].astype(np.float32)
        if "AVG" in name:  # their sums run in another order: the last bit of float32 may differ
            np.testing.assert_allclose(a, b, rtol=2e-7, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_equals_pandas_rolling() -> None:
    """The published recipe, as the handbook writes it, on simulated rows."""
    frame = simulate(Size(n_customers=60, n_terminals=300, n_days=50), seed=11)
    fast = compute_features(frame, as_published=True)
    indexed = frame.set_index("TX_DATETIME")
    for days in (1, 7, 30):
        rolled = indexed.groupby("CUSTOMER_ID")["TX_AMOUNT"].rolling(f"{days}D")
        # Rolled rows come by customer, then in the order of the frame.
        order = np.argsort(frame["CUSTOMER_ID"].to_numpy(), kind="stable")
        expected = pd.Series(rolled.mean().to_numpy(), index=frame.index[order])
        got = fast[f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW"]
        np.testing.assert_allclose(got, expected.sort_index(), rtol=1e-5, atol=1e-5)
        counts = pd.Series(rolled.count().to_numpy(), index=frame.index[order]).sort_index()
        np.testing.assert_array_equal(fast[f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW"], counts)


def test_the_current_transaction_is_not_known_before_it_happens() -> None:
    frame = simulate(Size(n_customers=40, n_terminals=300, n_days=40), seed=2)
    before = compute_features(frame, as_published=False)
    changed = frame.copy()
    last = len(frame) - 1
    changed.loc[last, ["TX_AMOUNT", "TX_FRAUD"]] = [1_000, 1]
    after = compute_features(changed, as_published=False)
    windows = list(FEATURES[3:])
    ours = after[windows].to_numpy()[last]
    np.testing.assert_array_equal(before[windows].to_numpy()[last], ours)
    published = compute_features(changed, as_published=True)
    assert (published[windows].to_numpy()[last] != ours).any()


def test_order_of_rows_and_kind_of_ids_do_not_matter() -> None:
    frame = simulate(Size(n_customers=40, n_terminals=300, n_days=30), seed=4)
    expected = compute_features(frame, as_published=False)
    shuffled = frame.sample(frac=1.0, random_state=0)
    shuffled["CUSTOMER_ID"] = "c" + shuffled["CUSTOMER_ID"].astype(str)
    got = compute_features(shuffled, as_published=False).loc[frame.index]
    pd.testing.assert_frame_equal(got, expected, rtol=1e-6)


def test_empty_windows_are_zero_and_nothing_is_nan() -> None:
    frame = frame_of([(0, 0, 0, 500, 1)])
    row = compute_features(frame, as_published=False).iloc[0]
    assert row["TX_AMOUNT"] == 5
    assert (row[list(FEATURES[3:])] == 0).all()


def test_no_rows() -> None:
    frame = frame_of([(0, 0, 0, 500, 1)]).iloc[:0]
    assert compute_features(frame, as_published=False).shape == (0, 15)


def test_missing_columns_are_named() -> None:
    frame = frame_of([(0, 0, 0, 500, 1)]).drop(columns=["TERMINAL_ID", "TX_FRAUD"])
    with pytest.raises(InputError, match="TERMINAL_ID, TX_FRAUD"):
        compute_features(frame, as_published=False)


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("TX_AMOUNT", pd.Series([np.nan]), "TX_AMOUNT has 1 empty"),
        ("TX_AMOUNT", pd.Series(["five"]), "TX_AMOUNT is"),
        ("TX_DATETIME", pd.Series([17]), "TX_DATETIME is int"),
        ("CUSTOMER_ID", pd.Series([None]), "CUSTOMER_ID has 1 empty"),
    ],
)
def test_unusable_columns_are_named(column: str, values: pd.Series, says: str) -> None:
    frame = frame_of([(0, 0, 0, 500, 1)])
    frame[column] = values
    with pytest.raises(InputError, match=says):
        compute_features(frame, as_published=True)
