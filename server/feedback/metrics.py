"""Prometheus metrics of what is recorded and reported. Rules are those of `server.collector`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from fastpath.ledger import Ledger
from server.feedback.counts import OutcomeCounts
from server.feedback.keeper import Keeper
from server.feedback.records import Records

VERSION = ["model", "model_version"]


def feedback_families(
    ledger: Ledger, keeper: Keeper, records: Records, outcomes: OutcomeCounts
) -> Iterator[Metric]:
    """Yield every family of decisions and outcomes."""
    stats = records.stats()
    yield CounterMetricFamily(
        "ml_feedback_records", "Decisions written down for their outcomes.", value=keeper.n_recorded
    )
    dropped = CounterMetricFamily(
        "ml_feedback_records_dropped",
        "Decisions that were to be recorded and are not. ring: a loop's memory was full; disk: it "
        "took nothing, see the log; unknown: the plan that decided was forgotten meanwhile.",
        labels=["reason"],
    )
    dropped.add_metric(["ring"], sum(loop["dropped"] for loop in ledger.stats()))
    dropped.add_metric(["disk"], keeper.n_dropped_disk)
    dropped.add_metric(["unknown"], keeper.n_dropped_unknown)
    yield dropped
    yield GaugeMetricFamily(
        "ml_feedback_records_bytes", "Bytes in use in the file of decisions.", value=stats.n_bytes
    )
    yield GaugeMetricFamily(
        "ml_feedback_oldest_record_timestamp_seconds",
        "When the oldest decision that is kept was taken; 0: there is none.",
        value=stats.oldest_ms / 1000,
    )
    yield GaugeMetricFamily(
        "ml_feedback_outcomes_waiting",
        "Outcomes whose decision is not known (yet).",
        value=stats.n_waiting,
    )
    ratio = GaugeMetricFamily(
        "ml_feedback_sampling_ratio",
        "Share of decisions below the lowest threshold that is recorded; the others all are.",
        labels=VERSION,
    )
    for version, share in sorted(keeper.shares.items()):
        ratio.add_metric(list(version), share)
    yield ratio
    yield from _outcomes(records, outcomes)


def _outcomes(records: Records, outcomes: OutcomeCounts) -> Iterator[Metric]:
    joined = records.joined()
    results = CounterMetricFamily(
        "ml_feedback_outcomes",
        "Outcomes by what became of them: see docs/feedback.md. One that waited and then met its "
        "decision is counted as matched, too.",
        labels=["result"],
    )
    for result, value in outcomes.read().items():
        results.add_metric([result], value + (joined.n_late if result == "matched" else 0))
    yield results
    labels = CounterMetricFamily(
        "ml_feedback_labels",
        "Labels that decisions got: the first, and those that took its place.",
        labels=[*VERSION, "outcome"],
    )
    for (model, version, outcome), value in sorted(joined.labels.items()):
        labels.add_metric([model, version, outcome], value)
    yield labels
