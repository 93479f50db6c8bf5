"""The handbook's transactions, split by its published protocol.

The file is not part of the project. SCOREGATE_HANDBOOK names it; else it is looked for beside the
repository. Tests that need it skip where it is absent, and say so (`needs_handbook`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

DEFAULT = Path(__file__).resolve().parents[3] / "shared/data/handbook_transactions.parquet"
FILE = Path(os.environ.get("SCOREGATE_HANDBOOK", DEFAULT))

needs_handbook = pytest.mark.skipif(
    not FILE.is_file(),
    reason=f"the handbook's transactions are not at {FILE}: set SCOREGATE_HANDBOOK",
)

FEATURES = [
    "TX_AMOUNT",
    "TX_DURING_WEEKEND",
    "TX_DURING_NIGHT",
    *(
        f"CUSTOMER_ID_{what}_{days}DAY_WINDOW"
        for days in (1, 7, 30)
        for what in ("NB_TX", "AVG_AMOUNT")
    ),
    *(f"TERMINAL_ID_{what}_{days}DAY_WINDOW" for days in (1, 7, 30) for what in ("NB_TX", "RISK")),
]


@dataclass(frozen=True)
class Weeks:
    """A week to train on, and the week after the labels' delay."""

    train: pd.DataFrame
    test: pd.DataFrame

    @staticmethod
    def features(rows: pd.DataFrame) -> pd.DataFrame:
        """Return the model's inputs."""
        return rows[FEATURES].astype(np.float32)


def read_weeks() -> Weeks:
    """Read both; cards that are known to be compromised are not in the test week."""
    frame = pd.read_parquet(FILE)
    day = frame["TX_DATETIME"].dt.normalize()
    fraud = frame["TX_FRAUD"] == 1
    train = frame[day.between("2018-07-25", "2018-07-31")]
    known = set(train.loc[fraud, "CUSTOMER_ID"])
    parts = []
    for date in pd.date_range("2018-08-08", "2018-08-14"):
        known |= set(frame.loc[fraud & (day == date - pd.Timedelta(days=8)), "CUSTOMER_ID"])
        parts.append(frame[(day == date) & ~frame["CUSTOMER_ID"].isin(known)])
    test = pd.concat(parts)
    assert (len(train), int(train["TX_FRAUD"].sum())) == (67_240, 598)
    assert (len(test), int(test["TX_FRAUD"].sum())) == (58_264, 385)
    return Weeks(train, test)
