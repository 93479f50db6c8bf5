"""Outcomes whose decision is not here (yet), on disk.

One per request id and model, or for every model. Of two about the same the one that was observed
last waits; of two observed at one time, the one that came last. They are bounded in number and in
age; the oldest are given up.
"""

from __future__ import annotations

import math
import sqlite3

import numpy as np

from server.feedback.arrays import Batch
from server.feedback.keys import Int64Array

_INSERT = "INSERT OR IGNORE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_REPLACE = (
    "UPDATE waiting SET label = ?4, seen = ?5, amount = ?6, source = ?7, since_ms = ?8 "
    "WHERE first = ?1 AND second = ?2 AND model = ?3 AND seen <= ?5"
)
_FIND = (
    "SELECT w.first, w.second, w.model, w.label, w.seen, w.amount, w.source "
    "FROM came AS c CROSS JOIN waiting AS w ON w.first = c.first AND w.second = c.second "
    "WHERE w.model IN (0, ?) ORDER BY w.first, w.seen, w.since_ms, w.model"
)
_GIVE_UP = (
    "DELETE FROM waiting WHERE (first, second, model) IN "
    "(SELECT first, second, model FROM waiting ORDER BY since_ms LIMIT ?)"
)


class Waiting:
    """All of them, within the transactions of the store.

    Parameters
    ----------
    database
        Of the store.
    max_rows
        How many may wait.
    keep_s
        How long.
    """

    def __init__(self, database: sqlite3.Connection, max_rows: int, keep_s: float) -> None:
        self._database = database
        self._max_rows = max_rows
        self._keep_ms = round(keep_s * 1000)
        self.n_given_up = 0
        self._met: set[tuple[int, int, int]] = set()
        database.execute("CREATE TEMP TABLE came (first INTEGER PRIMARY KEY, second INTEGER)")
        [self.n_rows] = database.execute("SELECT count(*) FROM waiting").fetchone()

    def put(self, batch: Batch, now_ms: int) -> None:
        """Let outcomes wait, and give up what is too old or too much."""
        columns = [column.tolist() for column in batch]
        columns[5] = [None if math.isnan(amount) else amount for amount in columns[5]]
        rows = [(*row, now_ms) for row in zip(*columns, strict=True)]
        cursor = self._database.executemany(_INSERT, rows)
        self.n_rows += cursor.rowcount
        if cursor.rowcount < len(rows):
            self._database.executemany(_REPLACE, rows)
        self._bound(now_ms)

    def take(self, first: Int64Array, second: Int64Array, of_model: int) -> Batch | None:
        """Return outcomes that wait for these decisions of a model; they leave with `settle`."""
        if not self.n_rows:
            return None
        self._database.execute("DELETE FROM came")
        self._database.executemany(
            "INSERT OR IGNORE INTO came VALUES (?, ?)",
            zip(first.tolist(), second.tolist(), strict=True),
        )
        found = self._database.execute(_FIND, (of_model,)).fetchall()
        if not found:
            return None
        self._met.update(row[:3] for row in found)
        *whole, amount, source = zip(*found, strict=True)
        first, second, model, label, seen = (np.array(one, np.int64) for one in whole)
        amounts = np.array(amount, np.float64)  # None: NaN
        return Batch(first, second, model, label, seen, amounts, np.array(source, np.int64))

    def settle(self) -> int:
        """Let those go that met their decisions; return how many."""
        if not self._met:
            return 0
        self._database.executemany(
            "DELETE FROM waiting WHERE first = ? AND second = ? AND model = ?", sorted(self._met)
        )
        n_met = len(self._met)
        self.n_rows -= n_met
        self._met.clear()
        return n_met

    def reload(self, n_rows: int, n_given_up: int) -> None:
        """Forget what a transaction did that did not happen."""
        self.n_rows, self.n_given_up = n_rows, n_given_up
        self._met.clear()

    def _bound(self, now_ms: int) -> None:
        gone = self._database.execute(
            "DELETE FROM waiting WHERE since_ms < ?", (now_ms - self._keep_ms,)
        ).rowcount
        excess = self.n_rows - gone - self._max_rows
        if excess > 0:
            gone += self._database.execute(_GIVE_UP, (excess,)).rowcount
        self.n_rows -= gone
        self.n_given_up += gone
