"""Segments: decisions of a stretch of time, in a table of their own, dropped as a whole.

A segment takes decisions until its time is over or it is full; then the next is begun. To drop one
costs next to nothing, and the file uses its pages again: it grows to its limit and no further. What
a segment holds is an eighth of that limit at most, so that what is dropped for room is not much.

A clock that was set back begins another segment, unless it was by little: loops' clocks differ. A
segment from before it is as old as its newest decision says, and goes when that is too old, or when
room is needed: the first that was begun goes first.

A segment that takes no more decisions gets a filter (`filters`): an outcome is looked for where its
decision can be.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.feedback.database import PAGE_BYTES, SEGMENT
from server.feedback.filters import make_filter, may_hold
from server.feedback.keys import Int64Array

MAX_ROWS = 1_000_000
MAX_SEGMENTS = 1000
ROW_BYTES = 96  # with an outcome, generously
SHARES = 8  # of the file's limit
AGREE_MS = 60_000  # clocks do, within this
IDS_AT_ONCE = 1 << 14  # that are read into a filter

_IDS = "SELECT id FROM d_{n}"


class Segment(NamedTuple):
    """One of them."""

    n: int
    start_ms: int
    end_ms: int  # of the newest decision
    n_rows: int
    n_labels: int
    sealed: int


class Segments:
    """All of them, within the transactions of the store.

    Parameters
    ----------
    database
        Of the store.
    keep_s, keep_bytes, segment_s
        As `Records` has them.
    """

    def __init__(
        self, database: sqlite3.Connection, keep_s: float, keep_bytes: int, segment_s: float
    ) -> None:
        self._database = database
        self._keep_ms = round(keep_s * 1000)
        self._keep_bytes = keep_bytes
        self._span_ms = max(1, round(segment_s * 1000))
        self.max_rows = max(1000, min(MAX_ROWS, keep_bytes // SHARES // ROW_BYTES))
        self._last_n = 0
        self.n_dropped_rows = 0  # decisions that were dropped for room or age

    def all(self) -> list[Segment]:
        """Return every segment, the oldest first."""
        return [
            Segment(*row) for row in self._database.execute("SELECT * FROM segments ORDER BY n")
        ]

    def open(self, now_ms: int, first_ms: int) -> tuple[int, int]:
        """Return number and start of the segment that takes decisions; begin one if need be.

        Parameters
        ----------
        now_ms, first_ms
            When the newest, and the oldest, of the decisions that come were taken.
        """
        found = self._current(now_ms)
        if found is not None:
            return found.n, found.start_ms
        self._seal()
        [last] = self._database.execute("SELECT coalesce(max(n), 0) FROM segments").fetchone()
        # Never that of one that was dropped: who reads may remember it.
        n = self._last_n = max(int(last), self._last_n) + 1
        self._database.execute(
            "INSERT INTO segments VALUES (?, ?, ?, 0, 0, 0)", (n, first_ms, first_ms)
        )
        self._database.execute(SEGMENT.format(n=n))
        return n, first_ms

    def may_hold(self, n: int, ids: Int64Array) -> NDArray[np.bool_]:
        """Return which ids a segment possibly holds; of the others it has no decision."""
        row = self._database.execute("SELECT bits FROM filters WHERE n = ?", (n,)).fetchone()
        return np.ones(len(ids), bool) if row is None else may_hold(row[0], ids)

    def room(self, now_ms: int) -> int:
        """Return how many decisions the open segment still takes."""
        found = self._current(now_ms)
        return self.max_rows if found is None else self.max_rows - found.n_rows

    def grow(self, n: int, n_rows: int, end_ms: int) -> None:
        """Note that a segment got rows."""
        self._database.execute(
            "UPDATE segments SET n_rows = n_rows + ?, end_ms = max(end_ms, ?) WHERE n = ?",
            (n_rows, end_ms, n),
        )

    def label(self, n: int, n_labels: int) -> None:
        """Note that decisions of a segment got their first labels, or lost them."""
        self._database.execute(
            "UPDATE segments SET n_labels = n_labels + ? WHERE n = ?", (n_labels, n)
        )

    def make_room(self, now_ms: int) -> bool:
        """Drop what is too old or too much; return whether something was.

        The segment that takes decisions goes last, and not for room that others take.
        """
        segments = self.all()
        used = self.used_bytes()
        n_left = len(segments)
        for segment in segments:
            too_old = segment.end_ms < now_ms - self._keep_ms
            too_many = used > self._keep_bytes or n_left > MAX_SEGMENTS
            if not too_old and (not too_many or not segment.sealed):
                continue
            self._drop(segment)
            n_left -= 1
            used = self.used_bytes()
        return n_left < len(segments)

    def used_bytes(self) -> int:
        """Return the bytes of the file that are in use."""
        [pages] = self._database.execute("PRAGMA page_count").fetchone()
        [free] = self._database.execute("PRAGMA freelist_count").fetchone()
        return int(pages - free) * PAGE_BYTES

    def _current(self, now_ms: int) -> Segment | None:
        row = self._database.execute("SELECT * FROM segments WHERE sealed = 0").fetchone()
        if row is None:
            return None
        found = Segment(*row)
        inside = found.start_ms - AGREE_MS <= now_ms < found.start_ms + self._span_ms
        return found if inside and found.n_rows < self.max_rows else None

    def _seal(self) -> None:
        """End the segment that takes decisions: it is what it is, and gets its filter."""
        query = "SELECT n, n_rows FROM segments WHERE sealed = 0"
        for n, n_rows in self._database.execute(query).fetchall():
            packed = make_filter(n_rows, self._ids(n))
            self._database.execute("INSERT OR REPLACE INTO filters VALUES (?, ?)", (n, packed))
            self._database.execute("UPDATE segments SET sealed = 1 WHERE n = ?", (n,))

    def _ids(self, n: int) -> Iterator[Int64Array]:
        found = self._database.execute(_IDS.format(n=n))
        while rows := found.fetchmany(IDS_AT_ONCE):
            yield np.array(rows, np.int64)[:, 0]

    def _drop(self, segment: Segment) -> None:
        self._database.execute(f"DROP TABLE d_{segment.n}")
        self._database.execute("DELETE FROM tallies WHERE n = ?", (segment.n,))
        self._database.execute("DELETE FROM filters WHERE n = ?", (segment.n,))
        self._database.execute("DELETE FROM segments WHERE n = ?", (segment.n,))
        self.n_dropped_rows += segment.n_rows
