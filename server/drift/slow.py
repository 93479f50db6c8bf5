"""The slow window: a day of every row seen, as histograms in panes of half an hour.

A pane is a vector of counts on the reference's bins; the window is their sum, kept up to date: a
pane that grows old is subtracted. Panes lie on multiples of their length, at most an hour, so each
belongs to one hour of the week. What was counted survives a restart (`dump`, `load`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.drift.columns import Columns, Counts, Float32Array
from server.drift.hours import HOURS, hour_of_week


class SlowWindow:
    """Panes of counts over the last `span_ms`.

    Parameters
    ----------
    columns : Columns
    span_ms, pane_ms : int
    """

    def __init__(self, columns: Columns, span_ms: int, pane_ms: int) -> None:
        self._columns = columns
        self._pane_ms = pane_ms
        self.span_wanted_ms = span_ms
        self._n_panes = max(1, -(-span_ms // pane_ms))
        self._panes: dict[int, NDArray[np.uint32]] = {}  # by time // pane_ms, ascending
        self._first_ms: dict[int, int] = {}  # the pane's first row
        self._last_ms = 0
        self.total: Counts = np.zeros(columns.size, np.int64)

    def add(
        self, values: Float32Array, fallback: NDArray[np.bool_], time_ms: NDArray[np.int64]
    ) -> None:
        """Count rows; see `FastWindow.add` for the parameters."""
        ids = time_ms // self._pane_ms
        starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            rows = slice(start, stop)
            counts = self._columns.count(values[:, rows], fallback[:, rows])
            self._add_counts(int(ids[start]), counts, int(time_ms[start]))
        self._last_ms = int(time_ms[-1])
        self.forget_before(int(ids[-1]) - self._n_panes + 1)

    def _add_counts(self, pane: int, counts: NDArray[Any], first_ms: int) -> None:
        if pane in self._panes:
            self._panes[pane] += counts.astype(np.uint32)
            self._first_ms[pane] = min(self._first_ms[pane], first_ms)
        else:
            self._panes[pane] = counts.astype(np.uint32)
            self._first_ms[pane] = first_ms
        self.total += counts

    def forget_before(self, pane: int) -> None:
        """Drop panes before the given one."""
        for old in [p for p in self._panes if p < pane]:
            self.total -= self._panes.pop(old)
            del self._first_ms[old]

    def rebase(self, time_ms: int) -> None:
        """Go on from an earlier time: panes that lie ahead of it become part of its own."""
        pane = time_ms // self._pane_ms
        for ahead in [p for p in self._panes if p >= pane]:
            counts, first_ms = self._panes.pop(ahead), self._first_ms.pop(ahead)
            self.total -= counts
            self._add_counts(pane, counts, min(first_ms, time_ms))
        self._last_ms = min(self._last_ms, time_ms)

    @property
    def n_rows(self) -> int:
        """Return how many rows the window has counted."""
        return self._columns.n_rows(self.total)

    @property
    def span_ms(self) -> int:
        """Return the time between the first row counted and the last."""
        return max(0, self._last_ms - min(self._first_ms.values())) if self._panes else 0

    @property
    def is_full(self) -> bool:
        """Whether it covers its whole span, less the pane that is being dropped."""
        return self.span_ms >= self.span_wanted_ms - 2 * self._pane_ms

    def by_hour(self, j: int) -> NDArray[np.int64]:
        """Return column j's bins by hour of the week, int64 [168, n_bins]."""
        columns = self._columns
        table = np.zeros((HOURS, int(columns.offsets[j + 1] - columns.offsets[j])), np.int64)
        for pane, counts in self._panes.items():
            hour = int(hour_of_week(np.array(pane * self._pane_ms)))
            table[hour] += columns.bins(counts, j)  # type: ignore[arg-type]  # a view, any integers
        return table

    @property
    def n_bytes(self) -> int:
        """Return the memory that the counts take when every pane is filled."""
        return self._columns.size * (4 * (self._n_panes + 1) + 8)

    def dump(self) -> dict[str, NDArray[Any]]:
        """Return the whole state as arrays."""
        ids = sorted(self._panes)
        size = self._columns.size
        return {
            "slow_pane": np.array(ids, np.int64),
            "slow_first_ms": np.array([self._first_ms[p] for p in ids], np.int64),
            "slow_last_ms": np.array([self._last_ms], np.int64),
            "slow_counts": np.array([self._panes[p] for p in ids], np.uint32).reshape(-1, size),
        }

    def load(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take up what `dump` returned; the caller has checked the shapes."""
        self._panes, self._first_ms = {}, {}
        self.total = np.zeros(self._columns.size, np.int64)
        self._last_ms = int(arrays["slow_last_ms"][0])
        ids = arrays["slow_pane"].tolist()
        firsts = arrays["slow_first_ms"].tolist()
        for pane, first_ms, counts in zip(ids, firsts, arrays["slow_counts"], strict=True):
            self._add_counts(pane, counts, first_ms)
        if ids:
            self.forget_before(max(ids) - self._n_panes + 1)
