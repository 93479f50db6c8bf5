"""The store of decisions: kept on disk until their outcomes come, and for a while after.

Rules
-----
* One writer, any thread, one call at a time. Whatever is done is done in one transaction, tallies
  included: what is on disk is always consistent, whenever the process dies.
* Decisions are lost with the last moments before a loss of power, outcomes are not: they are synced
  before `report` returns.
* Bounded: segments of a day or a million decisions are dropped whole, the oldest first, when they
  are too old or the file too large; outcomes that wait for decisions are bounded in number.
* A retry keeps the first decision.

What a day costs: some 60 bytes a decision, 75 with an outcome; at 1,000 a second recorded, 5 GB.
What it does not do: decide what is recorded (`Ledger`), or say what it means (`quality`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.errors import FeedbackError
from server.feedback.database import open_database
from server.feedback.joining import Joiner, ReportCounts, ReportedOutcome
from server.feedback.keys import Decider, VersionKey, bins_of, decision_ids
from server.feedback.segments import Segments
from server.feedback.tallies import UNKNOWN, Tallies

MAX_SEGMENT_ROWS = 1_000_000
DAY_S = 86_400.0

_INSERT = (
    "INSERT INTO d_{n} (id, id1, t, v, entity, raw, score, d, s, p) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

DeciderOf = Callable[[int, int, int], Decider | None]  # slot, arm, generation


class StoreStats(NamedTuple):
    """What the store holds."""

    n_decisions: int
    n_segments: int
    n_waiting: int
    n_bytes: int
    oldest_ms: int  # 0: empty


class Records:
    """The store.

    Parameters
    ----------
    path
        Of the database.
    keep_s, keep_bytes
        What is older, or more, is dropped.
    segment_s
        Time after which another segment is begun: quality is told apart by segments.
    max_waiting
        Outcomes that may wait for their decision.

    Raises
    ------
    FeedbackError
        The directory cannot be written, or another process has it.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep_s: float = 90 * DAY_S,
        keep_bytes: int = 2 << 30,
        segment_s: float = DAY_S,
        max_waiting: int = 1_000_000,
    ) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._database = open_database(path)
        self._segments = Segments(self._database, keep_s, keep_bytes, segment_s)
        self._deciders: dict[int, Decider] = {}
        self._numbers: dict[tuple[VersionKey, bytes], int] = {}
        for v, *key, edges in self._database.execute("SELECT * FROM versions"):
            self._remember(v, Decider(VersionKey(*key), np.frombuffer(edges, np.float32)))
        self._joiner = Joiner(self._database, self._segments, self._deciders, max_waiting)
        self.n_repeated = 0  # decisions of a request that was recorded before

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def add(self, decisions: NDArray[np.void], decider_of: DeciderOf) -> int:
        """Keep decisions.

        Parameters
        ----------
        decisions : array of fastpath.ledger.DECISION_TYPE, shape (n,)
        decider_of : callable
            Says what decided, by slot, arm and generation; None: not known, not kept.

        Returns
        -------
        int
            How many are kept; the others were there, or nobody knows who decided.

        Raises
        ------
        FeedbackError
            The disk is full, or fails; nothing of these was kept.
        """
        if not len(decisions):
            return 0
        with self._lock, self._transaction("NORMAL"):
            now_ms = int(decisions["decided_time_ms"].max())
            self._segments.make_room(now_ms)
            kept = 0
            for chunk in _parts(decisions, self._segments.room(now_ms), MAX_SEGMENT_ROWS):
                kept += self._add(chunk, decider_of, now_ms)
            return kept

    def report(self, outcomes: Sequence[ReportedOutcome], now_ms: int) -> ReportCounts:
        """Join outcomes with decisions; what is said to be accepted is on disk on return.

        Raises
        ------
        FeedbackError
            The disk is full, or fails; none of these was taken.
        """
        with self._lock, self._transaction("FULL"):
            return self._joiner.report(outcomes, now_ms)

    def stats(self) -> StoreStats:
        """Return what is held."""
        with self._lock:
            [n_waiting] = self._one("SELECT count(*) FROM waiting")
            rows, segments, oldest = self._one(
                "SELECT coalesce(sum(n_rows), 0), count(*), coalesce(min(start_ms), 0) "
                "FROM segments"
            )
            return StoreStats(rows, segments, n_waiting, self._segments.used_bytes(), oldest)

    def _one(self, statement: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._database.execute(statement).fetchone()
        return row

    def _add(self, decisions: NDArray[np.void], decider_of: DeciderOf, now_ms: int) -> int:
        n, start_ms = self._segments.open(now_ms)
        tallies = Tallies()
        kept = 0
        who = np.stack([decisions["slot"], decisions["arm"], decisions["generation"]], axis=1)
        for slot, arm, generation in np.unique(who.astype(np.uint64), axis=0).tolist():
            decider = decider_of(slot, arm, generation)
            if decider is not None:
                mine = decisions[(who == (slot, arm, generation)).all(axis=1)]
                kept += self._keep(mine, decider, n, start_ms, tallies)
        tallies.write(self._database)
        self._segments.grow(n, kept, int(decisions["decided_time_ms"].max()))
        return kept

    def _keep(
        self, rows: NDArray[np.void], decider: Decider, n: int, start_ms: int, tallies: Tallies
    ) -> int:
        v = self._number(decider)
        ids = decision_ids(rows["id_hash"], decider.key.model)
        # The first of those with one id; in the order of the ids, as the table has them.
        ids, first = np.unique(ids, return_index=True)
        known = self._segments.holding(n, ids)
        fresh = ~known
        self.n_repeated += len(rows) - int(fresh.sum())
        ids, rows = ids[fresh], rows[first[fresh]]
        if not len(rows):
            return 0
        d = (
            rows["decision"].astype(np.int64)
            | rows["policy_decision"].astype(np.int64) << 8
            | rows["flags"].astype(np.int64) << 16
        )
        sampling, propensity = rows["sampling_probability"], rows["propensity"]
        self._database.executemany(
            _INSERT.format(n=n),
            zip(
                ids.tolist(),
                rows["id_hash"][:, 1].view(np.int64).tolist(),
                (rows["decided_time_ms"] - start_ms).tolist(),
                [v] * len(rows),
                rows["entity_hash"].view(np.int64).tolist(),
                rows["raw"].view(np.int32).tolist(),
                rows["score"].view(np.int32).tolist(),
                d.tolist(),
                [None if s == 1.0 else s for s in sampling.tolist()],
                [None if p == 1.0 else p for p in propensity.tolist()],
                strict=True,
            ),
        )
        bins = bins_of(decider.edges, rows["raw"])
        tallies.add(
            [(n, v, b, what, UNKNOWN) for b, what in zip(bins.tolist(), d.tolist(), strict=True)],
            1.0 / (sampling.astype(np.float64) * propensity),
            rows["score"].astype(np.float64),
            np.full(len(rows), np.nan),
        )
        self._joiner.arrived(n, ids, tallies)
        return len(rows)

    def _number(self, decider: Decider) -> int:
        known = self._numbers.get((decider.key, decider.edges.tobytes()))
        if known is not None:
            return known
        edges = decider.edges.astype(np.float32)
        cursor = self._database.execute(
            "INSERT INTO versions (model, version, sha256, arm, edges) VALUES (?, ?, ?, ?, ?)",
            (*decider.key, edges.tobytes()),
        )
        assert cursor.lastrowid is not None
        self._remember(cursor.lastrowid, Decider(decider.key, edges))
        return cursor.lastrowid

    def _remember(self, v: int, decider: Decider) -> None:
        self._deciders[v] = decider
        self._numbers[decider.key, decider.edges.tobytes()] = v

    @contextmanager
    def _transaction(self, synchronous: str) -> Iterator[None]:
        """Do all of it or nothing; explain what the disk says."""
        before = dict(self._deciders), dict(self._numbers), self._joiner.n_waiting
        try:
            self._database.execute(f"PRAGMA synchronous = {synchronous}")
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except BaseException as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            # What was remembered of a transaction that did not happen.
            self._deciders.clear()
            self._deciders.update(before[0])
            self._numbers = before[1]
            self._joiner.n_waiting = before[2]
            if isinstance(error, sqlite3.Error):
                raise FeedbackError(
                    f"decisions and outcomes cannot be written to {self.path}: {error}; free disk "
                    "space, or look after the disk"
                ) from None
            raise


def _parts(rows: NDArray[np.void], first: int, others: int) -> Iterator[NDArray[np.void]]:
    """Cut rows into what still fits, and then into whole segments."""
    yield rows[:first]
    for at in range(first, len(rows), others):
        yield rows[at : at + others]
