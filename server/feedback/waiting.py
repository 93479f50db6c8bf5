"""Outcomes whose decision is not here (yet), on disk.

One per request id and model, or for every model. Of two about the same the one that was observed
last waits; of two observed at one time, the one that came last. They are bounded in number and in
age; the oldest are given up, a part of all at once.

Where a sample of decisions is recorded nearly every outcome waits, in vain: so what waits must not
cost. Outcomes go to a part that is small enough for its pages to be shared by those of a batch;
full, it gets a filter (`filters`), which is kept in memory, and is looked at only for ids that it
may hold. A part is dropped as a whole.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from server.feedback.arrays import Batch
from server.feedback.database import WAITING
from server.feedback.filters import make_filter, may_hold
from server.feedback.keys import Int64Array

PARTS = 16  # at the least, when as many wait as may
MAX_PART_ROWS = 1 << 14
IDS_PER_ID = 2  # filters are for so many times as many ids: one in 400 others passes
IDS_AT_ONCE = 1 << 14

_INSERT = "INSERT INTO w_{k} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_REPLACE = (
    "UPDATE w_{k} SET label = ?4, seen = ?5, amount = ?6, source = ?7, since_ms = ?8 "
    "WHERE first = ?1 AND second = ?2 AND model = ?3 AND seen <= ?5"
)
_ARE_THERE = (
    "SELECT w.first, w.second, w.model FROM came AS c CROSS JOIN w_{k} AS w ON w.first = c.first"
)
_FIND = (
    "SELECT w.first, w.second, w.model, w.label, w.seen, w.amount, w.source, w.since_ms "
    "FROM came AS c CROSS JOIN w_{k} AS w ON w.first = c.first AND w.second = c.second "
    "WHERE w.model IN (0, ?)"
)
_LEAVE = "DELETE FROM w_{k} WHERE first = ? AND second = ? AND model = ?"

_IDS = "SELECT first FROM w_{k}"

Row = tuple[Any, ...]  # as the tables of parts have it


@dataclass
class _Part:
    """Outcomes that came one after the other."""

    k: int
    n_rows: int
    since_ms: int  # when the first came
    until_ms: int  # and the last
    bits: bytes | None  # None: it takes more


class _Met(NamedTuple):
    """An outcome that met its decision."""

    k: int
    first: int
    second: int
    model: int


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
        self._part_rows = max(1, min(max_rows // PARTS, MAX_PART_ROWS))
        self._keep_ms = round(keep_s * 1000)
        self.n_given_up = 0
        self._met: set[_Met] = set()
        self._parts: dict[int, _Part] = {}
        database.execute("CREATE TEMP TABLE came (first INTEGER PRIMARY KEY, second INTEGER)")
        self.reload(0)

    @property
    def n_rows(self) -> int:
        """Outcomes that wait."""
        return sum(part.n_rows for part in self._parts.values())

    def put(self, batch: Batch, now_ms: int) -> None:
        """Let outcomes wait, and give up what is too old or too much."""
        rows = self._replace(_last_of_each(batch, now_ms))
        while rows:
            part = self._open(now_ms)
            room = max(1, self._part_rows - part.n_rows)
            self._insert(part, rows[:room], now_ms)
            rows = rows[room:]
        self._bound(now_ms)

    def take(self, first: Int64Array, second: Int64Array, of_model: int) -> Batch | None:
        """Return outcomes that wait for these decisions of a model; they leave with `settle`."""
        found: list[Row] = []
        for part in self._parts.values():
            maybe = _maybe(part, first)
            if not maybe.any():
                continue
            self._ask(first[maybe], second[maybe])
            there = self._database.execute(_FIND.format(k=part.k), (of_model,)).fetchall()
            self._met.update(_Met(part.k, *row[:3]) for row in there)
            found += there
        if not found:
            return None
        # By id, then as they were observed, and came.
        found.sort(key=lambda row: (row[0], row[4], row[7], row[2]))
        *whole, amount, source, _ = zip(*found, strict=True)
        first, second, model, label, seen = (np.array(one, np.int64) for one in whole)
        amounts = np.array(amount, np.float64)  # None: NaN
        return Batch(first, second, model, label, seen, amounts, np.array(source, np.int64))

    def settle(self) -> int:
        """Let those go that met their decisions; return how many."""
        for k in {met.k for met in self._met}:
            gone = sorted(met[1:] for met in self._met if met.k == k)
            self._database.executemany(_LEAVE.format(k=k), gone)
            part = self._parts[k]
            part.n_rows -= len(gone)
            if part.n_rows == 0 and part.bits is not None:
                self._drop(part)
            else:
                self._note(part)
        n_met = len(self._met)
        self._met.clear()
        return n_met

    def reload(self, n_given_up: int) -> None:
        """Forget what a transaction did that did not happen."""
        self.n_given_up = n_given_up
        self._met.clear()
        rows = self._database.execute("SELECT * FROM waiting ORDER BY k")
        self._parts = {row[0]: _Part(*row) for row in rows}

    # --------------------------------------------------------------------- parts

    def _replace(self, rows: list[Row]) -> list[Row]:
        """Let outcomes take the places of others about the same; return those that are new."""
        first = np.array([row[0] for row in rows], np.int64)
        for part in self._parts.values():
            maybe = _maybe(part, first)
            if not maybe.any():
                continue
            self._ask(first[maybe], first[maybe])
            there = set(self._database.execute(_ARE_THERE.format(k=part.k)))
            if there:
                known = [row for row in rows if row[:3] in there]
                self._database.executemany(_REPLACE.format(k=part.k), known)
                rows = [row for row in rows if row[:3] not in there]
                first = np.array([row[0] for row in rows], np.int64)
        return rows

    def _ask(self, first: Int64Array, second: Int64Array) -> None:
        self._database.execute("DELETE FROM came")
        self._database.executemany(
            "INSERT OR IGNORE INTO came VALUES (?, ?)",
            zip(first.tolist(), second.tolist(), strict=True),
        )

    def _open(self, now_ms: int) -> _Part:
        """Return the part that takes outcomes; begin one if need be."""
        last = next(reversed(self._parts.values()), None)
        if last is not None and last.bits is None:
            is_new = last.since_ms > now_ms - self._keep_ms // PARTS
            if last.n_rows < self._part_rows and is_new:
                return last
            last.bits = make_filter(last.n_rows * IDS_PER_ID, self._ids(last.k))
            self._database.execute("UPDATE waiting SET bits = ? WHERE k = ?", (last.bits, last.k))
        part = _Part(1 if last is None else last.k + 1, 0, now_ms, now_ms, None)
        self._database.execute(WAITING.format(k=part.k))
        self._database.execute(
            "INSERT INTO waiting VALUES (?, 0, ?, ?, NULL)", (part.k, now_ms, now_ms)
        )
        self._parts[part.k] = part
        return part

    def _ids(self, k: int) -> Iterator[Int64Array]:
        found = self._database.execute(_IDS.format(k=k))
        while rows := found.fetchmany(IDS_AT_ONCE):
            yield np.array(rows, np.int64)[:, 0]

    def _insert(self, part: _Part, rows: list[Row], now_ms: int) -> None:
        self._database.executemany(_INSERT.format(k=part.k), rows)
        part.n_rows += len(rows)
        part.until_ms = max(part.until_ms, now_ms)
        self._note(part)

    def _note(self, part: _Part) -> None:
        self._database.execute(
            "UPDATE waiting SET n_rows = ?, until_ms = ? WHERE k = ?",
            (part.n_rows, part.until_ms, part.k),
        )

    def _bound(self, now_ms: int) -> None:
        for part in list(self._parts.values()):
            if part.until_ms >= now_ms - self._keep_ms and self.n_rows <= self._max_rows:
                break
            self.n_given_up += part.n_rows
            self._drop(part)

    def _drop(self, part: _Part) -> None:
        self._database.execute(f"DROP TABLE w_{part.k}")
        self._database.execute("DELETE FROM waiting WHERE k = ?", (part.k,))
        del self._parts[part.k]


def _last_of_each(batch: Batch, now_ms: int) -> list[Row]:
    """Return one row of each id and model, by id as the tables are: neighbours share a page."""
    columns = [column.tolist() for column in batch]
    columns[5] = [None if math.isnan(amount) else amount for amount in columns[5]]
    rows: dict[tuple[int, int, int], Row] = {}
    for row in zip(*columns, strict=True):
        before = rows.get(row[:3])
        if before is None or row[4] >= before[4]:
            rows[row[:3]] = (*row, now_ms)
    return [rows[key] for key in sorted(rows)]


def _maybe(part: _Part, first: Int64Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which ids a part possibly holds."""
    if part.bits is None:
        return np.full(len(first), part.n_rows > 0)
    return may_hold(part.bits, first)
