"""Segments: decisions of a stretch of time, in a table of their own, dropped as a whole.

A segment takes decisions until its time is over or it is full; then the next is begun. To drop one
costs next to nothing, and the file uses its pages again: it grows to its limit and no further.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import numpy as np

from server.feedback.database import PAGE_BYTES, SEGMENT
from server.feedback.keys import Int64Array

MAX_ROWS = 1_000_000
_HELD = "SELECT asked.id FROM asked JOIN d_{n} AS d ON d.id = asked.id"


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
        database.execute("CREATE TEMP TABLE asked (id INTEGER PRIMARY KEY)")
        self.n_dropped_rows = 0  # decisions that were dropped for room or age

    def all(self) -> list[Segment]:
        """Return every segment, the oldest first."""
        return [
            Segment(*row) for row in self._database.execute("SELECT * FROM segments ORDER BY n")
        ]

    def open(self, now_ms: int) -> tuple[int, int]:
        """Return number and start of the segment that takes decisions; begin one if need be."""
        found = self._current(now_ms)
        if found is not None:
            return found.n, found.start_ms
        self._database.execute("UPDATE segments SET sealed = 1 WHERE sealed = 0")
        [n] = self._database.execute("SELECT coalesce(max(n), 0) + 1 FROM segments").fetchone()
        self._database.execute(
            "INSERT INTO segments VALUES (?, ?, ?, 0, 0, 0)", (n, now_ms, now_ms)
        )
        self._database.execute(SEGMENT.format(n=n))
        return n, now_ms

    def room(self, now_ms: int) -> int:
        """Return how many decisions the open segment still takes."""
        found = self._current(now_ms)
        return MAX_ROWS if found is None else MAX_ROWS - found.n_rows

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

    def holding(self, n: int, ids: Int64Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return which of these sorted ids a segment holds."""
        self._ask(ids)
        found = self._database.execute(_HELD.format(n=n)).fetchall()
        return np.isin(ids, np.array([row[0] for row in found], np.int64))

    def make_room(self, now_ms: int) -> None:
        """Drop what is too old or too much; the segment that takes decisions stays."""
        oldest_first = self.all()
        used = self.used_bytes()
        for segment in oldest_first:
            too_old = segment.end_ms < now_ms - self._keep_ms
            if not too_old and used <= self._keep_bytes:
                break
            if not segment.sealed:
                if not too_old and segment.n_rows < MAX_ROWS // 100:
                    break  # next to empty: what is left is not decisions
                self._database.execute("UPDATE segments SET sealed = 1 WHERE n = ?", (segment.n,))
            self._drop(segment)
            used = self.used_bytes()

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
        # A clock that was set back ends a segment, too: rows of one follow one another.
        inside = found.start_ms <= now_ms < found.start_ms + self._span_ms
        return found if inside and found.n_rows < MAX_ROWS else None

    def _drop(self, segment: Segment) -> None:
        self._database.execute(f"DROP TABLE d_{segment.n}")
        self._database.execute("DELETE FROM tallies WHERE n = ?", (segment.n,))
        self._database.execute("DELETE FROM segments WHERE n = ?", (segment.n,))
        self.n_dropped_rows += segment.n_rows

    def _ask(self, ids: Int64Array) -> None:
        self._database.execute("DELETE FROM asked")
        self._database.executemany(
            "INSERT OR IGNORE INTO asked VALUES (?)", [(i,) for i in ids.tolist()]
        )
