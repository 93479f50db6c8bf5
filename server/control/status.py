"""GetStatus: what serves now, since when, and how it fares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastpath.metrics import Metrics
from server import __version__
from server.lifecycle import Lifecycle
from server.memory import resident_bytes
from server.pb.scoregate.v1 import control_pb2 as pb
from server.rollout.rollout import Rollout
from server.stores import FeatureStores

LoopStats = Callable[[], Sequence[Mapping[str, int]]]


class Status:
    """Answers from what the other rooms publish; owns nothing.

    Parameters
    ----------
    addresses
        Door -> bound address; filled while the server starts.
    """

    def __init__(
        self,
        rollout: Rollout,
        metrics: Metrics,
        lifecycle: Lifecycle,
        loop_stats: LoopStats,
        addresses: Mapping[str, str],
        stores: FeatureStores,
    ) -> None:
        self._rollout = rollout
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._loop_stats = loop_stats
        self._addresses = addresses
        self._stores = stores

    def read(self) -> pb.GetStatusResponse:
        """Return the state of the whole process."""
        state, reason = self._lifecycle.read()
        snapshot = self._metrics.snapshot()
        predictions = {(slot.model, slot.version): slot.predictions for slot in snapshot.slots}
        return pb.GetStatusResponse(
            server_version=__version__,
            started_time_ms=self._lifecycle.started_time_ms,
            state=f"SERVING_STATE_{state.name}",
            state_reason=reason,
            plan_generation=self._rollout.generation,
            default_model=self._rollout.default_model,
            frozen=self._rollout.frozen,
            models=[
                pb.ServedModel(
                    model=arm.model,
                    version=arm.version,
                    arm=arm.name,
                    weight_basis_points=arm.weight_basis_points,
                    engine=arm.engine,
                    sha256=arm.sha256,
                    predictions=predictions.get((arm.model, arm.version), 0),
                    resident_bytes=arm.resident_bytes,
                )
                for arm in self._rollout.arms
            ],
            addresses=[
                pb.Address(door=door, address=address) for door, address in self._addresses.items()
            ],
            loops=[
                pb.LoopStatus(
                    index=index,
                    open_connections=loop["open_connections"],
                    calls=loop["calls"],
                    iterations=loop["iterations"],
                )
                for index, loop in enumerate(self._loop_stats())
            ],
            resident_bytes=resident_bytes(),
            stores=[
                pb.StoreStatus(
                    table=report.table,
                    kind=report.kind,
                    address=report.address,
                    group=report.group,
                    state=f"STORE_STATE_{report.state.upper()}",
                    detail=report.detail,
                    generation=report.generation,
                    n_records=report.n_records,
                    reads=snapshot.online_reads if report.table == "online" else {},
                )
                for report in self._stores.reports()
            ],
        )
