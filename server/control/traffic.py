"""Traffic of each arm between two looks at the counters.

Quantiles are interpolated in the buckets of the duration histogram, linearly, as Prometheus does:
they are as coarse as its buckets, and durations beyond the last bound count as that bound. The
counters belong to versions, so does an arm's row; errors are counted for the whole server, most of
them before any arm is chosen: where there were some, they have a row without model and arm.
"""

from __future__ import annotations

import time

from fastpath.metrics import Metrics, SlotSnapshot, Snapshot
from server.pb.scoregate.v1 import control_pb2 as pb
from server.quantiles import quantile_us
from server.rollout.plans import ServedArm
from server.rollout.rollout import Rollout


class TrafficMeter:
    """Counts from its making, or its last report, to the next.

    Parameters
    ----------
    metrics
        The counters.
    rollout
        Which arms there are.
    """

    def __init__(self, metrics: Metrics, rollout: Rollout) -> None:
        self._metrics = metrics
        self._rollout = rollout
        self._since_ns = time.monotonic_ns()
        self._last = metrics.snapshot()

    def report(self) -> pb.TrafficReport:
        """Return the traffic since the last report."""
        now_ns = time.monotonic_ns()
        snapshot = self._metrics.snapshot()
        elapsed_s = max(now_ns - self._since_ns, 1) / 1e9
        before = _by_version(self._last)
        after = _by_version(snapshot)
        served = self._rollout.served
        report = pb.TrafficReport(
            generation=0 if served is None else served.state.generation,
            interval_ms=round(elapsed_s * 1000),
        )
        for arm in [] if served is None else served.arms:
            key = (arm.model, arm.version)
            if key in after:
                report.arms.append(_arm(arm, before.get(key), after[key], elapsed_s))
        # The first status is OK.
        errors = sum(snapshot.errors[1:]) - sum(self._last.errors[1:])
        if errors:
            report.arms.append(pb.ArmTraffic(errors_per_s=errors / elapsed_s))
        self._since_ns, self._last = now_ns, snapshot
        return report


def _arm(
    arm: ServedArm, before: SlotSnapshot | None, after: SlotSnapshot, elapsed_s: float
) -> pb.ArmTraffic:
    buckets = list(after.duration_buckets)
    if before is not None:
        buckets = [new - old for new, old in zip(buckets, before.duration_buckets, strict=True)]
    decisions = {} if before is None else before.decisions
    return pb.ArmTraffic(
        model=arm.model,
        arm=arm.name,
        version=arm.version,
        calls_per_s=(after.predictions - (before.predictions if before else 0)) / elapsed_s,
        degraded_per_s=(after.degraded - (before.degraded if before else 0)) / elapsed_s,
        p50_us=quantile_us(buckets, 0.5),
        p99_us=quantile_us(buckets, 0.99),
        decisions_per_s={
            name: (value - decisions.get(name, 0)) / elapsed_s
            for name, value in after.decisions.items()
        },
    )


def _by_version(snapshot: Snapshot) -> dict[tuple[str, str], SlotSnapshot]:
    return {(slot.model, slot.version): slot for slot in snapshot.slots}
