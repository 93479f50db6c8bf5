"""The demo's feature pipeline: writes the records of customers and terminals, as they change.

A real pipeline follows the stream of transactions and keeps every entity's record up to date.
Here a transaction's record is known beforehand: it is the row's own features, the state of the
world just before it. So the pipeline runs a little ahead of the replay and writes the records of
the calls that come next, and what is served is exactly what the model was trained on.

Rules:

* A call's records are written before the call is sent.
* They are written only when every earlier call of the same customer and of the same terminal has
  been answered: no call reads a record from its future.
* A store that is gone or slow holds the calls up once, for PATIENCE_S at most: they go on without
  their records, which wait here, the newest of each entity, until a write succeeds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.errors import FastpathError
from server.demo.traffic import Rows
from server.errors import InputError, ScoregateError
from server.features import FeatureWriter, Group

PATIENCE_S = 0.25
RETRY_S = 0.5


@dataclass(frozen=True)
class Target:
    """Where the records of one group go, and what they are made of.

    Attributes
    ----------
    group : Group
    writer : FeatureWriter
        Used by the pipeline's thread only, once it runs.
    """

    group: Group
    writer: FeatureWriter


class Pipeline:
    """Writes records ahead of the calls that need them. A context: its thread runs inside.

    Parameters
    ----------
    rows : Rows
        Sent over and over, in order: call i is of row i modulo the number of rows.
    targets : sequence of Target
    ahead : int
        How many calls ahead to write, at least 2.
    period_ms : int
        How much later a turn through the rows is than the one before; 0: time begins anew.

    Raises
    ------
    InputError
        A group has columns that the rows lack, or is of an unknown kind of entity.
    """

    def __init__(
        self, rows: Rows, targets: Sequence[Target], *, ahead: int, period_ms: int = 0
    ) -> None:
        self._rows = rows
        self._n_rows = len(rows.fraud)
        self._period_ms = period_ms
        self._targets = targets
        self._values = [_columns(rows, target.group) for target in targets]
        ids = {"customer": rows.customer.tolist(), "terminal": rows.terminal.tolist()}
        try:
            self._ids: list[list[str]] = [ids[target.group.entity] for target in targets]
        except KeyError as error:
            raise InputError(f"the transactions have no entity of type {error}") from None
        self._ahead = ahead
        self._changed = threading.Condition()
        self._stopping = False
        self._sent = 0  # calls below it are on their way or answered
        self._next = 0  # the first call whose records have not been looked at
        self._ready = 0  # calls below it may be sent
        self._held_up = False  # the store fails or takes so long that calls do not wait for it
        # (target, entity) -> the call, not answered yet, whose record is the newest
        self._open: dict[tuple[int, str], int] = {}
        self._waiting: dict[tuple[int, str], int] = {}  # the same, of records to write
        self._n_written = 0
        self._error = ""
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)

    def __enter__(self) -> Pipeline:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def wait(self, call: int) -> float:
        """Wait until a call may be sent; from now on it counts as sent.

        Returns
        -------
        float
            Seconds that it had to wait.
        """
        waited_s = 0.0
        with self._changed:
            if self._ready <= call and not self._held_up:
                start = time.monotonic()
                if not self._changed.wait_for(lambda: self._ready > call, PATIENCE_S):
                    self._held_up = True
                waited_s = time.monotonic() - start
            self._sent = call + 1
            self._changed.notify_all()
        return waited_s

    def answered(self, call: int) -> None:
        """Say that a call has its answer, or never will."""
        with self._changed:
            for key in self._keys(call):
                if self._open.get(key) == call:
                    del self._open[key]
            self._changed.notify_all()

    def settle(self) -> None:
        """Wait until the records at hand are written: for PATIENCE_S, unless the store fails."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._error, PATIENCE_S)

    def state(self) -> dict[str, Any]:
        """Return `written` and `waiting` (numbers of records) and the last write's `error`."""
        with self._changed:
            return {
                "written": self._n_written,
                "waiting": len(self._waiting),
                "error": self._error,
            }

    def _keys(self, call: int) -> list[tuple[int, str]]:
        row = call % self._n_rows
        named = ((target, ids[row]) for target, ids in enumerate(self._ids))
        return [key for key in named if key[1]]

    def _run(self) -> None:
        """Take records and write them, until told to stop."""
        retry_at = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._has_work(), RETRY_S)
                if self._stopping:
                    return
                self._take()
                batch = dict(self._waiting)
            failure = self._error
            if batch and time.monotonic() >= retry_at:
                failure = self._write(batch)
                if failure:
                    retry_at = time.monotonic() + RETRY_S
            with self._changed:
                self._error = failure
                if not failure:
                    self._waiting.clear()
                    self._n_written += len(batch)
                # A store that has failed is not waited for again before it has taken something.
                self._held_up = bool(failure)
                self._ready = self._next
                self._changed.notify_all()

    def _has_work(self) -> bool:
        """Whether records may be taken; a few at a time, or every call would be a write."""
        return self._next - self._sent <= self._ahead // 2 and self._is_free(self._next)

    def _is_free(self, call: int) -> bool:
        return call < self._sent or not any(key in self._open for key in self._keys(call))

    def _take(self) -> None:
        """Take the records of the next calls, up to one whose entity is still being scored."""
        while self._next < self._sent + self._ahead and self._is_free(self._next):
            for key in self._keys(self._next):
                self._waiting[key] = self._next
                if self._next >= self._sent:
                    self._open[key] = self._next
            self._next += 1

    def _write(self, batch: dict[tuple[int, str], int]) -> str:
        """Write records; return what went wrong."""
        for number, target in enumerate(self._targets):
            keys = [key for key in batch if key[0] == number]
            calls = np.array([batch[key] for key in keys], dtype=np.int64)
            if not keys:
                continue
            turns, rows = np.divmod(calls, self._n_rows)
            try:
                target.writer.write(
                    [entity for _, entity in keys],
                    self._rows.event_time_ms[rows] + turns * self._period_ms,
                    self._values[number][rows],
                )
            except (ScoregateError, FastpathError) as error:
                return str(error)
        return ""


def _columns(rows: Rows, group: Group) -> npt.NDArray[np.float32]:
    """Return what a group's records hold, for every row."""
    place = {str(name): index for index, name in enumerate(rows.names)}
    missing = [name for name, _ in group.columns if name not in place]
    if missing:
        raise InputError(
            f"group {group.name!r} has columns that the rows lack: {', '.join(missing)}"
        )
    return np.ascontiguousarray(rows.features[:, [place[name] for name, _ in group.columns]])
