"""What the replayed transactions really are, beside what was made of them: quality as it is.

The simulator knows every label, at once and without a mistake. So quality is computed here as it
is; what the server finds out from late and partial reports stands beside it. Beside both stands
what could be known at best if all that is to be blocked were blocked. The newest MOST_ROWS answers
are remembered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from server.demo.quality import ranking_quality
from server.demo.traffic import Rows
from server.pb.scoregate.v1 import scoring_pb2 as pb

MOST_ROWS = 300_000
AMOUNT = "TX_AMOUNT"

ANSWER = np.dtype(
    [("time_ms", "i8"), ("raw", "f4"), ("who", "u1"), ("fraud", "?"), ("allowed", "?")]
)


class Truth:
    """Remembers answers, and says how good they were.

    Parameters
    ----------
    rows : Rows
    blocked : str
        The decision that stops a transaction; empty: none does.
    most_rows : int
    now_ms : callable
        Milliseconds since the Unix epoch.
    """

    def __init__(
        self,
        rows: Rows,
        blocked: str = "",
        *,
        most_rows: int = MOST_ROWS,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._fraud: list[bool] = rows.fraud.tolist()
        self._blocked = blocked
        names = rows.names.tolist()
        amounts = (
            rows.features[:, names.index(AMOUNT)] if AMOUNT in names else 0 * rows.raw_score[0]
        )
        # 0: not known.
        self._amount: list[float] = np.nan_to_num(amounts).clip(min=0.0).tolist()
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._answers = np.zeros(most_rows, ANSWER)
        self._n = 0  # ever
        self._who: dict[tuple[str, str], int] = {}  # (version, arm) -> number

    def amount(self, row: int) -> float:
        """Return what a row is about, in units of currency."""
        return self._amount[row]

    def is_fraud(self, row: int) -> bool:
        """Return what a row is."""
        return self._fraud[row]

    def decided(self, row: int, answer: pb.ScoreResponse) -> bool:
        """Remember an answer; return whether the transaction is a fraud."""
        is_fraud = self._fraud[row]
        # What was explored is allowed by chance: without exploring it would have been blocked.
        is_allowed = not answer.explored and answer.decision != self._blocked
        with self._lock:
            who = self._who.setdefault((answer.version, answer.arm), len(self._who))
            at = self._n % len(self._answers)
            self._answers[at] = (self._now_ms(), answer.raw_score, who, is_fraud, is_allowed)
            self._n += 1
        return is_fraud

    def quality(
        self,
        version: str,
        arm: str,
        *,
        from_ms: int,
        to_ms: int,
        cuts: Mapping[str, float],
        allowed_only: bool = False,
    ) -> dict[str, Any]:
        """Return how good decisions of a stretch of time were.

        Parameters
        ----------
        version, arm : str
        from_ms, to_ms : int
            When they were taken, both ends included.
        cuts : mapping of str to float
            Raw score of each threshold.
        allowed_only : bool
            Whether to leave out what was to be blocked, explored or not.

        Returns
        -------
        dict
            "n", "frauds", "auc", "average_precision", and of each threshold "recall:NAME" and
            "precision:NAME", as far as there is something to divide by.
        """
        with self._lock:
            answers = self._answers[: min(self._n, len(self._answers))].copy()
            who = self._who.get((version, arm), -1)
        mine = (answers["who"] == who) & (answers["time_ms"] >= from_ms)
        mine &= answers["time_ms"] <= to_ms
        if allowed_only:
            mine &= answers["allowed"]
        return figures(answers["raw"][mine], answers["fraud"][mine], cuts)


def figures(
    raw: npt.NDArray[np.float32], fraud: npt.NDArray[np.bool_], cuts: Mapping[str, float]
) -> dict[str, Any]:
    """Return quality with every label known.

    Parameters
    ----------
    raw : float32 [n]
    fraud : bool [n]
    cuts : mapping of str to float
        Raw score of each threshold.
    """
    n_frauds = int(np.count_nonzero(fraud))
    found: dict[str, Any] = {"n": len(raw), "frauds": n_frauds, **ranking_quality(fraud, raw)}
    for name, cut in cuts.items():
        reached = raw >= np.float32(cut)
        caught, n_reached = int(np.count_nonzero(fraud & reached)), int(np.count_nonzero(reached))
        if n_frauds:
            found[f"recall:{name}"] = caught / n_frauds
        if n_reached:
            found[f"precision:{name}"] = caught / n_reached
    return found
