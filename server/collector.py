"""Prometheus metrics, read from the counters of `fastpath` at every scrape.

Rules
-----
* Counters live in C, one shard per loop; a scrape adds them up and costs the loops nothing.
* Every series exists from the start, at 0. No ids as labels: models, versions and gRPC codes only.
* `ml_*` is what the models did, `scoregate_*` what the transport did, `process_*` the process.
* A series of a (model, version) outlives the model: counters never go back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fastpath.metrics import DURATION_BOUNDS_NS, Metrics, SlotSnapshot
from server.feature_metrics import feature_families, read_families, store_families
from server.health_metrics import stage_families
from server.rollout.plans import ServedArm
from server.stores import FeatureStores

# gRPC status codes in the order of their numbers.
CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
BOUNDS = [*(format(bound / 1e9, "g") for bound in DURATION_BOUNDS_NS), "+Inf"]
MODEL = ["model"]
VERSION = ["model", "model_version"]


class ScoregateCollector(Collector):
    """Turns snapshots into metric families.

    Parameters
    ----------
    metrics
        The shards of the engine.
    loop_stats
        Returns the counters of every loop (`LoopGroup.stats`).
    served
        Returns the arms of the plan in force.
    generation
        Returns that plan's generation.
    stores
        The stores of features.
    others
        Yield the families of other rooms: the process's health, drift, events.
    """

    def __init__(
        self,
        metrics: Metrics,
        loop_stats: Callable[[], Sequence[Mapping[str, int]]],
        served: Callable[[], Sequence[ServedArm]],
        generation: Callable[[], int],
        stores: FeatureStores,
        *others: Callable[[], Iterator[Metric]],
    ) -> None:
        self._metrics = metrics
        self._loop_stats = loop_stats
        self._served = served
        self._generation = generation
        self._stores = stores
        self._others = others

    def describe(self) -> list[Metric]:
        """Return nothing: the registry then trusts the names instead of collecting twice."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family; one snapshot of each source per scrape."""
        snapshot = self._metrics.snapshot()
        yield from _predictions(snapshot.slots)
        yield from feature_families(snapshot.slots)
        yield from read_families(snapshot)
        yield from stage_families(snapshot)
        yield from store_families(self._stores)
        for families in self._others:
            yield from families()
        errors = CounterMetricFamily(
            "ml_prediction_errors", "Score calls that did not end with OK.", labels=["code"]
        )
        for code, value in list(zip(CODES, snapshot.errors, strict=True))[1:]:
            errors.add_metric([code], value)
        yield errors
        yield CounterMetricFamily(
            "scoregate_batches",
            "Times that the rows of one loop iteration were scored together.",
            value=snapshot.batches,
        )
        yield CounterMetricFamily(
            "scoregate_batch_rows", "Rows scored in those batches.", value=snapshot.batch_rows
        )
        yield from self._models()
        yield from _transport(self._loop_stats())

    def _models(self) -> Iterator[Metric]:
        info = InfoMetricFamily(
            "ml_model", "Models of the plan in force.", labels=["model", "model_version"]
        )
        size = GaugeMetricFamily(
            "ml_model_resident_bytes", "Memory that a loaded model holds.", labels=VERSION
        )
        weight = GaugeMetricFamily(
            "ml_arm_weight",
            "Share of a model's routing buckets that an arm owns, 0 to 1.",
            labels=[*VERSION, "arm"],
        )
        for arm in self._served():
            info.add_metric(
                [arm.model, arm.version], {"engine": arm.engine, "sha256": arm.sha256.hex()}
            )
            size.add_metric([arm.model, arm.version], arm.resident_bytes)
            weight.add_metric([arm.model, arm.version, arm.name], arm.weight_basis_points / 10_000)
        yield info
        yield size
        yield weight
        yield GaugeMetricFamily(
            "scoregate_plan_generation",
            "Generation of the serving plan in force; grows with every change.",
            value=self._generation(),
        )


def _predictions(slots: Sequence[SlotSnapshot]) -> Iterator[Metric]:
    predictions = CounterMetricFamily(
        "ml_predictions", "Requests scored and answered.", labels=VERSION
    )
    degraded = CounterMetricFamily(
        "ml_predictions_degraded",
        "Predictions for which more features fell back than the schema tolerates.",
        labels=VERSION,
    )
    decisions = CounterMetricFamily(
        "ml_decisions", "Predictions by decision.", labels=[*VERSION, "decision"]
    )
    durations = HistogramMetricFamily(
        "ml_prediction_duration_seconds",
        "From the complete request message to the encoded response.",
        labels=MODEL,
    )
    buckets: dict[str, list[int]] = {}
    sums: dict[str, int] = {}
    for slot in slots:
        label = [slot.model, slot.version]
        predictions.add_metric(label, slot.predictions)
        degraded.add_metric(label, slot.degraded)
        for decision, value in slot.decisions.items():
            decisions.add_metric([*label, decision], value)
        total = buckets.setdefault(slot.model, [0] * len(BOUNDS))
        for index, value in enumerate(slot.duration_buckets):
            total[index] += value
        sums[slot.model] = sums.get(slot.model, 0) + slot.duration_sum_ns
    for model, counts in buckets.items():
        cumulative = [float(count) for count in accumulate(counts)]
        durations.add_metric([model], list(zip(BOUNDS, cumulative, strict=True)), sums[model] / 1e9)
    yield from (predictions, degraded, decisions, durations)


def _transport(loops: Sequence[Mapping[str, int]]) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "scoregate_grpc_calls", "Calls answered, by gRPC code.", labels=["code"]
    )
    for number, code in enumerate(CODES):
        calls.add_metric([code], sum(loop[f"status_{number}"] for loop in loops))
    yield calls
    for name, key, text in (
        ("scoregate_connections_accepted", "accepted", "Connections accepted at the fast door."),
        ("scoregate_received_bytes", "bytes_in", "Bytes read from connections."),
        ("scoregate_sent_bytes", "bytes_out", "Bytes written to connections."),
    ):
        yield CounterMetricFamily(name, text, value=sum(loop[key] for loop in loops))
    connections = GaugeMetricFamily(
        "scoregate_open_connections", "Connections open, by loop thread.", labels=["loop"]
    )
    iterations = CounterMetricFamily(
        "scoregate_loop_iterations", "Wake-ups of a loop thread.", labels=["loop"]
    )
    for index, loop in enumerate(loops):
        connections.add_metric([str(index)], loop["open_connections"])
        iterations.add_metric([str(index)], loop["iterations"])
    yield connections
    yield iterations


def make_registry(collector: ScoregateCollector) -> CollectorRegistry:
    """Return a registry of our metrics and the process's."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry
