"""Prometheus metrics of stored features: where values came from, how reads ended, how stores are.

Rules are those of `collector`. A fallback is a value that came from its default, or from a batch
record although its group has online records. Reads of a store that answers at once are timed for
one in 64, so its duration histogram counts fewer reads than `scoregate_feature_reads_total`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric

from fastpath.metrics import READ_BOUNDS_NS, SlotSnapshot, Snapshot
from server.stores import FeatureStores

BOUNDS = [*(format(bound / 1e9, "g") for bound in READ_BOUNDS_NS), "+Inf"]
VERSION = ["model", "model_version"]
# A store's own counters of what went wrong, by the beginning of their names.
ERRORS = ("errors_", "disconnects_", "failed_")
CONNECT_FAILURES = ("connect_failures_",)
# Store counter -> family: name, help.
COUNTERS = {
    "connects": ("scoregate_store_connects", "Connections to the store that stood."),
    "late_replies": ("scoregate_store_late_replies", "Answers that came after their time-out."),
    "breaker_opened": ("scoregate_store_breaker_openings", "Times a circuit breaker opened."),
    "hedged": ("scoregate_store_hedged_reads", "Reads that the replica was asked too."),
    "hedge_wins": ("scoregate_store_hedge_wins", "Reads that the replica answered first."),
    "failovers": ("scoregate_store_failovers", "Reads that the replica alone was asked."),
    "cache_hits": ("scoregate_store_cache_hits", "Reads answered from the cache."),
    "cache_misses": ("scoregate_store_cache_misses", "Reads that the cache could not answer."),
    "cache_evictions": ("scoregate_store_cache_evictions", "Records that made room for others."),
}


def feature_families(slots: Sequence[SlotSnapshot]) -> Iterator[Metric]:
    """Yield where the models' feature values came from, and why not from the request."""
    values = CounterMetricFamily(
        "ml_feature_values", "Feature values by where they came from.", labels=[*VERSION, "source"]
    )
    fallbacks = CounterMetricFamily(
        "ml_feature_fallbacks",
        "Feature values that came from a fallback, by the group that should have had them. "
        "Rising: see scoregate_feature_reads_total for how its reads end.",
        labels=[*VERSION, "source", "group"],
    )
    missing = CounterMetricFamily(
        "ml_feature_missing",
        "Feature values of requests that could not be used, by cause.",
        labels=[*VERSION, "cause"],
    )
    for slot in slots:
        label = [slot.model, slot.version]
        for source, value in slot.features_by_source.items():
            values.add_metric([*label, source], value)
        for (source, group), value in slot.fallbacks.items():
            # What the request lacks can only become its default.
            if (source, group) != ("batch", "request"):
                fallbacks.add_metric([*label, source, group], value)
        for cause, value in slot.features_missing.items():
            missing.add_metric([*label, cause], value)
    yield from (values, fallbacks, missing)


def read_families(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield how the reads of both tables ended, and how long online reads took."""
    reads = CounterMetricFamily(
        "scoregate_feature_reads",
        "Records of stored features that were asked for, by table and how it ended.",
        labels=["table", "outcome"],
    )
    for table, outcomes in (("online", snapshot.online_reads), ("batch", snapshot.batch_reads)):
        for outcome, value in outcomes.items():
            reads.add_metric([table, outcome], value)
    yield reads
    durations = HistogramMetricFamily(
        "scoregate_feature_read_duration_seconds",
        "One read of an online record; of a store that answers at once, one in 64.",
    )
    cumulative = [float(count) for count in accumulate(snapshot.read_buckets)]
    buckets = list(zip(BOUNDS, cumulative, strict=True))
    durations.add_metric([], buckets, snapshot.read_sum_ns / 1e9)
    yield durations
    yield CounterMetricFamily(
        "scoregate_feature_waits", "Rows that waited for the online store.", value=snapshot.waits
    )


def store_families(stores: FeatureStores) -> Iterator[Metric]:
    """Yield the state of the stores themselves."""
    loops = stores.stats()
    names = {name for loop in loops for name in loop}
    yield _by_cause(
        "scoregate_store_errors", "What went wrong with the online store, by cause.", loops, ERRORS
    )
    if "connect_failures" in names:
        yield _by_cause(
            "scoregate_store_connect_failures",
            "Connections to the store that did not come to stand, by cause.",
            loops,
            CONNECT_FAILURES,
        )
    for counter, (family, text) in COUNTERS.items():
        if counter in names:
            yield CounterMetricFamily(family, text, value=sum(loop[counter] for loop in loops))
    for gauge, family, text in (
        ("connected", "scoregate_store_connected", "1: this loop's connection stands."),
        (
            "replica_connected",
            "scoregate_store_replica_connected",
            "1: this loop's connection to the replica stands.",
        ),
        (
            "breaker_state",
            "scoregate_store_breaker_state",
            "0: closed, 1: trying one read, 2: open, and every read falls back.",
        ),
        ("cache_bytes", "scoregate_store_cache_bytes", "Memory of this loop's record cache."),
    ):
        if gauge in names:
            states = GaugeMetricFamily(family, text, labels=["loop"])
            for index, loop in enumerate(loops):
                states.add_metric([str(index)], loop[gauge])
            yield states
    available = GaugeMetricFamily(
        "scoregate_store_up",
        "1: the table is well, 0.5: partly, 0: every read falls back. GetStatus says why.",
        labels=["table", "kind", "group"],
    )
    info = InfoMetricFamily(
        "scoregate_batch_table", "Batch tables of the plan in force.", labels=["group"]
    )
    records = GaugeMetricFamily(
        "scoregate_batch_table_records", "Records of a batch table.", labels=["group"]
    )
    levels = {"ok": 1.0, "degraded": 0.5, "unavailable": 0.0}
    for report in stores.reports():
        available.add_metric([report.table, report.kind, report.group], levels[report.state])
        if report.generation:
            info.add_metric([report.group], {"generation": report.generation})
            records.add_metric([report.group], report.n_records)
    yield from (available, info, records)


def _by_cause(
    name: str, text: str, loops: Sequence[Mapping[str, int]], prefixes: Sequence[str]
) -> Metric:
    """Sum the loops' counters of these beginnings; what follows is the cause."""
    family = CounterMetricFamily(name, text, labels=["cause"])
    causes: dict[str, int] = {}
    for loop in loops:
        for counter, value in loop.items():
            prefix = next((prefix for prefix in prefixes if counter.startswith(prefix)), "")
            if prefix:
                cause = counter.removeprefix(prefix)
                causes[cause] = causes.get(cause, 0) + value
    for cause, value in causes.items():
        family.add_metric([cause], value)
    return family
