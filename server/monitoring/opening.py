"""Opens drift monitoring as the settings say."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from fastpath.capture import Capture
from fastpath.metrics import Metrics
from server.config import Settings
from server.drift import DriftSettings
from server.monitoring.metrics import drift_families
from server.monitoring.watch import DriftWatch, Listener
from server.rollout.opening import forgets
from server.rollout.rollout import Rollout


class Drift:
    """The rings, the monitors and their metrics, as the serving process holds them."""

    def __init__(self, capture: Capture, watch: DriftWatch) -> None:
        self.capture = capture
        self.watch = watch
        self.start = watch.start
        self.stop = watch.stop

    def families(self) -> Iterator[Metric]:
        """Yield the metric families of drift."""
        return drift_families(self.watch, self.capture)


def open_drift(
    settings: Settings, metrics: Metrics, rollout: Rollout, listener: Listener | None = None
) -> Drift | None:
    """Return drift monitoring, not started; None where it is switched off."""
    drift = settings.drift
    if not drift.enabled:
        return None
    capture = Capture(settings.fast.loops, capacity_bytes=drift.ring_bytes)
    watch = DriftWatch(
        capture,
        metrics,
        rollout.repository,
        lambda: rollout.arms,
        DriftSettings(
            n_rows=drift.window_rows,
            min_span_s=drift.min_span_s,
            slow_span_s=drift.slow_span_s,
            pane_s=drift.pane_s,
            interval_s=drift.interval_s,
            aggregate=drift.aggregate,
        ),
        rows_per_s=drift.rows_per_s,
        drain_s=drift.drain_s,
        # A server that forgets what served forgets what it looked like, too.
        directory=None if forgets(settings) else rollout.journal.path.parent / "drift",
        listener=listener,
    )
    return Drift(capture, watch)
