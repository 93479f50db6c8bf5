"""Counts of decisions by what quality is made of, kept in step with every change of a row.

A cell is (segment, decider, bin of the raw score, decision, label); a label that is not known is
UNKNOWN. Cells change in the transaction that changes their rows, so a crash can neither lose nor
double anything; and quality is read from some thousand cells, however many decisions there are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -2  # of a cell's label: no report, or one that was taken back

Cell = tuple[int, int, int, int, int]  # n, v, bin, d, label

_UPSERT = """
INSERT INTO tallies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    rows = rows + excluded.rows, w = w + excluded.w, w2 = w2 + excluded.w2,
    score = score + excluded.score, score2 = score2 + excluded.score2,
    amount = amount + excluded.amount
"""


class Tallies:
    """Changes of cells, gathered and then written at once."""

    def __init__(self) -> None:
        self._cells: dict[Cell, NDArray[np.float64]] = {}

    def add(
        self,
        cells: Iterable[Cell],
        weight: NDArray[np.float64],
        score: NDArray[np.float64],
        amount: NDArray[np.float64],
        sign: int = 1,
    ) -> None:
        """Add rows to their cells, or with sign -1 take them out.

        Parameters
        ----------
        cells : iterable of tuple
            One per row.
        weight, score, amount : array of float64, shape (n,)
            `amount` is not counted where it is NaN.
        sign : int
        """
        amounts = np.where(np.isnan(amount), 0.0, amount) * weight
        sums = sign * np.column_stack(
            [np.ones_like(weight), weight, weight**2, weight * score, weight * score**2, amounts]
        )
        for cell, row in zip(cells, sums, strict=True):
            held = self._cells.get(cell)
            if held is None:
                self._cells[cell] = row.copy()
            else:
                held += row

    def write(self, database: sqlite3.Connection) -> None:
        """Put the changes into the database's transaction."""
        database.executemany(
            _UPSERT,
            [
                (*cell, round(sums[0]), *sums[1:].tolist())
                for cell, sums in sorted(self._cells.items())
                if sums.any()
            ],
        )
        self._cells.clear()
