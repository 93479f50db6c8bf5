"""Outcomes are joined with decisions: which one wins, what is counted, what waits.

For each decision the outcome that was observed last holds; of two observed at one time, the one
that came last. The same outcome again changes nothing. A retraction leaves nothing known, and is
itself an outcome: what was observed before it does not come back.

An outcome whose decision is not here waits: the decision may be on its way (they are drained a few
times a second), or it was never recorded. Those that wait are bounded; the oldest are given up.

Rows, tallies and waiting outcomes change in one transaction (`Records`), so that an outcome is
counted once, however often it is sent and whenever the process dies.
"""

from __future__ import annotations

import math
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fastpath.capture import id_hash
from server.feedback.database import RETRACTED
from server.feedback.keys import Decider, Int64Array, bins_of, model_hash
from server.feedback.segments import Segment, Segments
from server.feedback.tallies import UNKNOWN, Tallies

MAX_SOURCES = 1000  # of names; further ones are "other"
OTHER = "other"

_MEET = (
    "SELECT r.at, d.id, d.v, d.raw, d.score, d.d, d.s, d.p, d.label, d.seen, d.amount "
    "FROM reported AS r JOIN d_{n} AS d ON d.id = r.id WHERE d.id1 = r.id1"
)
_UPDATE = "UPDATE d_{n} SET label = ?, seen = ?, amount = ?, source = ? WHERE id = ?"
_WAITS = "SELECT 1 FROM waiting WHERE id = ? AND id1 = ?"
_WAIT = (
    "INSERT INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "label = excluded.label, seen = excluded.seen, amount = excluded.amount, "
    "source = excluded.source WHERE excluded.seen >= seen"
)


class ReportedOutcome(NamedTuple):
    """One outcome, checked."""

    request_id: str
    model: str  # "": every model that decided under this id
    label: int  # 0, 1 or RETRACTED
    observed_ms: int
    amount: float  # NaN: not said
    source: str


class ReportCounts(NamedTuple):
    """What became of a batch, as ReportOutcomesResponse has it."""

    accepted: int
    unmatched: int
    duplicates: int
    revised: int
    expired: int
    matched: Mapping[tuple[str, str, str], int]  # (model, version, label): how often joined anew


class _Asked(NamedTuple):
    """An outcome under the id of one model's decision."""

    id: int
    id1: int
    label: int
    seen: int
    amount: float
    source: int
    outcome: int  # index in the batch; -1: it waited


class _Row(NamedTuple):
    """A decision, as far as joining needs it."""

    id: int
    v: int
    raw: int
    score: int
    d: int
    s: float | None
    p: float | None
    label: int | None
    seen: int | None
    amount: float | None


