"""The store of decisions: kept on disk until their outcomes come, and for a while after.

Rules
-----
* One process, one writer, any thread, one call at a time. Whatever is done is done in one
  transaction, tallies included: what is on disk is always consistent, whenever the process dies.
* Decisions are lost with the last moments before a loss of power, outcomes are not: they are synced
  before `report` returns.
* Bounded: segments of a day or a million decisions are dropped whole, the oldest first, when they
  are too old or the file too large; outcomes that wait for decisions are bounded in number.
* A retry keeps the first decision of its segment.
* A file that turns out to be damaged is set aside, and another begun (`database`).

What a day costs: docs/feedback.md. What it does not do: decide what is recorded (`Ledger`), or say
what it means (`quality`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.errors import FeedbackError
from server.feedback.database import is_damage, lock_database, open_database, set_aside
from server.feedback.joining import Joiner, ReportCounts, ReportedOutcome
from server.feedback.keys import Decider, Int64Array, VersionKey, bins_of, decision_ids
from server.feedback.segments import ROW_BYTES, SHARES, Segment, Segments
from server.feedback.sources import Sources
from server.feedback.tallies import MAX_DECIDERS, UNKNOWN, Tallies
from server.feedback.waiting import Waiting
from server.memory import trim

DAY_S = 86_400.0

_INSERT = (
    "INSERT OR IGNORE INTO d_{n} (id, id1, t, v, entity, raw, score, d, s, p) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_HELD = "SELECT a.id FROM asked AS a CROSS JOIN d_{n} AS d ON d.id = a.id"

DeciderOf = Callable[[int, int, int], Decider | None]  # slot, arm, generation


class Added(NamedTuple):
    """What became of decisions that were to be kept."""

    n_kept: int
    n_repeated: int  # of a request whose decision is there
    n_unknown: int  # nobody knows who decided


class Joined(NamedTuple):
    """What was joined since the process began."""

    labels: Mapping[tuple[str, str, str], int]  # (model, version, "positive" ...) -> labels given
    n_late: int  # outcomes that waited and then met their decision
    n_given_up: int  # outcomes that waited for too long, or too many


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
        Outcomes that may wait for their decision; fewer where the file is small.

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
        self._keep_s, self._keep_bytes, self._segment_s = keep_s, keep_bytes, segment_s
        self._max_waiting = min(max_waiting, keep_bytes // SHARES // ROW_BYTES)
        self._lock = threading.Lock()
        self._process_lock = lock_database(path)
        self._labels: Counter[tuple[str, str, str]] = Counter()
        self._joined = Joined(MappingProxyType({}), 0, 0)
        try:
            self._open()
        except BaseException:
            self._process_lock.release()
            raise

    def close(self) -> None:
        """Close the file, and let another process have it."""
        with self._lock:
            self._database.close()
            self._process_lock.release()

    def add(self, decisions: NDArray[np.void], decider_of: DeciderOf) -> Added:
        """Keep decisions.

        Parameters
        ----------
        decisions : array of fastpath.ledger.DECISION_TYPE, shape (n,)
        decider_of : callable
            Says what decided, by slot, arm and generation; None: not known, not kept.

        Returns
        -------
        Added
            How many are kept, and why others are not.

        Raises
        ------
        FeedbackError
            The disk is full, or fails; nothing of these was kept.
        """
        if not len(decisions):
            return Added(0, 0, 0)
        added = _Adding()
        with self._lock:
            with self._transaction("NORMAL"):
                now_ms = int(decisions["decided_time_ms"].max())
                if self._segments.make_room(now_ms):
                    self._forget_deciders()
                chunks = _parts(decisions, self._segments.room(now_ms), self._segments.max_rows)
                for chunk in chunks:
                    self._add(chunk, decider_of, added)
                added.n_late = self._waiting.settle()
            self._note(added.matched, added.n_late)
        return Added(added.n_kept, added.n_repeated, added.n_unknown)

    def report(self, outcomes: Sequence[ReportedOutcome], now_ms: int) -> ReportCounts:
        """Join outcomes with decisions; what is said to be accepted is on disk on return.

        Raises
        ------
        FeedbackError
            The disk is full, or fails; none of these was taken.
        """
        with self._lock:
            with self._transaction("FULL"):
                counts = self._joiner.report(outcomes, now_ms)
            self._note(counts.matched, 0)
        return counts

    def stats(self) -> StoreStats:
        """Return what is held, as of the last change; never waits."""
        return self._stats

    def joined(self) -> Joined:
        """Return what was joined since the process began; never waits."""
        return self._joined

    def rest(self) -> None:
        """Give back memory that a flood of outcomes took."""
        with self._lock, suppress(sqlite3.Error):  # closed: nothing is held
            self._database.execute("PRAGMA shrink_memory")
        trim()

    def segments(self) -> list[Segment]:
        """Return every segment, the oldest first."""
        with self._lock:
            return self._segments.all()

    def _open(self) -> None:
        self._database = database = open_database(self.path)
        try:
            self._segments = Segments(database, self._keep_s, self._keep_bytes, self._segment_s)
            self._deciders: dict[int, Decider] = {}
            self._numbers: dict[tuple[VersionKey, bytes], int] = {}
            for v, *key, edges in database.execute("SELECT * FROM versions"):
                self._remember(v, Decider(VersionKey(*key), np.frombuffer(edges, np.float32)))
            self._waiting = Waiting(database, self._max_waiting, self._keep_s)
            self._sources = Sources(database)
            self._joiner = Joiner(
                database, self._segments, self._deciders, self._sources, self._waiting
            )
            database.execute("CREATE TEMP TABLE asked (id INTEGER PRIMARY KEY)")
            self._stats = self._look()
        except sqlite3.Error as error:
            database.close()
            raise self._explained(error) from None

    def _look(self) -> StoreStats:
        rows, segments, oldest = self._database.execute(
            "SELECT coalesce(sum(n_rows), 0), count(*), coalesce(min(start_ms), 0) FROM segments"
        ).fetchone()
        used = self._segments.used_bytes()
        return StoreStats(rows, segments, self._waiting.n_rows, used, oldest)

    def _note(self, matched: Mapping[tuple[str, str, str], int], n_late: int) -> None:
        """Count what is on disk now."""
        self._labels.update(matched)
        self._joined = Joined(
            MappingProxyType(dict(self._labels)),
            self._joined.n_late + n_late,
            self._waiting.n_given_up,
        )

    def _add(self, decisions: NDArray[np.void], decider_of: DeciderOf, added: _Adding) -> None:
        times = decisions["decided_time_ms"]
        n, start_ms = self._segments.open(int(times.max()), int(times.min()))
        tallies = Tallies()
        before = added.n_kept
        who = np.stack([decisions["slot"], decisions["arm"], decisions["generation"]], axis=1)
        for slot, arm, generation in np.unique(who.astype(np.uint64), axis=0).tolist():
            mine = decisions[(who == (slot, arm, generation)).all(axis=1)]
            decider = decider_of(slot, arm, generation)
            if decider is None:
                added.n_unknown += len(mine)
            else:
                self._keep(mine, decider, n, start_ms, tallies, added)
        tallies.write(self._database)
        self._segments.grow(n, added.n_kept - before, int(times.max()))

    def _keep(
        self,
        rows: NDArray[np.void],
        decider: Decider,
        n: int,
        start_ms: int,
        tallies: Tallies,
        added: _Adding,
    ) -> None:
        v = self._number(decider)
        n_given = len(rows)
        # The first of those with one id; in the order of the ids, as the table has them.
        ids, first = np.unique(decision_ids(rows["id_hash"], decider.key.model), return_index=True)
        fresh = ~self._holds(n, ids)
        ids, rows = ids[fresh], rows[first[fresh]]
        added.n_kept += len(rows)
        added.n_repeated += n_given - len(rows)
        if not len(rows):
            return
        second = np.ascontiguousarray(rows["id_hash"][:, 1]).view(np.int64)
        d = (
            rows["decision"].astype(np.int64)
            | rows["policy_decision"].astype(np.int64) << 8
            | rows["flags"].astype(np.int64) << 16
        )
        self._database.executemany(
            _INSERT.format(n=n),
            zip(
                ids.tolist(),
                second.tolist(),
                (rows["decided_time_ms"] - start_ms).tolist(),
                [v] * len(rows),
                rows["entity_hash"].view(np.int64).tolist(),
                rows["raw"].view(np.int32).tolist(),
                rows["score"].view(np.int32).tolist(),
                d.tolist(),
                _unless_one(rows["sampling_probability"]),
                _unless_one(rows["propensity"]),
                strict=True,
            ),
        )
        chance = rows["sampling_probability"].astype(np.float64) * rows["propensity"]
        tallies.add(
            n,
            np.full(len(rows), v),
            bins_of(decider.edges, rows["raw"]),
            d,
            np.full(len(rows), UNKNOWN),
            1.0 / chance,
            rows["score"].astype(np.float64),
            np.full(len(rows), np.nan),
        )
        self._joiner.arrived(n, decider.key.model, ids, second, tallies, added.matched)

    def _holds(self, n: int, ids: Int64Array) -> NDArray[np.bool_]:
        """Return which of these ascending ids a segment holds."""
        self._database.execute("DELETE FROM asked")
        self._database.executemany("INSERT INTO asked VALUES (?)", zip(ids.tolist(), strict=True))
        found = self._database.execute(_HELD.format(n=n)).fetchall()
        return np.isin(ids, np.array([row[0] for row in found], np.int64))

    def _number(self, decider: Decider) -> int:
        edges = decider.edges.astype(np.float32)
        known = self._numbers.get((decider.key, edges.tobytes()))
        if known is not None:
            return known
        cursor = self._database.execute(
            "INSERT INTO versions (model, version, sha256, arm, edges) VALUES (?, ?, ?, ?, ?)",
            (*decider.key, edges.tobytes()),
        )
        assert cursor.lastrowid is not None
        if cursor.lastrowid >= MAX_DECIDERS:
            raise FeedbackError(f"{self.path}: too many versions decided: move it away")
        self._remember(cursor.lastrowid, Decider(decider.key, edges))
        return cursor.lastrowid

    def _remember(self, v: int, decider: Decider) -> None:
        self._deciders[v] = decider
        self._numbers[decider.key, decider.edges.tobytes()] = v

    def _forget_deciders(self) -> None:
        """Drop what decided nothing that is still here; names stay free of what is long gone."""
        used = {v for [v] in self._database.execute("SELECT DISTINCT v FROM tallies")}
        for v in self._deciders.keys() - used:
            decider = self._deciders.pop(v)
            del self._numbers[decider.key, decider.edges.tobytes()]
            self._database.execute("DELETE FROM versions WHERE v = ?", (v,))

    @contextmanager
    def _transaction(self, synchronous: str) -> Iterator[None]:
        """Do all of it or nothing; explain what the disk says."""
        deciders, numbers = dict(self._deciders), dict(self._numbers)
        n_given_up = self._waiting.n_given_up
        n_dropped = self._segments.n_dropped_rows
        try:
            self._database.execute(f"PRAGMA synchronous = {synchronous}")
            self._database.execute("BEGIN IMMEDIATE")
            yield
            stats = self._look()
            self._database.execute("COMMIT")
        except BaseException as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            # What was remembered of a transaction that did not happen.
            self._deciders.clear()
            self._deciders.update(deciders)
            self._numbers = numbers
            self._segments.n_dropped_rows = n_dropped
            if isinstance(error, sqlite3.Error) and is_damage(error):
                self._begin_anew(error)
                raise self._explained(error) from None
            self._sources.reload()
            self._waiting.reload(n_given_up)
            if isinstance(error, sqlite3.Error):
                raise self._explained(error) from None
            raise
        self._stats = stats

    def _begin_anew(self, error: sqlite3.Error) -> None:
        """Set a file aside that turns out to be damaged."""
        self._database.close()
        set_aside(self.path, error)
        self._open()

    def _explained(self, error: sqlite3.Error) -> FeedbackError:
        if is_damage(error):
            return FeedbackError(f"{self.path} is damaged ({error}): it is set aside; try again")
        return FeedbackError(
            f"decisions and outcomes cannot be written to {self.path}: {error}; free disk "
            "space, or look after the disk"
        )


class _Adding:
    """What became of decisions that came together."""

    def __init__(self) -> None:
        self.n_kept = self.n_repeated = self.n_unknown = self.n_late = 0
        self.matched: Counter[tuple[str, str, str]] = Counter()


def _unless_one(chances: NDArray[np.float32]) -> list[float | None]:
    """Return probabilities as the table has them: 1 takes no room."""
    if (chances == 1.0).all():
        return [None] * len(chances)
    return [None if chance == 1.0 else chance for chance in chances.tolist()]


def _parts(rows: NDArray[np.void], first: int, others: int) -> Iterator[NDArray[np.void]]:
    """Cut rows into what still fits, and then into whole segments."""
    yield rows[:first]
    for at in range(first, len(rows), others):
        yield rows[at : at + others]
