"""The transactions that the demo replays, and how each becomes a request.

Most requests are dense: all features of the layout, in its order, beside its fingerprint. A share
is named instead, as a caller without the layout would write. Which row is which is drawn once
from a fixed seed.

Where a store holds the features of customers and terminals, the layout is what only the caller
knows: the amount and the time. Without a store the caller sends all, and a share of its requests
comes without the terminal's features, as if its own look-up had timed out: the server falls back
to the schema's defaults, says so in the answer, and counts it.

From a given call on, the requests may have a fault (`faults`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from server.demo.columns import TERMINAL_COLUMNS
from server.demo.faults import FAULTS, FaultKind
from server.demo.files import load_arrays, save_arrays
from server.errors import InputError
from server.pb.scoregate.v1 import scoring_pb2 as pb

NAMED_SHARE = 0.05
INCOMPLETE_SHARE = 0.01
MIX_SEED = 20180401
CENTS = 100.0  # in a unit of currency
WEEK_MS = 7 * 86_400_000


@dataclass(frozen=True)
class Rows:
    """Transactions to replay, in the order of time.

    Attributes
    ----------
    names : str [n_features]
    features : float32 [n_rows, n_features]
    fraud : bool [n_rows]
    transaction, customer, terminal : str [n_rows]
        Ids. `terminal` is empty where the data has none.
    event_time_ms : int64 [n_rows]
        Milliseconds since the Unix epoch.
    versions : str [n_versions]
    raw_score : float32 [n_versions, n_rows]
        What each version's engine makes of the row offline.
    """

    names: npt.NDArray[np.str_]
    features: npt.NDArray[np.float32]
    fraud: npt.NDArray[np.bool_]
    transaction: npt.NDArray[np.str_]
    customer: npt.NDArray[np.str_]
    terminal: npt.NDArray[np.str_]
    event_time_ms: npt.NDArray[np.int64]
    versions: npt.NDArray[np.str_]
    raw_score: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write the rows to a .npz file, aside and renamed."""
        save_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> Rows:
        """Read what `save` wrote; nothing in the file is executed."""
        return cls(**load_arrays(path, list(cls.__dataclass_fields__)))

    @property
    def period_ms(self) -> int:
        """How much later they may be sent again, so that weekdays stay and time goes on."""
        span_ms = int(self.event_time_ms[-1] - self.event_time_ms[0])
        return (span_ms // WEEK_MS + 1) * WEEK_MS


class Traffic:
    """Turns rows into serialized requests for one layout.

    Parameters
    ----------
    rows : Rows
    columns : sequence of (str, str)
        The layout: names and types ("numeric", "boolean") in order.
    layout : int
        Its fingerprint.
    incomplete_share : float
        Of the requests, how many come without the terminal's features.
    fault : FaultKind
    first_faulty : int
        The first call that has the fault, all turns counted.
    period_ms : int
        How much later a turn through the rows is than the one before; 0: time begins anew.

    Raises
    ------
    InputError
        When the layout has a column that the rows lack.
    """

    def __init__(
        self,
        rows: Rows,
        columns: Sequence[tuple[str, str]],
        layout: int,
        *,
        incomplete_share: float = INCOMPLETE_SHARE,
        fault: FaultKind = "none",
        first_faulty: int = 0,
        period_ms: int = 0,
    ) -> None:
        place = {str(name): index for index, name in enumerate(rows.names)}
        missing = [name for name, _ in columns if name not in place]
        if missing:
            raise InputError(f"the model wants features that the rows lack: {', '.join(missing)}")
        self.rows = rows
        self.n_rows = len(rows.fraud)
        self._columns = list(columns)
        self._layout = layout
        order = [place[name] for name, _ in columns]
        self._values = np.ascontiguousarray(rows.features[:, order])
        rng = np.random.default_rng(MIX_SEED)
        self.is_named = rng.random(self.n_rows) < NAMED_SHARE
        self.is_incomplete = rng.random(self.n_rows) < incomplete_share
        withheld = np.array([name in TERMINAL_COLUMNS for name, _ in columns])
        self._values[np.ix_(self.is_incomplete, withheld)] = np.nan
        self._fault = fault
        self._first_faulty = first_faulty
        self._period_ms = period_ms
        self._faulty_values = apply_fault(
            fault,
            [name for name, _ in columns],
            self._values,
            first_row=first_faulty % self.n_rows,
        )

    def is_faulty(self, call: int) -> bool:
        """Whether a call, all turns counted, has the fault."""
        return self._fault != "none" and call >= self._first_faulty

    def request(self, row: int, turn: int) -> bytes:
        """Return one serialized ScoreRequest.

        Parameters
        ----------
        row : int
            Below `n_rows`.
        turn : int
            How many times all rows were sent before; part of the request id, as every decision
            has an id of its own.
        """
        rows = self.rows
        message = pb.ScoreRequest(
            request_id=f"{rows.transaction[row]}-{turn}",
            event_time_ms=int(rows.event_time_ms[row]) + turn * self._period_ms,
            entities=[pb.Entity(role="payer", type="customer", id=str(rows.customer[row]))],
        )
        if rows.terminal[row]:
            terminal = str(rows.terminal[row])
            message.entities.append(pb.Entity(role="payee", type="terminal", id=terminal))
        is_faulty = self.is_faulty(turn * self.n_rows + row)
        values = (self._faulty_values if is_faulty else self._values)[row]
        if not self.is_named[row]:
            message.dense.layout = self._layout
            message.dense.values.extend(values.tolist())
            return message.SerializeToString()
        for (name, kind), value in zip(self._columns, values.tolist(), strict=True):
            if value != value:  # NaN: what is not known is left out
                continue
            if kind == "boolean":
                message.named.values[name].flag = value != 0
            else:
                message.named.values[name].number = value
        return message.SerializeToString()


def apply_fault(
    kind: FaultKind, names: Sequence[str], values: npt.NDArray[np.float32], *, first_row: int
) -> npt.NDArray[np.float32]:
    """Return the rows as they are with the fault.

    Parameters
    ----------
    kind : FaultKind
    names : sequence of str
        The columns.
    values : float32 [n_rows, n_columns]
        Not changed.
    first_row : int
        The first one that has the fault.
    """
    feature = FAULTS[kind].feature
    if not feature:
        return values
    out = values.copy()
    column = out[:, list(names).index(feature)]  # a view
    if kind == "amount":
        column *= CENTS
    elif kind == "dropped":
        column[:] = np.nan
    else:
        column[:] = column[first_row]
    return out