class Joiner:
    """Joins, within the transactions of the store.

    Parameters
    ----------
    database, segments, deciders
        Of the store; `deciders` grows with it.
    max_waiting
        Outcomes that may wait.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        segments: Segments,
        deciders: Mapping[int, Decider],
        max_waiting: int,
    ) -> None:
        self._database = database
        self._segments = segments
        self._deciders = deciders
        self._max_waiting = max_waiting
        [self.n_waiting] = database.execute("SELECT count(*) FROM waiting").fetchone()
        database.execute(
            "CREATE TEMP TABLE reported (id INTEGER PRIMARY KEY, id1 INTEGER, at INTEGER)"
        )

    def report(self, outcomes: Sequence[ReportedOutcome], now_ms: int) -> ReportCounts:
        """Join outcomes; those without a decision wait."""
        asked, n_superseded = self._asked(outcomes)
        oldest = min((s.start_ms for s in self._segments.all()), default=now_ms)
        tallies = Tallies()
        found: set[int] = set()  # outcomes that met a decision
        changes: dict[int, str] = {}
        matched: dict[tuple[str, str, str], int] = {}
        left = {one.id: one for one in asked}
        for segment in reversed(self._segments.all()):
            if not left:
                break
            met = self._meet(segment, list(left.values()), tallies, matched)
            for id_, what in met.items():
                one = left.pop(id_)
                found.add(one.outcome)
                changes[one.outcome] = max(what, changes.get(one.outcome, ""), key=_gravity)
        waiting: dict[int, list[_Asked]] = {}
        for one in left.values():
            if one.outcome not in found:
                waiting.setdefault(one.outcome, []).append(one)
        n_expired, n_repeated = self._wait(waiting, outcomes, oldest, now_ms)
        tallies.write(self._database)
        self._bound()
        said = list(changes.values())
        return ReportCounts(
            accepted=len(outcomes),
            unmatched=len(waiting),
            duplicates=said.count("same") + n_superseded + n_repeated,
            revised=said.count("revised"),
            expired=n_expired,
            matched=matched,
        )

    def arrived(self, n: int, ids: Int64Array, tallies: Tallies) -> None:
        """Join decisions that were just kept with outcomes that came before them."""
        if not self.n_waiting:
            return
        self._database.execute("DELETE FROM reported")
        self._database.executemany(
            "INSERT INTO reported (id) VALUES (?)", [(i,) for i in ids.tolist()]
        )
        rows = self._database.execute(
            "SELECT w.id, w.id1, w.label, w.seen, w.amount, w.source FROM reported AS r "
            "JOIN waiting AS w ON w.id = r.id"
        ).fetchall()
        if not rows:
            return
        asked = [
            _Asked(i, i1, label, seen, math.nan if amount is None else amount, source, -1)
            for i, i1, label, seen, amount, source in rows
        ]
        [segment] = [s for s in self._segments.all() if s.n == n]
        met = self._meet(segment, asked, tallies, {})
        gone = [(one.id, one.id1) for one in asked if one.id in met]
        self._database.executemany("DELETE FROM waiting WHERE id = ? AND id1 = ?", gone)
        self.n_waiting -= len(gone)

    def _asked(self, outcomes: Sequence[ReportedOutcome]) -> tuple[list[_Asked], int]:
        """Return what is looked for, once per id, and how many were superseded in the batch."""
        every = [model_hash(m) for m in {d.key.model for d in self._deciders.values()}]
        asked: dict[int, _Asked] = {}
        n_superseded = 0
        for at, outcome in enumerate(outcomes):
            first, second = id_hash(outcome.request_id)
            source = self._source(outcome.source)
            for of_model in [model_hash(outcome.model)] if outcome.model else every or [0]:
                one = _Asked(
                    _signed(first) ^ of_model,
                    _signed(second),
                    outcome.label,
                    outcome.observed_ms,
                    outcome.amount,
                    source,
                    at,
                )
                held = asked.get(one.id)
                if held is not None:
                    n_superseded += 1
                if held is None or one.seen >= held.seen:
                    asked[one.id] = one
        return list(asked.values()), n_superseded

    def _meet(
        self,
        segment: Segment,
        asked: Sequence[_Asked],
        tallies: Tallies,
        matched: dict[tuple[str, str, str], int],
    ) -> dict[int, str]:
        """Join what is in one segment; return what became of it, by id."""
        self._database.execute("DELETE FROM reported")
        self._database.executemany(
            "INSERT INTO reported VALUES (?, ?, ?)",
            [(one.id, one.id1, at) for at, one in enumerate(asked)],
        )
        rows = self._database.execute(_MEET.format(n=segment.n)).fetchall()
        met: dict[int, str] = {}
        changed: list[tuple[_Asked, _Row]] = []
        for at, *columns in rows:
            one, row = asked[at], _Row(*columns)
            met[row.id] = _verdict(one, row)
            if _holds(one, row):
                changed.append((one, row))
        if changed:
            self._apply(segment, changed, tallies)
        for one, row in changed:
            key = self._deciders[row.v].key
            label = {0: "negative", 1: "positive"}.get(one.label, "retracted")
            name = (key.model, key.version, label)
            matched[name] = matched.get(name, 0) + 1
        return met

    def _apply(
        self, segment: Segment, changed: Sequence[tuple[_Asked, _Row]], tallies: Tallies
    ) -> None:
        self._database.executemany(
            _UPDATE.format(n=segment.n),
            [
                (one.label, one.seen, None if math.isnan(one.amount) else one.amount, one.source,
                 row.id)
                for one, row in changed
            ],
        )  # fmt: skip
        before = [_known(row.label) for _, row in changed]
        after = [_known(one.label) for one, _ in changed]
        gained = sum(a != UNKNOWN for a in after) - sum(b != UNKNOWN for b in before)
        self._segments.label(segment.n, gained)
        raw = np.array([row.raw for _, row in changed], np.int32).view(np.float32)
        score = np.array([row.score for _, row in changed], np.int32).view(np.float32)
        weight = np.array([1.0 / ((row.s or 1.0) * (row.p or 1.0)) for _, row in changed])
        old = np.array([math.nan if r.amount is None else r.amount for _, r in changed])
        new = np.array([one.amount for one, _ in changed])
        v = np.array([row.v for _, row in changed])
        bins = np.empty(len(changed), np.int64)
        for number in np.unique(v).tolist():
            mine = v == number
            bins[mine] = bins_of(self._deciders[number].edges, raw[mine])
        places = [
            (segment.n, row.v, b, row.d) for (_, row), b in zip(changed, bins.tolist(), strict=True)
        ]
        scores = score.astype(np.float64)
        for labels, amounts, sign in ((before, old, -1), (after, new, 1)):
            cells = [(*place, label) for place, label in zip(places, labels, strict=True)]
            tallies.add(cells, weight, scores, amounts, sign)

    def _wait(
        self,
        waiting: Mapping[int, Sequence[_Asked]],
        outcomes: Sequence[ReportedOutcome],
        oldest_ms: int,
        now_ms: int,
    ) -> tuple[int, int]:
        """Let outcomes wait; return how many are of a time not remembered, and waited before."""
        n_expired = n_repeated = 0
        rows = []
        for at, ones in waiting.items():
            n_expired += outcomes[at].observed_ms < oldest_ms
            rows += [
                (one.id, one.id1, one.label, one.seen,
                 None if math.isnan(one.amount) else one.amount, one.source, now_ms)
                for one in ones
            ]  # fmt: skip
        for row in rows:
            known = self._database.execute(_WAITS, row[:2]).fetchone()
            self._database.execute(_WAIT, row)
            n_repeated += known is not None
            self.n_waiting += known is None
        return n_expired, n_repeated

    def _bound(self) -> None:
        excess = self.n_waiting - self._max_waiting
        if excess > 0:
            self._database.execute(
                "DELETE FROM waiting WHERE (id, id1) IN "
                "(SELECT id, id1 FROM waiting ORDER BY since_ms LIMIT ?)",
                (excess,),
            )
            self.n_waiting -= excess

    def _source(self, name: str) -> int:
        found = self._database.execute("SELECT s FROM sources WHERE name = ?", (name,)).fetchone()
        if found is None:
            [n] = self._database.execute("SELECT count(*) FROM sources").fetchone()
            if n >= MAX_SOURCES and name != OTHER:
                return self._source(OTHER)
            cursor = self._database.execute("INSERT INTO sources (name) VALUES (?)", (name,))
            assert cursor.lastrowid is not None
            return cursor.lastrowid
        return int(found[0])


def _signed(word: int) -> int:
    [signed] = struct.unpack("<q", struct.pack("<Q", word))
    return int(signed)


def _known(label: int | None) -> int:
    return UNKNOWN if label is None or label == RETRACTED else label


def _same(one: _Asked, row: _Row) -> bool:
    amount = math.nan if row.amount is None else row.amount
    return one.label == row.label and (
        one.amount == amount or (math.isnan(one.amount) and math.isnan(amount))
    )


def _holds(one: _Asked, row: _Row) -> bool:
    """Return whether an outcome takes the place of what is known."""
    return row.seen is None or (one.seen >= row.seen and not _same(one, row))


def _verdict(one: _Asked, row: _Row) -> str:
    if row.seen is None:
        return "new"
    return "same" if _same(one, row) else "revised"


def _gravity(what: str) -> int:
    return ("", "same", "new", "revised").index(what)
