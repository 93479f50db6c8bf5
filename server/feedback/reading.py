"""Reading the store beside its writer: counted cells, and rows of some decisions.

A connection of its own, which cannot write. What is read within `snapshot` is of one moment, so
that cells and rows agree, and no segment is dropped in between.

Rows come in chunks, so that what is held at a time is bounded: a row as Python objects costs ten
times what it costs in arrays.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastpath.ledger import UNSTICKY
from server.feedback.database import RETRACTED, reader
from server.feedback.keys import Decider, Int64Array, VersionKey
from server.feedback.segments import Segment
from server.feedback.tallies import UNKNOWN

CHUNK_ROWS = 2_000
CACHE_KIB = 1024  # rows are read through, once
ENTITY_SHIFT = 20  # the lowest bits choose the arm

_CELLS = (
    "SELECT v, bin, d, label, min(n), max(n), "
    "sum(CASE WHEN w = rows THEN rows ELSE 0 END), "
    "sum(rows), sum(w), sum(w2), sum(score), sum(score2), sum(amount) FROM tallies "
    "WHERE n IN (SELECT value FROM json_each(?)) GROUP BY v, bin, d, label"
)
_ROWS = (
    "SELECT CASE WHEN d & {unsticky} THEN id ELSE entity END, t, raw, score, d, label, amount, "
    "1.0 / (coalesce(s, 1.0) * coalesce(p, 1.0)) FROM d_{n} WHERE v IN ({versions}){where}"
)


class Cells(NamedTuple):
    """Sums over segments; n cells."""

    v: Int64Array
    bin: Int64Array
    d: Int64Array  # decision | policy decision << 8 | flags << 16
    label: Int64Array  # UNKNOWN, RETRACTED, 0 or 1
    first: Int64Array  # the oldest segment that has one, and the newest
    last: Int64Array
    certain: Int64Array  # rows of segments where all were recorded, and decided so, for certain
    sums: NDArray[np.float64]  # (n, 6): rows, w, w2, score, score2, amount


class DecidedRows(NamedTuple):
    """Decisions, n of them."""

    entity: Int64Array  # hash of the card; without one, of the request
    time_ms: Int64Array
    raw: NDArray[np.float32]
    score: NDArray[np.float32]
    d: Int64Array
    label: NDArray[np.int8]  # UNKNOWN, RETRACTED, 0 or 1
    amount: NDArray[np.float64]  # NaN: not said
    weight: NDArray[np.float64]  # 1 / (probability of being recorded, and of the decision)


class Reader:
    """A read-only view of the store.

    Parameters
    ----------
    path
        Of the database.

    Raises
    ------
    sqlite3.Error
        Here and in every method: it is not there, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._database = reader(path)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything that is read within be of one moment."""
        self._database.execute("BEGIN")
        try:
            yield
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def segments(self) -> list[Segment]:
        """Return every segment, the oldest first."""
        found = self._database.execute(
            f"SELECT {', '.join(Segment._fields)} FROM segments ORDER BY n"  # noqa: S608 - names
        )
        return [Segment(*row) for row in found]

    def deciders(self) -> dict[int, Decider]:
        """Return what decided, by its number: later ones have higher numbers."""
        found = self._database.execute("SELECT v, model, version, sha256, arm, edges FROM versions")
        return {
            v: Decider(VersionKey(*key), np.frombuffer(edges, np.float32))
            for v, *key, edges in found
        }

    def cells(self, segments: Collection[int]) -> Cells:
        """Return what these segments hold, added up."""
        found = self._database.execute(_CELLS, (json.dumps(list(segments)),)).fetchall()
        table = np.array(found, np.float64).reshape(-1, 13)
        v, bins, d, label, first, last, certain = table[:, :7].astype(np.int64).T
        return Cells(v, bins, d, label, first, last, certain, np.ascontiguousarray(table[:, 7:]))

    def rows(
        self,
        segments: Sequence[Segment],
        versions: Collection[int],
        *,
        reported: bool = False,
        raw_from: float | None = None,
        one_in: int = 1,
    ) -> Iterator[DecidedRows]:
        """Yield decisions in chunks.

        Parameters
        ----------
        segments
            Which; all of their rows are looked at.
        versions
            Numbers of what decided.
        reported
            Only those whose outcome was reported, and not taken back.
        raw_from
            Only raw scores from here on, and positive outcomes; finite.
        one_in
            Only one in so many cards, by their hash, with all of their rows; a power of 2.
        """
        where = ""
        if reported:
            where += " AND label IN (0, 1)"
        if raw_from is not None:
            where += f" AND ({_reaches(raw_from)} OR label = 1)"
        if one_in > 1:
            own = f"CASE WHEN d & {UNSTICKY << 16} THEN id ELSE entity END"
            where += f" AND (({own}) >> {ENTITY_SHIFT}) & {one_in - 1} = 0"
        numbers = ", ".join(str(int(v)) for v in sorted(versions))
        for segment in segments:
            # Whole numbers and conditions of this module only.
            cursor = self._database.execute(
                _ROWS.format(
                    unsticky=UNSTICKY << 16, n=int(segment.n), versions=numbers, where=where
                )
            )
            while chunk := cursor.fetchmany(CHUNK_ROWS):
                yield _arrays(chunk, segment.start_ms)


def _arrays(chunk: list[tuple[Any, ...]], start_ms: int) -> DecidedRows:
    entity, t, raw, score, d, label, amount, weight = zip(*chunk, strict=True)
    return DecidedRows(
        entity=np.array(entity, np.int64),
        time_ms=np.array(t, np.int64) + start_ms,
        raw=np.array(raw, np.int32).view(np.float32),
        score=np.array(score, np.int32).view(np.float32),
        d=np.array(d, np.int64),
        label=np.array([UNKNOWN if one is None else one for one in label], np.int8),
        amount=np.array(amount, np.float64),
        weight=np.array(weight, np.float64),
    )


def _reaches(raw: float) -> str:
    """Return the condition that a raw score, kept as the signed integer of its bits, reaches one.

    Bits ascend with positive numbers, and descend with negative ones, whose integers are negative.
    """
    bits = int(np.array([raw], np.float32).view(np.int32)[0])
    return f"raw >= {bits}" if bits >= 0 else f"(raw >= 0 OR raw <= {bits})"


__all__ = ["RETRACTED", "UNKNOWN", "Cells", "DecidedRows", "Reader"]
