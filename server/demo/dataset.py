"""Where the demo's transactions come from, and which part of them is for what.

From the simulator, or from a file (Parquet or CSV) that holds either the 15 features or the raw
columns from which they are computed. A file's own features are used as they are.

The split respects that a fraud is known a week after it happened. With the test week beginning
on day T: train on [T - 21, T - 14), choose thresholds on [T - 14, T - 7), leave out [T - 7, T),
whose frauds nobody knows yet, and replay [T, T + 7). Days before T - 21 only fill the windows of
the features. A file of under 28 days is cut into four equal parts instead. What a store knows of
customers and terminals when the replay begins is their state at T.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from server.demo.columns import BOOLEANS, FEATURES, NEEDED_COLUMNS, TARGET
from server.demo.features import compute_features
from server.demo.simulator import simulate
from server.demo.sizes import N_PARTS, PART_DAYS, Size
from server.demo.states import states_at
from server.demo.tables import Table
from server.demo.traffic import Rows
from server.errors import InputError

# What every file needs beside the features or the raw columns they are made of.
ALWAYS_NEEDED = ("TX_DATETIME", "CUSTOMER_ID", TARGET)


@dataclass(frozen=True)
class Dataset:
    """Transactions with features, split by time.

    Attributes
    ----------
    train, valid, test : pandas.DataFrame
        `FEATURES` (booleans as bool), the target, and the columns of ids and time.
    origin : str
        A line for people: where the features come from.
    states : list of Table
        Every known customer and terminal as the test part begins; no terminals where the
        transactions name none.
    """

    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame
    origin: str
    states: list[Table]


def read_transactions(path: Path) -> pd.DataFrame:
    """Read a file of transactions, by its suffix.

    Raises
    ------
    InputError
        It cannot be read, or lacks columns; the error names them.
    """
    # The export room knows how to read tables, and how to say what is wrong with them.
    from server.export.frame import read_frame

    frame = read_frame(path)
    missing = [name for name in ALWAYS_NEEDED if name not in frame.columns]
    features = [name for name in FEATURES if name not in frame.columns]
    raw = [name for name in NEEDED_COLUMNS if name not in frame.columns]
    if missing or (features and raw):
        lacks = sorted({*missing, *raw})
        # Who gives most of the features meant to give all of them.
        nearly = 0 < len(features) <= len(FEATURES) // 2
        raise InputError(
            f"{path}: columns are missing: {', '.join(lacks)}. Give the raw columns "
            f"({', '.join(NEEDED_COLUMNS)}), or the 15 features of the handbook with "
            f"{', '.join(ALWAYS_NEEDED)}"
            + (f"; of the features it lacks {', '.join(features)}" if nearly else "")
        )
    if not pd.api.types.is_datetime64_any_dtype(frame["TX_DATETIME"]):
        try:
            frame["TX_DATETIME"] = pd.to_datetime(frame["TX_DATETIME"], format="ISO8601")
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: column TX_DATETIME: {error}") from None
    for name in ALWAYS_NEEDED:
        if n_empty := int(frame[name].isna().sum()):
            raise InputError(f"{path}: column {name} has {n_empty} empty values")
    if unknown := set(frame[TARGET].unique().tolist()) - {0, 1}:
        raise InputError(
            f"{path}: column {TARGET} has {sorted(unknown)[:3]}; only 0 and 1 are known"
        )
    return frame


def make_dataset(data: Path | None, size: Size, seed: int) -> Dataset:
    """Simulate or read transactions, compute features where needed, and split.

    Parameters
    ----------
    data : path or None
        A file; None simulates.
    size : Size
    seed : int
        What to simulate, without a file.
    """
    if data is None:
        frame = simulate(size, seed=seed)
        origin = "simulated; features as of before each transaction"
    else:
        frame = read_transactions(data)
        origin = f"{data}; features as they stand in the file"
    frame = frame.sort_values("TX_DATETIME", kind="stable", ignore_index=True)
    computes = any(name not in frame.columns for name in FEATURES)
    if computes:
        computed = compute_features(frame, as_published=False)
        frame = frame.drop(columns=[n for n in FEATURES if n in frame.columns]).join(computed)
        if data is not None:
            origin = f"{data}; features computed as of before each transaction"
    frame = frame.astype(dict.fromkeys(BOOLEANS, np.bool_))
    train, valid, test = _split(frame)
    for what, part in (("training", train), ("validation", valid)):
        if part[TARGET].nunique() < 2:
            raise InputError(
                f"the {what} part has {len(part)} transactions and {int(part[TARGET].sum())} "
                "frauds; it needs both kinds: give more transactions"
            )
    begin = test["TX_DATETIME"].dt.floor("D").min()
    return Dataset(train, valid, test, origin, states_at(frame, begin, computed=computes))


def _split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Cut the last days into training, validation, (delay,) and test."""
    day = frame["TX_DATETIME"].dt.floor("D")
    first, last = day.min(), day.max()
    n_days = (last - first).days + 1 if len(frame) else 0
    part_days = min(PART_DAYS, n_days // N_PARTS)
    if part_days < 1:
        raise InputError(
            f"the transactions span {n_days} days; at least {N_PARTS} are needed to train, "
            "to choose thresholds, to wait for labels and to replay"
        )
    age = (last - day).dt.days // part_days  # 0: the test part
    return frame[age == 3], frame[age == 2], frame[age == 0]


def replay_rows(test: pd.DataFrame, raw_score: Mapping[str, npt.NDArray[np.float32]]) -> Rows:
    """Return the test part as the replay wants it.

    Parameters
    ----------
    test : pandas.DataFrame
    raw_score : mapping of str to float32 [n_rows]
        What each version's engine makes of each row.
    """

    def ids(column: str) -> npt.NDArray[np.str_]:
        if column not in test.columns:
            return np.full(len(test), "", dtype=np.str_)
        return test[column].astype(str).to_numpy(dtype=np.str_)

    transaction = ids("TRANSACTION_ID")
    if "TRANSACTION_ID" not in test.columns:
        transaction = np.arange(len(test)).astype(np.str_)
    moment = test["TX_DATETIME"].to_numpy(dtype="datetime64[ms]")
    return Rows(
        names=np.array(FEATURES, dtype=np.str_),
        features=test[list(FEATURES)].to_numpy(dtype=np.float32),
        fraud=test[TARGET].to_numpy(dtype=np.bool_),
        transaction=transaction,
        customer=ids("CUSTOMER_ID"),
        terminal=ids("TERMINAL_ID"),
        event_time_ms=moment.astype(np.int64),
        versions=np.array(list(raw_score), dtype=np.str_),
        raw_score=np.stack(list(raw_score.values())),
    )
