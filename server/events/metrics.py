"""Prometheus metrics of events. Rules are those of `server.collector`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from server.events.log import EventLog


def event_families(events: EventLog) -> Iterator[Metric]:
    """Yield every family of events."""
    counts = CounterMetricFamily(
        "scoregate_events",
        "Events by what became of them: emitted, then at the webhook delivered, failed (given up) "
        "or dropped (the queue was full, or the server ended). See docs/events.md.",
        labels=["kind", "result"],
    )
    for (kind, result), value in events.counts().items():
        counts.add_metric([kind, result], value)
    yield counts
    yield GaugeMetricFamily(
        "scoregate_events_waiting",
        "Events that the webhook has not taken yet.",
        value=events.n_waiting,
    )
    yield CounterMetricFamily(
        "scoregate_events_log_lines_lost",
        "Events that are missing in events.log_file: it could not be written, see the log.",
        value=events.n_lines_lost,
    )
