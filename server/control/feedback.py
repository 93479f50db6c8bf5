"""Feedback, RPC by RPC: outcomes in, quality out.

Rules
-----
* A request of outcomes is answered when it is on disk. The next is read after that: whoever sends
  faster is held back by the stream itself.
* An outcome that cannot be used is counted and does not stop the others; the answer says which was
  the first, and why, with whatever it holds escaped.
* A request that is too large ends the stream; what was answered before it stays.
* Streams are few: each keeps a thread. Who reports is asked for its token with every request.
"""

# ruff: noqa: N802 - the methods' names in the proto

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc

from server.control.access import FEEDBACK, Access
from server.control.convert import check_names
from server.control.failures import RpcFailure
from server.errors import InputError, NotFoundError
from server.feedback.database import RETRACTED
from server.feedback.joining import ReportedOutcome
from server.feedback.opening import now_ms
from server.pb.scoregate.v1 import feedback_pb2 as pb
from server.pb.scoregate.v1 import feedback_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from server.feedback.opening import Feedback
    from server.feedback.quality import QualityReport

MAX_OUTCOMES = 10_000  # of a request
MAX_STREAMS = 8
MAX_REQUEST_ID_BYTES = 128  # as fastpath/_types.pxd has it
MAX_MODEL_BYTES = 100
MAX_SOURCE_BYTES = 64
MAX_AMOUNT = 1e15  # sums of a billion of them are exact enough
MAX_AHEAD_MS = 86_400_000  # clocks differ; days do not
SHOWN = 80  # characters of what is wrong

LABELS = {pb.LABEL_NEGATIVE: 0, pb.LABEL_POSITIVE: 1, pb.LABEL_RETRACTED: RETRACTED}
OFF = (
    "outcomes are not taken by this server: the setting feedback.enabled is false, or there is no "
    "directory for decisions (feedback.directory; without it they are kept beside the journal)"
)


class FeedbackServicer(pb_grpc.FeedbackServicer):
    """Answers Feedback.

    Parameters
    ----------
    feedback
        The store and what is found of it; None: outcomes are not taken.
    access
        Who callers are: a stream outlives the check of its call.
    """

    def __init__(self, feedback: Feedback | None, access: Access | None = None) -> None:
        self._feedback = feedback
        self._access = access or Access()
        self._streams = threading.BoundedSemaphore(MAX_STREAMS)

    def ReportOutcomes(
        self, request_iterator: Iterator[pb.ReportOutcomesRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ReportOutcomesResponse]:
        """Take outcomes until the caller has no more."""
        if self._feedback is None:
            raise RpcFailure(grpc.StatusCode.FAILED_PRECONDITION, OFF)
        if not self._streams.acquire(blocking=False):
            raise RpcFailure(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MAX_STREAMS} streams report outcomes already: send more by each of them, or "
                "come back later",
            )
        metadata = context.invocation_metadata()
        try:
            for request in request_iterator:
                self._access.check(FEEDBACK + "ReportOutcomes", metadata)
                yield take_outcomes(self._feedback, request)
        finally:
            self._streams.release()
            self._feedback.records.rest()

    def GetQuality(
        self, request: pb.GetQualityRequest, context: grpc.ServicerContext
    ) -> pb.GetQualityResponse:
        """Return what quality was found last."""
        return read_quality(self._feedback, request)


def take_outcomes(
    feedback: Feedback, request: pb.ReportOutcomesRequest
) -> pb.ReportOutcomesResponse:
    """Join what can be used of a request; return the counts, on disk.

    Raises
    ------
    InputError
        There are too many outcomes.
    FeedbackError
        The disk takes nothing.
    """
    if len(request.outcomes) > MAX_OUTCOMES:
        raise InputError(
            f"outcomes: up to {MAX_OUTCOMES:,} in one request, not {len(request.outcomes):,}: send "
            "several requests on the stream"
        )
    now = now_ms()
    usable: list[ReportedOutcome] = []
    first_rejected = ""
    for at, outcome in enumerate(request.outcomes):
        problem = problem_of(outcome, now)
        if not problem:
            usable.append(_reported(outcome, now))
        elif not first_rejected:
            first_rejected = f"outcomes[{at}] {shown(outcome.request_id)}: {problem}"
    n_rejected = len(request.outcomes) - len(usable)
    counts = feedback.report(usable, n_rejected)
    return pb.ReportOutcomesResponse(
        accepted=counts.accepted,
        unmatched=counts.unmatched,
        duplicates=counts.duplicates,
        revised=counts.revised,
        expired=counts.expired,
        rejected=n_rejected,
        first_rejected=first_rejected,
    )


