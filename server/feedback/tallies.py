"""Counts of decisions by what quality is made of, kept in step with every change of a row.

A cell is (segment, decider, bin of the raw score, decision, label); a label that is not known is
UNKNOWN. Cells change in the transaction that changes their rows, so a crash can neither lose nor
double anything; and quality is read from some thousand cells, however many decisions there are.
"""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

from server.feedback.keys import Int64Array

UNKNOWN = -2  # of a cell's label: no report; one that was taken back is RETRACTED

# Where each part of a cell is in 63 bits; the decider takes the rest.
LABEL_BITS, D_BITS, BIN_BITS = 2, 24, 16
MAX_DECIDERS = 1 << (63 - LABEL_BITS - D_BITS - BIN_BITS)

_UPSERT = """
INSERT INTO tallies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    rows = rows + excluded.rows, w = w + excluded.w, w2 = w2 + excluded.w2,
    score = score + excluded.score, score2 = score2 + excluded.score2,
    amount = amount + excluded.amount
"""
# What rounding left of a cell that holds nothing any more.
_SWEEP = (
    "DELETE FROM tallies WHERE n = ? AND v = ? AND bin = ? AND d = ? AND label = ? AND rows = 0"
)


class Tallies:
    """Changes of cells, gathered and then written at once."""

    def __init__(self) -> None:
        self._changes: list[tuple[int, Int64Array, NDArray[np.float64]]] = []

    def add(
        self,
        n: int,
        v: Int64Array,
        bins: Int64Array,
        d: Int64Array,
        label: Int64Array,
        weight: NDArray[np.float64],
        score: NDArray[np.float64],
        amount: NDArray[np.float64],
        sign: int = 1,
    ) -> None:
        """Add rows to their cells, or with sign -1 take them out.

        Parameters
        ----------
        n : int
            Their segment.
        v, bins, d, label : array of int64, shape (n_rows,)
            The rest of each row's cell.
        weight, score, amount : array of float64, shape (n_rows,)
            `amount` is not counted where it is NaN, `score` where it is not finite.
        sign : int
        """
        keys = (((v << BIN_BITS | bins) << D_BITS | d) << LABEL_BITS) | (label - UNKNOWN)
        keys = keys.astype(np.int64)
        cells, place = np.unique(keys, return_inverse=True)
        score = np.where(np.isfinite(score), score, 0.0)
        amount = np.where(np.isnan(amount), 0.0, amount)
        sums = [
            np.bincount(place, column, len(cells))
            for column in (
                np.ones_like(weight), weight, weight**2, weight * score, weight * score**2,
                weight * amount,
            )
        ]  # fmt: skip
        self._changes.append((n, cells, np.asarray(sign * np.column_stack(sums), np.float64)))

    def write(self, database: sqlite3.Connection) -> None:
        """Put the changes into the database's transaction."""
        shrunk: list[tuple[int, ...]] = []
        for n in sorted({n for n, _, _ in self._changes}):
            mine = [(cells, sums) for at, cells, sums in self._changes if at == n]
            every, place = np.unique(np.concatenate([c for c, _ in mine]), return_inverse=True)
            sums = np.zeros((len(every), 6))
            np.add.at(sums, place, np.concatenate([s for _, s in mine]))
            parts = _parts(n, every)
            rows = np.rint(sums[:, 0]).astype(np.int64)
            columns = [part.tolist() for part in (*parts, rows, *sums[:, 1:].T)]
            database.executemany(_UPSERT, zip(*columns, strict=True))
            fewer = rows <= 0
            shrunk += zip(*(part[fewer].tolist() for part in parts), strict=True)
        database.executemany(_SWEEP, shrunk)
        self._changes.clear()


def _parts(n: int, keys: Int64Array) -> tuple[Int64Array, ...]:
    """Return n, v, bin, d and label of packed cells."""
    label = (keys & ((1 << LABEL_BITS) - 1)) + UNKNOWN
    keys = keys >> LABEL_BITS
    d = keys & ((1 << D_BITS) - 1)
    keys = keys >> D_BITS
    return np.full_like(keys, n), keys >> BIN_BITS, keys & ((1 << BIN_BITS) - 1), d, label
