"""What the replaying client does about outcomes: it reports them, and asks what was learnt.

Also whether what is blocked is explored: without that, nothing can be learnt of it (`exploring`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import grpc

from server.demo.exploring import SET_EXPLORATION, Stopped, set_share
from server.demo.outcomes import Reporter
from server.demo.quality_state import QualityProbe
from server.demo.traffic import Rows
from server.demo.truth import Truth
from server.pb.scoregate.v1 import control_pb2, feedback_pb2
from server.pb.scoregate.v1 import scoring_pb2 as pb

REPORT_OUTCOMES = "/scoregate.v1.Feedback/ReportOutcomes"
GET_QUALITY = "/scoregate.v1.Feedback/GetQuality"
TIMEOUT_S = 2.0


class Learning:
    """Outcomes of a replay. A context: reports go out inside.

    Parameters
    ----------
    control : grpc.Channel
        To the control port.
    rows : Rows
        What is replayed, with the truth.
    get_model : callable
        The fast door's GetModel.
    explore : float or None
        Share of what is to be blocked that passes, where blocked transactions have no outcome;
        None: they have. In force on return.

    Raises
    ------
    StartError
        It cannot be explored.
    """

    def __init__(
        self,
        control: grpc.Channel,
        rows: Rows,
        get_model: Callable[..., pb.GetModelResponse],
        explore: float | None = None,
    ) -> None:
        set_exploration = control.unary_unary(
            SET_EXPLORATION,
            request_serializer=control_pb2.SetExplorationRequest.SerializeToString,
            response_deserializer=control_pb2.ChangeResponse.FromString,
        )
        set_share(set_exploration, explore)
        report = control.stream_stream(
            REPORT_OUTCOMES,
            request_serializer=feedback_pb2.ReportOutcomesRequest.SerializeToString,
            response_deserializer=feedback_pb2.ReportOutcomesResponse.FromString,
        )
        get_quality = control.unary_unary(
            GET_QUALITY,
            request_serializer=feedback_pb2.GetQualityRequest.SerializeToString,
            response_deserializer=feedback_pb2.GetQualityResponse.FromString,
        )
        self._get_model = get_model
        arm = get_model(pb.GetModelRequest(), timeout=TIMEOUT_S).arms[0]
        blocked = arm.thresholds[-1].name if arm.thresholds else ""
        truth = Truth(rows, blocked)
        asks = explore is None
        self._stopped = Stopped(truth, blocked, is_hidden=not asks)
        self._reporter = Reporter(
            report, truth, blocked=blocked, default=arm.default_decision, asks=asks
        )
        self._probe = QualityProbe(get_quality, truth, self._cuts)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._reporter)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def decided(self, row: int, answer: pb.ScoreResponse) -> None:
        """Learn of an answer: something will become of it."""
        self._reporter.decided(row, answer)
        self._stopped.decided(row, answer)

    def state(self) -> dict[str, Any]:
        """Return what has become of the transactions so far.

        Returns
        -------
        dict
            `outcomes`, as `Reporter.state`; `exploring`, as `Stopped.state`; `live_quality`, as
            `QualityProbe.look`.
        """
        return {
            "outcomes": self._reporter.state(),
            "exploring": self._stopped.state(),
            "live_quality": self._probe.look(),
        }

    def _cuts(self) -> Mapping[str, Mapping[str, float]]:
        """Return the thresholds in force, by version."""
        found = self._get_model(pb.GetModelRequest(), timeout=TIMEOUT_S)
        return {arm.version: {t.name: t.raw_score for t in arm.thresholds} for arm in found.arms}
