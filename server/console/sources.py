"""What the console reads: the rooms of the serving process, handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastpath.metrics import Metrics
from server.events.log import EventLog
from server.feedback.quality import QualityReport
from server.lifecycle import Lifecycle
from server.monitoring.watch import DriftWatch
from server.rollout.rollout import Rollout
from server.stores import FeatureStores

QualityReports = Callable[[], Sequence[QualityReport]]  # the latest


@dataclass(frozen=True, slots=True)
class Sources:
    """The rooms."""

    lifecycle: Lifecycle
    rollout: Rollout
    metrics: Metrics
    stores: FeatureStores
    events: EventLog
    watch: DriftWatch | None = None  # None: drift is not monitored
    quality: QualityReports | None = None  # None: outcomes are not taken
    name: str = ""  # which server it is: host:port
