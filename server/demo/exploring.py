"""Payments that would have been blocked and pass all the same: what that costs, to the cent.

Of a payment that is blocked nothing is ever heard: nobody disputes what did not happen. So nobody
knows how good blocking is, unless a share of what would be blocked is explored: it passes, and
something comes of it. `scoregate demo --explore SHARE` is such a world. The simulator knows what
every payment is, and so what passed because of it.

What it buys is in `exploring_words`: quality as the server weighs it, beside that of the payments
which nobody wanted to block, and the truth.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import grpc

from server.demo.truth import Truth
from server.errors import StartError
from server.pb.scoregate.v1 import control_pb2
from server.pb.scoregate.v1 import scoring_pb2 as pb

SET_EXPLORATION = "/scoregate.v1.Control/SetExploration"
TIMEOUT_S = 10.0


class Stopped:
    """Counts what would have been blocked: what was, and what passed.

    Written by grpc's thread, read by another, under one lock.

    Parameters
    ----------
    truth : Truth
        What the transactions really are.
    blocked : str
        The decision that stops a transaction; empty: none does.
    is_hidden : bool
        Whether nothing is ever heard of what was blocked.
    """

    def __init__(self, truth: Truth, blocked: str, *, is_hidden: bool) -> None:
        self._truth = truth
        self._blocked = blocked
        self._is_hidden = is_hidden
        self._lock = threading.Lock()
        self._n: defaultdict[str, int] = defaultdict(int)
        self._amount: defaultdict[str, float] = defaultdict(float)

    def decided(self, row: int, answer: pb.ScoreResponse) -> None:
        """Count an answer, if it is about what would have been blocked."""
        if answer.explored:
            what = "explored"
        elif answer.decision == self._blocked:
            what = "blocked"
        else:
            return
        kind = f"{what} {'frauds' if self._truth.is_fraud(row) else 'genuine'}"
        with self._lock:
            self._n[kind] += 1
            self._amount[kind] += self._truth.amount(row)

    def state(self) -> dict[str, Any]:
        """Return `is_hidden`, and number and amount of "blocked" and "explored", by what it was."""
        with self._lock:
            counted = {
                what: {
                    kind: [self._n[f"{what} {kind}"], self._amount[f"{what} {kind}"]]
                    for kind in ("frauds", "genuine")
                }
                for what in ("blocked", "explored")
            }
        return {"is_hidden": self._is_hidden, **counted}


def set_share(
    set_exploration: Callable[..., control_pb2.ChangeResponse], share: float | None
) -> None:
    """Explore from the first call on; or end what an earlier run has left.

    Parameters
    ----------
    set_exploration : callable
        The control port's SetExploration.
    share : float or None
        None: the demo is not about exploring.

    Raises
    ------
    StartError
        It cannot be explored: changes may be frozen, as an earlier run left them.
    """
    why = "the demo begins without exploring" if share is None else f"make demo EXPLORE={share:g}"
    options = control_pb2.ChangeOptions(who="demo", why=why)
    request = control_pb2.SetExplorationRequest(share=share or 0.0, options=options)
    try:
        set_exploration(request, timeout=TIMEOUT_S, wait_for_ready=True)
    except grpc.RpcError as error:
        # Frozen: then it goes on as it was, which is what freezing is for.
        if share is not None or error.code() is not grpc.StatusCode.ABORTED:
            raise StartError(
                f"a share of {share or 0:g} cannot be explored: {error.details()}; scoregate demo "
                "--fresh forgets what an earlier run left"
            ) from error