def problem_of(outcome: pb.Outcome, now: int) -> str:
    """Return why an outcome cannot be used; empty where it can."""
    n_bytes = len(outcome.request_id.encode())
    if not 1 <= n_bytes <= MAX_REQUEST_ID_BYTES:
        return f"request_id has {n_bytes:,} bytes; 1 to {MAX_REQUEST_ID_BYTES} are possible"
    if outcome.label not in LABELS:
        return f"label {outcome.label} is none: positive, negative or retracted"
    if len(outcome.model.encode()) > MAX_MODEL_BYTES:
        return f"model {shown(outcome.model)} is no name of one"
    if not 0 <= outcome.observed_time_ms <= now + MAX_AHEAD_MS:
        return (
            f"observed_time_ms {outcome.observed_time_ms} is before 1970, or over a day ahead: "
            "milliseconds since the epoch, or 0 for now"
        )
    if not 0.0 <= outcome.amount <= MAX_AMOUNT:  # NaN is neither
        return f"amount {outcome.amount:g} is not 0 to {MAX_AMOUNT:g}"
    if len(outcome.source.encode()) > MAX_SOURCE_BYTES or not outcome.source.isprintable():
        return f"source {shown(outcome.source)}: up to {MAX_SOURCE_BYTES} printable bytes"
    return ""


def shown(text: str) -> str:
    """Return somebody else's text so that it can do no harm, and not all of a long one."""
    return ascii(text if len(text) <= SHOWN else text[:SHOWN] + "...")


def read_quality(feedback: Feedback | None, request: pb.GetQualityRequest) -> pb.GetQualityResponse:
    """Return the reports that are asked for, by model, version, arm and cohort.

    Raises
    ------
    RpcFailure
        FAILED_PRECONDITION: outcomes are not taken.
    ChangeError
        A name cannot be one.
    NotFoundError
        Nothing is known of that version.
    """
    if feedback is None:
        raise RpcFailure(grpc.StatusCode.FAILED_PRECONDITION, OFF)
    check_names(model=request.model, version=request.version)
    reports = feedback.evaluator.reports
    found = [
        one
        for one in reports
        if request.model in ("", one.model) and request.version in ("", one.version)
    ]
    if reports and not found:
        known = ", ".join(sorted({f"{one.model} {one.version}" for one in reports}))
        raise NotFoundError(
            f"{f'{request.model} {request.version}'.strip()}: no decisions of it are recorded; "
            f"there are of {known}"
        )
    return pb.GetQualityResponse(
        reports=[quality_message(one, curves=request.curves) for one in found], now_ms=now_ms()
    )


def quality_message(found: QualityReport, *, curves: bool) -> pb.QualityReport:
    """Return a report as a message."""
    return pb.QualityReport(
        model=found.model,
        version=found.version,
        arm=found.arm,
        cohort=found.cohort,
        from_time_ms=found.from_time_ms,
        to_time_ms=found.to_time_ms,
        n_decisions=found.n_decisions,
        n_labels=found.n_labels,
        n_positive=found.n_positive,
        n_effective=found.n_effective,
        metrics=[
            pb.QualityMetric(
                name=one.name,
                threshold=one.threshold,
                value=one.value,
                low=one.low,
                high=one.high,
                interval=one.interval,
            )
            for one in found.metrics
        ],
        note=found.note,
        bins=[
            pb.ScoreBin(
                raw_low=one.raw_low,
                n_negative=one.n_negative,
                n_positive=one.n_positive,
                n_unknown=one.n_unknown,
                mean_score=one.mean_score,
                positive_amount=one.positive_amount,
            )
            for one in (found.bins if curves else ())
        ],
        evaluated_time_ms=found.evaluated_time_ms,
    )


def _reported(outcome: pb.Outcome, now: int) -> ReportedOutcome:
    return ReportedOutcome(
        outcome.request_id,
        outcome.model,
        LABELS[outcome.label],
        outcome.observed_time_ms or now,
        outcome.amount or math.nan,  # 0: not said
        outcome.source,
    )
