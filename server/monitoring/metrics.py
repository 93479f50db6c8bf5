"""Prometheus metrics of drift and of the rings that it is fed from.

Rules are those of `collector`. What is not known yet is NaN beside a state that says "warming": a
drift of 0 would read as health.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from fastpath.capture import Capture
from server.drift import STATES, Evaluation, FeatureDrift
from server.monitoring.watch import DriftWatch, Watched

VERSION = ["model", "model_version"]


def drift_families(watch: DriftWatch, capture: Capture) -> Iterator[Metric]:
    """Yield every family of drift."""
    watched = watch.watched
    yield from _overall(watched)
    yield from _features(watched)
    yield from _windows(watched)
    yield from _work(watched, capture)


def _gauge(name: str, text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=[*VERSION, *labels])


def _overall(watched: Sequence[Watched]) -> Iterator[Metric]:
    score = _gauge(
        "ml_data_drift_score",
        "How far the rows scored now are from those that the model was validated on, 0 to 1; NaN "
        "while warming. Over 0.1: look at `scoregate drift report`; see docs/monitoring.md.",
    )
    mean = _gauge("ml_drift_score_mean", "Mean of the features' drift scores.")
    share = _gauge(
        "ml_drift_features_drifted_ratio", "Share of watched features over the warning limit."
    )
    raw = _gauge("ml_score_drift_score", "Drift of the distribution of raw scores, 0 to 1.")
    state = _gauge(
        "ml_drift_state",
        "1 for the state that holds. broken: repair the pipeline, do not retrain; retrain: see "
        "docs/monitoring.md.",
        ["state"],
    )
    for one in watched:
        found = one.evaluation
        label = list(one.key[:2])
        score.add_metric(label, math.nan if found is None else found.score)
        mean.add_metric(label, math.nan if found is None else found.mean)
        share.add_metric(label, math.nan if found is None else found.drifted_share)
        raw.add_metric(label, math.nan if found is None else found.raw_score_drift)
        now = "warming" if found is None else found.state
        for name in STATES:
            state.add_metric([*label, name], float(one.monitor is not None and name == now))
    yield from (score, mean, share, raw, state)


def _features(watched: Sequence[Watched]) -> Iterator[Metric]:
    drift = _gauge(
        "ml_feature_drift_score", "Drift of one feature, 0 to 1; NaN while warming.", ["feature"]
    )
    missing = _gauge(
        "ml_feature_missing_ratio", "Share of rows without a value of the feature.", ["feature"]
    )
    for one in watched:
        monitor = one.monitor  # whole, or None: the thread that watches may replace it
        if monitor is None:
            continue
        found = {feature.name: feature for feature in _found(one.evaluation)}
        for feature in monitor.reference.features:
            label = [*one.key[:2], feature.name]
            seen = found.get(feature.name)
            drift.add_metric(label, math.nan if seen is None else seen.score)
            missing.add_metric(label, math.nan if seen is None else seen.missing.window)
    yield from (drift, missing)


def _found(evaluation: Evaluation | None) -> Sequence[FeatureDrift]:
    return () if evaluation is None else evaluation.features


def _windows(watched: Sequence[Watched]) -> Iterator[Metric]:
    rows = _gauge("ml_drift_window_observations", "Rows in a window of drift.", ["window"])
    span = _gauge("ml_drift_window_span_seconds", "Time that its rows span.", ["window"])
    evaluated = _gauge(
        "ml_drift_last_evaluation_timestamp_seconds",
        "When drift was last evaluated; 0: never. Standing still: the monitor is not fed.",
    )
    took = _gauge("ml_drift_evaluation_duration_seconds", "How long that took.")
    for one in watched:
        found = one.evaluation
        label = list(one.key[:2])
        for name in ("fast", "slow"):
            window = None if found is None else getattr(found, name)
            rows.add_metric([*label, name], 0 if window is None else window.n_rows)
            span.add_metric([*label, name], 0 if window is None else window.span_s)
        evaluated.add_metric(label, 0 if found is None else found.time_ms / 1000)
        took.add_metric(label, math.nan if found is None else found.duration_s)
    yield from (rows, span, evaluated, took)
    yield _reference_times(watched)


def _reference_times(watched: Sequence[Watched]) -> Metric:
    taken = _gauge(
        "ml_drift_reference_timestamp_seconds",
        "When the newest row of the reference was taken; where the export had no event times, when "
        "the reference was made. Old: drift since then is to be expected; train on newer rows.",
    )
    for one in watched:
        monitor = one.monitor
        if monitor is None:
            continue
        reference = monitor.reference
        time_ms = reference.time_ms if reference.newest_ms is None else reference.newest_ms
        if time_ms is not None:
            taken.add_metric(list(one.key[:2]), time_ms / 1000)
    return taken


def _work(watched: Sequence[Watched], capture: Capture) -> Iterator[Metric]:
    evaluations = CounterMetricFamily(
        "ml_drift_evaluations",
        "Evaluations of drift; failed: the monitor raised and was made anew, see the log.",
        labels=[*VERSION, "result"],
    )
    for one in watched:
        evaluations.add_metric([*one.key[:2], "ok"], one.n_ok)
        evaluations.add_metric([*one.key[:2], "failed"], one.n_failed)
    yield evaluations
    loops = capture.stats()
    yield CounterMetricFamily(
        "ml_drift_samples", "Rows captured.", value=sum(loop["captured"] for loop in loops)
    )
    yield CounterMetricFamily(
        "ml_drift_samples_dropped",
        "Rows that were to be captured while a loop's ring was full.",
        value=sum(loop["dropped"] for loop in loops),
    )
    fill = GaugeMetricFamily(
        "scoregate_capture_ring_fill_ratio", "Use of a loop's capture ring.", labels=["loop"]
    )
    for index, loop in enumerate(loops):
        fill.add_metric([str(index)], loop["fill"])
    yield fill
