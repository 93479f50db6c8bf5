"""What becomes of the replayed transactions, told late and in part, as it happens with cards.

The simulator knows the truth. The world learns it like this:

    blocked     the cardholder is asked and says within two seconds what it was; one in a hundred
                never answers
    reviewed    an analyst says what it is after a second or so, and is wrong once in fifty
    fraud       the cardholder disputes it some seconds later (exponential); a few never look at
                their statement, and their frauds stay unknown
    genuine     one in twenty is confirmed; a few are disputed until somebody remembers, and then
                that is taken back; of the others nothing is ever heard

The later report of a transaction wins: a dispute takes the place of what an analyst said. Most
labels are silence, which counts as genuine once it is old enough (`OutcomeStory.maturity_s`). As
blocked transactions have outcomes here, quality is that of all traffic, and the server is told so
(feedback.unseen_decisions). Elsewhere nobody asks, and of what was blocked nothing is ever heard:
so it is here, too, in a demo of exploring (`OutcomeStory.explore`).

A thread of the replaying client reports over the control port. An outcome that cannot be sent is
sent again: the server counts it once. What is due beyond MOST_WAITING is forgotten.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

from server.demo.truth import Truth
from server.pb.scoregate.v1 import feedback_pb2 as pb
from server.pb.scoregate.v1 import scoring_pb2

ASKED_S = (0.5, 2.0)  # a cardholder, about what was blocked
UNANSWERED_SHARE = 0.01
REVIEW_S = (0.5, 1.5)
MISTAKEN_SHARE = 0.02  # of reviews
DISPUTE_S = 2.0  # on average, after the first moment
FIRST_DISPUTE_S = 0.5
UNNOTICED_SHARE = 0.03  # of frauds
CONFIRMED_SHARE = 0.05  # of genuine transactions
CONFIRM_S = 1.0
FORGOTTEN_SHARE = 0.002  # of genuine transactions: disputed
REMEMBER_S = (1.0, 2.0)  # until that is taken back

SEND_S = 0.25
TIMEOUT_S = 5.0
MOST_AT_ONCE = 5_000
MOST_WAITING = 200_000


@dataclass(frozen=True)
class OutcomeStory:
    """How long things take on the demo's clock, where they take weeks elsewhere.

    Attributes
    ----------
    maturity_s : float
        Age from which on silence counts as genuine: nearly all disputes have come by then.
    window_s : float
        Time before that whose decisions are measured.
    interval_s : float
        Between two measurements.
    explore : float or None
        Share of what is to be blocked that passes, in a world where blocked transactions have no
        outcome; None: they have.
    """

    maturity_s: float = 10.0
    window_s: float = 600.0
    interval_s: float = 1.0
    explore: float | None = None

    def serve_options(self, directory: str, rate: float) -> list[str]:
        """Return options of `scoregate serve`.

        Parameters
        ----------
        directory : str
            Where decisions are kept.
        rate : float
            Calls a second: all of them are recorded.
        """
        # By default what is blocked has no outcome.
        seen = ["--feedback-unseen-decisions", "none"] if self.explore is None else []
        return [
            *("--feedback-directory", directory),
            *("--feedback-records-per-s", f"{min(max(1_000.0, 2 * rate), 1e6):g}"),
            *("--feedback-maturity-s", f"{self.maturity_s:g}"),
            *("--feedback-window-s", f"{self.window_s:g}"),
            *("--feedback-interval-s", f"{self.interval_s:g}"),
            *("--feedback-drain-s", "0.25"),
            *seen,
        ]

    @property
    def replay_options(self) -> tuple[str, ...]:
        """Return options of the replaying client."""
        return () if self.explore is None else ("--explore", repr(self.explore))

    def lines(self, where: str, sidecar: str) -> list[str]:
        """Return, for people, what will happen and how to look at it.

        Parameters
        ----------
        where : str
            The option that says where the control port is; empty: where it usually is.
        sidecar : str
            The sidecar's address.
        """
        return [
            "Outcomes come late, and of a part: reviews after a second, disputes after some more;",
            f"  of most, nothing at all. After {self.maturity_s:g} s silence counts as genuine.",
            *self._of_exploring(),
            f"  The console shows what is learnt: http://{sidecar}/console",
            "  From another terminal:",
            f"    scoregate quality{where}",
            *self._to_type(where),
            "    scoregate outcomes load --help   (yours, from a file)",
        ]

    def _to_type(self, where: str) -> list[str]:
        if self.explore is None:
            return []
        return [
            f"    scoregate explore show{where}",
            f"    scoregate explore set 0.5{where}   (or less; 0 ends it)",
        ]

    def _of_exploring(self) -> list[str]:
        if self.explore is None:
            return []
        hidden = "  Of a blocked payment nothing is ever heard, as in the world."
        if not self.explore:
            return [f"{hidden} None is explored:", "  how good blocking is, nobody can know."]
        stands_for = f"each stands for {1 / self.explore:.3g} when quality is measured."
        return [
            f"{hidden} So {self.explore:.3g} of those that",
            f"  reach the blocking threshold, drawn by request id, pass: {stands_for}",
        ]


class Due(NamedTuple):
    """An outcome on its way."""

    at_s: float
    number: int  # so that no two are equal
    request_id: str
    is_fraud: bool
    amount: float
    source: str


class Reporter:
    """Reports outcomes when they are due. A context: its thread runs inside.

    Parameters
    ----------
    report : callable
        The control port's ReportOutcomes.
    truth : Truth
        What the transactions really are.
    blocked : str
        The decision that stops a transaction; empty: none does.
    default : str
        The decision that nobody looks into.
    asks : bool
        Whether the cardholder of what was blocked is asked; else nothing is ever heard of it.
    clock : callable
        Seconds; for tests.
    """

    def __init__(
        self,
        report: Callable[..., Any],
        truth: Truth,
        *,
        blocked: str,
        default: str,
        asks: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._truth = truth
        self._blocked = blocked
        self._default = default
        self._asks = asks
        self._clock = clock
        self._lock = threading.Lock()
        self._random = random.Random(20180401)  # noqa: S311 - no secret: what happens to whom
        self._due: list[Due] = []
        self._number = 0
        self._counts: Counter[str] = Counter()
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def decided(self, row: int, answer: scoring_pb2.ScoreResponse) -> None:
        """Learn of an answer: something will become of it."""
        is_fraud = self._truth.decided(row, answer)
        with self._lock:
            if answer.decision != self._blocked:
                self._happen(row, answer, is_fraud)
            elif self._asks:
                self._ask(row, answer, is_fraud)

    def _ask(self, row: int, answer: scoring_pb2.ScoreResponse, is_fraud: bool) -> None:
        """Draw what a cardholder says of a transaction that was blocked."""
        if self._random.random() < UNANSWERED_SHARE:
            self._counts["unnoticed"] += is_fraud
            return
        self._plan(self._random.uniform(*ASKED_S), row, answer, is_fraud, "cardholder")

    def _happen(self, row: int, answer: scoring_pb2.ScoreResponse, is_fraud: bool) -> None:
        """Draw what will be heard of a transaction that was let through."""
        chance, draw = self._random.random, self._random
        was_told = answer.decision != self._default
        if was_told:
            said = is_fraud != (chance() < MISTAKEN_SHARE)
            self._plan(draw.uniform(*REVIEW_S), row, answer, said, "analyst")
        first_s = REVIEW_S[1] if was_told else 0.0
        dispute_s = first_s + FIRST_DISPUTE_S + draw.expovariate(1 / DISPUTE_S)
        if is_fraud:
            if chance() < UNNOTICED_SHARE:
                self._counts["unnoticed"] += 1
            else:
                self._plan(dispute_s, row, answer, True, "chargeback")
            return
        heard = chance()
        if heard < FORGOTTEN_SHARE:
            self._plan(dispute_s, row, answer, True, "chargeback")
            self._plan(dispute_s + draw.uniform(*REMEMBER_S), row, answer, False, "cardholder")
        elif heard < FORGOTTEN_SHARE + CONFIRMED_SHARE:
            self._plan(first_s + CONFIRM_S, row, answer, False, "cardholder")

    def _plan(
        self,
        delay_s: float,
        row: int,
        answer: scoring_pb2.ScoreResponse,
        is_fraud: bool,
        source: str,
    ) -> None:
        if len(self._due) >= MOST_WAITING:
            self._counts["forgotten"] += 1
            return
        self._number += 1
        due = Due(
            self._clock() + delay_s,
            self._number,
            answer.request_id,
            is_fraud,
            self._truth.amount(row),
            source,
        )
        heapq.heappush(self._due, due)

    def state(self) -> dict[str, Any]:
        """Return how many were reported, as what, and how many wait; and what went wrong."""
        with self._lock:
            return {**self._counts, "waiting": len(self._due), "trouble": self._trouble}

    def _run(self) -> None:
        while not self._stopping.wait(SEND_S):
            self.send()

    def send(self) -> None:
        """Report what is due."""
        while batch := self._take():
            trouble = self._deliver(batch)
            with self._lock:
                self._trouble = trouble
                if trouble:
                    for due in batch:
                        heapq.heappush(self._due, due)
                    return
                for due in batch:
                    self._counts["reported"] += 1
                    self._counts["frauds"] += due.is_fraud

    def _take(self) -> list[Due]:
        now_s = self._clock()
        with self._lock:
            batch: list[Due] = []
            while self._due and self._due[0].at_s <= now_s and len(batch) < MOST_AT_ONCE:
                batch.append(heapq.heappop(self._due))
            return batch

    def _deliver(self, batch: list[Due]) -> str:
        """Send a batch and wait until it is on the server's disk; return what went wrong."""
        request = pb.ReportOutcomesRequest()
        for due in batch:
            request.outcomes.add(
                request_id=due.request_id,
                label=pb.LABEL_POSITIVE if due.is_fraud else pb.LABEL_NEGATIVE,
                amount=due.amount,
                source=due.source,
            )
        try:
            for answer in self._report(iter([request]), timeout=TIMEOUT_S):
                with self._lock:
                    self._counts["revised"] += answer.revised
                    self._counts["unmatched"] += answer.unmatched
                    self._counts["rejected"] += answer.rejected
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return ""
