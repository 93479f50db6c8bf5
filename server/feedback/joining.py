"""Outcomes are joined with decisions: which one wins, what is counted, what waits.

For each decision the outcome that was observed last holds; of two observed at one time, the one
that came last. The same outcome again changes nothing but when it was observed. A retraction leaves
nothing known, and is itself an outcome: what was observed before it does not come back. A batch is
the same as its outcomes one after the other.

An outcome whose decision is not here waits: the decision may be on its way (they are drained a few
times a second), or it was never recorded. Those that wait are bounded; the oldest are given up. One
that names no model is for every model that decided under its id: those that are here when it comes,
or else those that come first.

Rows, tallies and waiting outcomes change in one transaction (`Records`), so that an outcome is
counted once, however often it is sent and whenever the process dies.

How it works: a batch becomes arrays, sorted by id as the tables are; rows of one segment, the
newest first, are read, judged and written together, and a segment that cannot hold an id is not
asked for it. Ids that a batch names more than once, which is rare, are judged one by one.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastpath.capture import id_hash
from server.feedback.arrays import Asked, Batch, Known, Rows, equal, group
from server.feedback.database import RETRACTED
from server.feedback.keys import Decider, Int64Array, bins_of, model_hash
from server.feedback.segments import Segment, Segments
from server.feedback.sources import Sources
from server.feedback.tallies import Tallies
from server.feedback.waiting import Waiting

# What became of an outcome: the gravest, where several models decided.
ABSENT, SAME, NEW, REVISED = range(4)
LABELS = {0: "negative", 1: "positive", RETRACTED: "retracted"}

# CROSS JOIN: in this order, whatever SQLite thinks of the tables' sizes.
_MEET = (
    "SELECT r.at, d.id, d.v, d.raw, d.score, d.d, coalesce(d.s, 1.0) * coalesce(d.p, 1.0), "
    "coalesce(d.label, -2), coalesce(d.seen, -1), d.amount "
    "FROM reported AS r CROSS JOIN d_{n} AS d ON d.id = r.id WHERE d.id1 = r.id1"
)
_UPDATE = "UPDATE d_{n} SET label = ?, seen = ?, amount = ?, source = ? WHERE id = ?"


class ReportedOutcome(NamedTuple):
    """One outcome, checked."""

    request_id: str
    model: str  # "": every model that decided under this id
    label: int  # 0, 1 or RETRACTED
    observed_ms: int
    amount: float  # NaN: not said
    source: str


class ReportCounts(NamedTuple):
    """What became of a batch, as ReportOutcomesResponse has it.

    Of those accepted each is unmatched, a duplicate, revised, or the first of its decision.
    """

    accepted: int
    unmatched: int
    duplicates: int
    revised: int
    expired: int  # of the unmatched
    matched: Mapping[tuple[str, str, str], int]  # (model, version, label): how often joined anew


class Joiner:
    """Joins, within the transactions of the store.

    Parameters
    ----------
    database, segments, deciders
        Of the store; `deciders` grows with it.
    sources
        Names of who reports.
    waiting
        Outcomes without a decision.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        segments: Segments,
        deciders: Mapping[int, Decider],
        sources: Sources,
        waiting: Waiting,
    ) -> None:
        self._database = database
        self._segments = segments
        self._deciders = deciders
        self._sources = sources
        self._waiting = waiting
        database.execute(
            "CREATE TEMP TABLE reported (id INTEGER PRIMARY KEY, id1 INTEGER, at INTEGER)"
        )

    def report(self, outcomes: Sequence[ReportedOutcome], now_ms: int) -> ReportCounts:
        """Join outcomes; those without a decision wait."""
        if not outcomes:
            return ReportCounts(0, 0, 0, 0, 0, {})
        batch = self._batch(outcomes)
        segments = self._segments.all()
        became = np.full(len(outcomes), ABSENT)
        tallies = Tallies()
        matched: Counter[tuple[str, str, str]] = Counter()
        self._join(batch, self._wanted(batch), segments[::-1], became, tallies, matched)
        tallies.write(self._database)
        absent = became == ABSENT
        if absent.any():
            self._waiting.put(batch.pick(absent), now_ms)
        oldest_ms = segments[0].start_ms if segments else 0
        return ReportCounts(
            accepted=len(outcomes),
            unmatched=int(absent.sum()),
            duplicates=int((became == SAME).sum()),
            revised=int((became == REVISED).sum()),
            expired=int((absent & (batch.seen < oldest_ms)).sum()),
            matched=matched,
        )

    def arrived(
        self,
        n: int,
        model: str,
        ids: Int64Array,
        second: Int64Array,
        tallies: Tallies,
        matched: Counter[tuple[str, str, str]],
    ) -> None:
        """Join decisions that were just kept with outcomes that came before them.

        Parameters
        ----------
        n : int
            Their segment.
        model : str
        ids, second : array of int64
            Of the decisions; ascending by id.
        tallies, matched
            Where the changes go.
        """
        of_model = model_hash(model)
        batch = self._waiting.take(ids ^ of_model, second, of_model)
        if batch is None:
            return
        asked = group(batch.first ^ of_model, batch.second, np.arange(len(batch.first)))
        [segment] = [s for s in self._segments.all() if s.n == n]
        self._join(batch, asked, [segment], np.full(len(batch.first), ABSENT), tallies, matched)

    # ------------------------------------------------------------------- a batch

    def _batch(self, outcomes: Sequence[ReportedOutcome]) -> Batch:
        ids, models, labels, seen, amounts, sources = zip(*outcomes, strict=True)
        halves = np.array([id_hash(one) for one in ids], np.uint64).view(np.int64)
        hashes = {name: model_hash(name) if name else 0 for name in set(models)}
        numbers = {name: self._sources.number(name) for name in set(sources)}
        label = np.array(labels, np.int64)
        # A retraction is about nothing.
        amount = np.where(label == RETRACTED, math.nan, np.array(amounts, np.float64))
        return Batch(
            halves[:, 0],
            halves[:, 1],
            np.array([hashes[name] for name in models], np.int64),
            label,
            np.array(seen, np.int64),
            amount,
            np.array([numbers[name] for name in sources], np.int64),
        )

    def _wanted(self, batch: Batch) -> Asked:
        """Return the decisions that outcomes are about, as far as names of models are known."""
        every = sorted({model_hash(decider.key.model) for decider in self._deciders.values()})
        all_of_them = np.arange(len(batch.first))
        one = batch.model != 0
        ids = [batch.first[one] ^ batch.model[one]]
        who = [all_of_them[one]]
        if not one.all():
            for of_model in every:
                ids.append(batch.first[~one] ^ of_model)
                who.append(all_of_them[~one])
        at = np.concatenate(who)
        return group(np.concatenate(ids), batch.second[at], at)

    # ---------------------------------------------------------------------- join

    def _join(
        self,
        batch: Batch,
        asked: Asked,
        segments: Sequence[Segment],
        became: NDArray[np.int64],
        tallies: Tallies,
        matched: Counter[tuple[str, str, str]],
    ) -> None:
        """Join outcomes with the first of these segments that holds each decision."""
        left = np.ones(len(asked.ids), bool)
        for segment in segments:
            # A retry that a newer segment has, too, is looked for no further.
            candidates = np.flatnonzero(left)
            candidates = candidates[self._segments.may_hold(segment.n, asked.ids[candidates])]
            rows = self._meet(segment.n, asked, candidates)
            if rows is not None:
                left[rows.at] = False
                self._judge(segment.n, batch, asked, rows, became, tallies, matched)

    def _meet(self, n: int, asked: Asked, candidates: Int64Array) -> Rows | None:
        """Return the decisions of one segment that are among the candidates of what is asked."""
        if not len(candidates):
            return None
        self._database.execute("DELETE FROM reported")
        self._database.executemany(
            "INSERT INTO reported VALUES (?, ?, ?)",
            zip(
                asked.ids[candidates].tolist(),
                asked.second[candidates].tolist(),
                candidates.tolist(),
                strict=True,
            ),
        )
        found = self._database.execute(_MEET.format(n=n)).fetchall()
        if not found:
            return None
        at, ids, v, raw, score, d, chance, label, seen, amount = zip(*found, strict=True)
        return Rows(
            np.array(at, np.int64),
            np.array(ids, np.int64),
            np.array(v, np.int64),
            np.array(raw, np.int32).view(np.float32),
            np.array(score, np.int32).view(np.float32).astype(np.float64),
            np.array(d, np.int64),
            1.0 / np.array(chance, np.float64),
            np.array(label, np.int64),
            np.array(seen, np.int64),
            np.array(amount, np.float64),  # None: NaN
        )

    def _judge(
        self,
        n: int,
        batch: Batch,
        asked: Asked,
        rows: Rows,
        became: NDArray[np.int64],
        tallies: Tallies,
        matched: Counter[tuple[str, str, str]],
    ) -> None:
        """Let outcomes take the place of what is known, where they do; write that down."""
        one = asked.who[asked.starts[rows.at]]
        after = Known(batch.label[one], batch.seen[one], batch.amount[one], batch.source[one])
        is_new = rows.seen < 0
        same = ~is_new & (after.label == rows.label) & equal(after.amount, rows.amount)
        # One outcome may have met decisions of several models.
        verdict = np.where(is_new, NEW, np.where(same, SAME, REVISED))
        np.maximum.at(became, one, verdict)
        changes = is_new | (~same & (after.seen >= rows.seen))
        writes = changes | (same & (after.seen > rows.seen))
        for i in np.flatnonzero(asked.sizes[rows.at] > 1).tolist():
            start = asked.starts[rows.at[i]]
            whose = asked.who[start : start + asked.sizes[rows.at[i]]]
            changes[i], writes[i] = _one_by_one(batch, whose, rows, i, became, after)
        if writes.any():
            columns = [column[writes].tolist() for column in after]
            columns[2] = [None if math.isnan(amount) else amount for amount in columns[2]]
            self._database.executemany(
                _UPDATE.format(n=n), zip(*columns, rows.id[writes].tolist(), strict=True)
            )
        if changes.any():
            self._count(
                n,
                rows.pick(changes),
                after.label[changes],
                after.amount[changes],
                tallies,
                matched,
            )

    def _count(
        self,
        n: int,
        rows: Rows,
        label: Int64Array,
        amount: NDArray[np.float64],
        tallies: Tallies,
        matched: Counter[tuple[str, str, str]],
    ) -> None:
        # A retracted label has cells of its own: silence may mean a good payment, that does not.
        self._segments.label(n, int((label >= 0).sum()) - int((rows.label >= 0).sum()))
        bins = np.empty(len(rows.v), np.int64)
        for v in np.unique(rows.v).tolist():
            mine = rows.v == v
            decider = self._deciders[v]
            bins[mine] = bins_of(decider.edges, rows.raw[mine])
            for value, name in LABELS.items():
                n_labels = int((mine & (label == value)).sum())
                if n_labels:
                    matched[decider.key.model, decider.key.version, name] += n_labels
        cells = (rows.v, bins, rows.d)
        tallies.add(n, *cells, rows.label, rows.weight, rows.score, rows.amount, -1)
        tallies.add(n, *cells, label, rows.weight, rows.score, amount)


def _one_by_one(
    batch: Batch,
    whose: Int64Array,
    rows: Rows,
    i: int,
    became: NDArray[np.int64],
    after: Known,
) -> tuple[bool, bool]:
    """Judge several outcomes of one decision; return whether it changes, and is written."""
    label, seen, amount = int(rows.label[i]), int(rows.seen[i]), float(rows.amount[i])
    source = -1  # as it is
    for at in whose.tolist():
        new = int(batch.label[at]), int(batch.seen[at]), float(batch.amount[at])
        same = new[0] == label and repr(new[2]) == repr(amount)
        verdict = NEW if seen < 0 else SAME if same else REVISED
        became[at] = max(int(became[at]), verdict)
        if new[1] >= seen:
            label, seen, amount = new
            source = int(batch.source[at])
    is_changed = rows.seen[i] < 0 or not (
        label == rows.label[i] and repr(amount) == repr(float(rows.amount[i]))
    )
    after.label[i], after.seen[i], after.amount[i] = label, seen, amount
    after.source[i] = source
    return bool(is_changed), bool(is_changed or seen > rows.seen[i])
