"""The fast window: the newest rows, thinned so that they always span the time they must.

A window of n rows is a second at ten thousand rows a second, and says how that second was. So time
is cut into slots of 1/18 of the least span, and of each slot at most n/20 rows are kept, a uniform
sample (reservoir, algorithm R of Vitter 1985). n kept rows then fill 20 slots at least, 18 of them
whole. With little traffic nothing is thinned, and the window reaches back as far as n rows do.

Rows are in columns, as `Columns.tidy` makes them. Times never descend: the monitor sees to that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.drift.columns import Float32Array

SLOTS = 20
WHOLE_SLOTS = 18


class FastWindow:
    """A ring of the newest `n_rows` kept rows.

    Parameters
    ----------
    n_columns, n_features : int
    n_rows : int
        How many rows it holds.
    min_span_ms : int
        What a full window spans at least; 0 keeps every row.
    """

    def __init__(self, n_columns: int, n_features: int, n_rows: int, min_span_ms: int) -> None:
        self.capacity = n_rows
        self._values = np.full((n_columns, n_rows), np.nan, np.float32)
        self._fallback = np.zeros((n_features, n_rows), np.bool_)
        self._time_ms = np.zeros(n_rows, np.int64)
        self._slot_ms = max(1, -(-min_span_ms // WHOLE_SLOTS))
        self._quota = n_rows // SLOTS if min_span_ms else n_rows
        self.n_appended = 0  # rows ever kept: the next row's number
        self.n_rows = 0
        self._slot = -1
        self._slot_kept = 0
        self._slot_seen = 0

    @property
    def first_row(self) -> int:
        """Return the number of the oldest row in the window."""
        return self.n_appended - self.n_rows

    def add(
        self, values: Float32Array, fallback: NDArray[np.bool_], time_ms: NDArray[np.int64]
    ) -> None:
        """Take rows in, in the order of time.

        Parameters
        ----------
        values : array of float32, shape (n_columns, n)
        fallback : array of bool, shape (n_features, n)
        time_ms : array of int64, shape (n,), ascending, none before the last row's
        """
        slots = time_ms // self._slot_ms
        starts = np.flatnonzero(np.append(True, slots[1:] != slots[:-1])).tolist()
        for start, stop in zip(starts, [*starts[1:], len(slots)], strict=True):
            self._add_to_slot(int(slots[start]), slice(start, stop), values, fallback, time_ms)

    def _add_to_slot(
        self,
        slot: int,
        rows: slice,
        values: Float32Array,
        fallback: NDArray[np.bool_],
        time_ms: NDArray[np.int64],
    ) -> None:
        if slot != self._slot:
            self._slot, self._slot_kept, self._slot_seen = slot, 0, 0
        n = rows.stop - rows.start
        n_kept = min(self._quota - self._slot_kept, n)
        at = (self.n_appended + np.arange(n_kept)) % self.capacity
        source = np.arange(rows.start, rows.start + n_kept)
        self.n_appended += n_kept
        self.n_rows = min(self.n_rows + n_kept, self.capacity)
        self._slot_kept += n_kept
        if n_kept < n:  # the slot is full: each further row takes the place of one, or of none
            seen = self._slot_seen + n_kept + np.arange(n - n_kept)
            # Seeded by the place in the stream, so that a restart changes nothing.
            draw = np.random.default_rng((slot & 0xFFFFFFFF, int(seen[0]))).integers(0, seen + 1)
            lucky = np.flatnonzero(draw < self._slot_kept)
            first = self.n_appended - self._slot_kept
            at = np.concatenate([at, (first + draw[lucky]) % self.capacity])
            source = np.concatenate([source, rows.start + n_kept + lucky])
        self._slot_seen += n
        self._values[:, at] = values[:, source]
        self._fallback[:, at] = fallback[:, source]
        self._time_ms[at] = time_ms[source]

    def forget_before(self, time_ms: int) -> None:
        """Drop rows that are older."""
        if self.n_rows:
            n_old = int((self._time_ms[self._places()] < time_ms).sum())
            self.n_rows -= n_old

    def rebase(self, time_ms: int) -> None:
        """Go on from an earlier time: the clock went back."""
        np.minimum(self._time_ms, time_ms, out=self._time_ms)
        self._slot = -1

    def rows(self) -> tuple[Float32Array, NDArray[np.bool_], NDArray[np.int64]]:
        """Return copies: values [n_columns, n], fallback [n_features, n], times [n]."""
        at = self._places()
        return self._values.take(at, axis=1), self._fallback.take(at, axis=1), self._time_ms[at]

    @property
    def span_ms(self) -> int:
        """Return the time between the oldest row and the newest."""
        if not self.n_rows:
            return 0
        times = self._time_ms[self._places()]
        return int(times.max() - times.min())

    def _places(self) -> NDArray[np.intp]:
        return (self.first_row + np.arange(self.n_rows)) % self.capacity

    @property
    def n_bytes(self) -> int:
        """Return the memory that the rows take."""
        return self._values.nbytes + self._fallback.nbytes + self._time_ms.nbytes

    def dump(self) -> dict[str, NDArray[Any]]:
        """Return the whole state as arrays."""
        values, fallback, times = self.rows()
        place = [self.n_appended, self._slot, self._slot_kept, self._slot_seen]
        return {
            "fast_values": values,
            "fast_fallback": fallback,
            "fast_time_ms": times,
            "fast_place": np.array(place, np.int64),
        }

    def load(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take up what `dump` returned; the caller has checked the shapes.

        Rows that a smaller window has no place for are the oldest.
        """
        times = arrays["fast_time_ms"]
        n = min(len(times), self.capacity)
        place = arrays["fast_place"].tolist()
        self.n_appended, self._slot, self._slot_kept, self._slot_seen = place
        self._slot_kept = min(self._slot_kept, n)
        self.n_rows = n
        at = self._places()
        keep = slice(len(times) - n, None)
        self._values[:, at] = arrays["fast_values"][:, keep]
        self._fallback[:, at] = arrays["fast_fallback"][:, keep]
        self._time_ms[at] = times[keep]
