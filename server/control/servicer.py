"""Control, RPC by RPC: each is one line that hands over to its room."""

# ruff: noqa: N802 - the methods' names in the proto

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from fastpath.metrics import Metrics
from server.control.access import CONTROL, Access
from server.control.changes import Changes
from server.control.convert import Converter, author
from server.control.drift import read_drift
from server.control.events import read_events
from server.control.history import read_history
from server.control.models import KnownThresholds, Models
from server.control.status import LoopStats, Status
from server.control.watch import Watchers
from server.events.log import EventLog
from server.lifecycle import Lifecycle
from server.monitoring.watch import DriftWatch
from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import control_pb2_grpc as pb_grpc
from server.rollout.change import Author, Outcome
from server.rollout.rollout import Rollout
from server.rollout.verbs import Verbs
from server.stores import FeatureStores

Context = grpc.ServicerContext


class ControlServicer(pb_grpc.ControlServicer):
    """Answers Control; owns nothing.

    Parameters
    ----------
    rollout
        What serves, and what changes it.
    metrics, lifecycle, loop_stats, addresses, stores
        What GetStatus and Watch tell of; `addresses` is filled while the server starts.
    access
        Who callers are. Whether they may call is for the port's interceptor to say.
    drift
        Who monitors drift; None: nobody.
    events
        What happened; None: nothing ever does.
    """

    def __init__(
        self,
        rollout: Rollout,
        metrics: Metrics,
        lifecycle: Lifecycle,
        loop_stats: LoopStats,
        addresses: dict[str, str],
        stores: FeatureStores,
        access: Access | None = None,
        drift: DriftWatch | None = None,
        events: EventLog | None = None,
    ) -> None:
        self._rollout = rollout
        self._drift = drift
        self._events = events or EventLog()
        self._access = access or Access()
        self._status = Status(rollout, metrics, lifecycle, loop_stats, addresses, stores)
        self._converter = Converter(KnownThresholds(rollout))
        self._changes = Changes(Verbs(rollout))
        self._models = Models(rollout)
        self._watchers = Watchers(rollout, metrics, lifecycle, self._converter)

    def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        """Return the state of the whole process."""
        return self._status.read()

    def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Return versions on disk and in memory."""
        return self._models.read(request)

    def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.LoadModelResponse:
        """Load a version and keep it loaded."""
        return self._models.load(request)

    def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Context
    ) -> pb.UnloadModelResponse:
        """Drop a version from memory."""
        return self._models.unload(request)

    def Deploy(self, request: pb.DeployRequest, context: Context) -> pb.ChangeResponse:
        """Let a version take part."""
        return self._change(self._changes.deploy, request, context)

    def SetTraffic(self, request: pb.SetTrafficRequest, context: Context) -> pb.ChangeResponse:
        """Set weights."""
        return self._change(self._changes.set_traffic, request, context)

    def Promote(self, request: pb.PromoteRequest, context: Context) -> pb.ChangeResponse:
        """Give one arm all the traffic."""
        return self._change(self._changes.promote, request, context)

    def Rollback(self, request: pb.RollbackRequest, context: Context) -> pb.ChangeResponse:
        """Put an earlier plan in force again."""
        return self._change(self._changes.rollback, request, context)

    def SetThresholds(
        self, request: pb.SetThresholdsRequest, context: Context
    ) -> pb.ChangeResponse:
        """Set thresholds, or give the bundle's back."""
        return self._change(self._changes.set_thresholds, request, context)

    def SetOverrides(self, request: pb.SetOverridesRequest, context: Context) -> pb.ChangeResponse:
        """Pin routing keys."""
        return self._change(self._changes.set_overrides, request, context)

    def SetLabels(self, request: pb.SetLabelsRequest, context: Context) -> pb.ChangeResponse:
        """Name versions."""
        return self._change(self._changes.set_labels, request, context)

    def Retire(self, request: pb.RetireRequest, context: Context) -> pb.ChangeResponse:
        """Take an arm or a model out."""
        return self._change(self._changes.retire, request, context)

    def Freeze(self, request: pb.FreezeRequest, context: Context) -> pb.ChangeResponse:
        """Refuse changes, or allow them again."""
        return self._change(self._changes.freeze, request, context)

    def SetDefaultModel(
        self, request: pb.SetDefaultModelRequest, context: Context
    ) -> pb.ChangeResponse:
        """Choose the model of requests that name none."""
        return self._change(self._changes.set_default_model, request, context)

    def SetExploration(
        self, request: pb.SetExplorationRequest, context: Context
    ) -> pb.ChangeResponse:
        """Let a share of what a model would stop pass."""
        return self._change(self._changes.set_exploration, request, context)

    def GetHistory(self, request: pb.GetHistoryRequest, context: Context) -> pb.GetHistoryResponse:
        """Return a page of the journal."""
        return read_history(self._rollout.journal, self._converter, request, context.is_active)

    def GetDrift(self, request: pb.GetDriftRequest, context: Context) -> pb.GetDriftResponse:
        """Return what drift monitoring found last."""
        return read_drift(self._drift, request)

    def GetEvents(self, request: pb.GetEventsRequest, context: Context) -> pb.GetEventsResponse:
        """Return what happened lately."""
        return read_events(self._events, request)

    def Watch(self, request: pb.WatchRequest, context: Context) -> Iterator[pb.WatchResponse]:
        """Send the plan, changes and traffic, until the caller has enough or the server drains."""
        metadata = context.invocation_metadata()
        return self._watchers.stream(
            request, context, lambda: self._access.check(CONTROL + "Watch", metadata)
        )

    def _change(
        self, change: Callable[[Any, Author], Outcome], request: Any, context: Context
    ) -> pb.ChangeResponse:
        caller = self._access.caller(context.invocation_metadata())
        outcome = change(request, author(request.options, caller, context))
        return self._converter.outcome(outcome)
