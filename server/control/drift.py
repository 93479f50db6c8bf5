"""GetDrift: what monitoring found last of every version that takes part, as messages.

Evaluations are replaced whole, so each is read once and told as it is. Histograms are counted when
they are asked for: they are of now, a moment after the evaluation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import grpc

from server.control.convert import check_names
from server.control.failures import RpcFailure
from server.drift import Evaluation, FeatureDrift, Histogram, Monitor, RateChange, WindowReport
from server.errors import NotFoundError
from server.monitoring.watch import DriftWatch, Watched
from server.pb.scoregate.v1 import control_pb2 as pb

OFF = (
    "drift is not monitored by this server: the setting drift.enabled is false; start it with "
    "drift.enabled = true (--drift-enabled)"
)


def read_drift(watch: DriftWatch | None, request: pb.GetDriftRequest) -> pb.GetDriftResponse:
    """Return a report of each version that is asked for, by model and version.

    Parameters
    ----------
    watch
        Who monitors; None: nobody.
    request
        Which model and version, and whether with histograms.

    Raises
    ------
    RpcFailure
        FAILED_PRECONDITION: monitoring is switched off.
    ChangeError
        A name cannot be one.
    NotFoundError
        No such version takes part.
    """
    if watch is None:
        raise RpcFailure(grpc.StatusCode.FAILED_PRECONDITION, OFF)
    check_names(model=request.model, version=request.version)
    watched = watch.watched
    found = [
        one
        for one in watched
        if request.model in ("", one.key.model) and request.version in ("", one.key.version)
    ]
    if not found and (request.model or request.version):
        wanted = f"{request.model} {request.version}".strip()
        known = ", ".join(f"{one.key.model} {one.key.version}" for one in watched)
        raise NotFoundError(
            f"{wanted}: takes no part in serving, so its drift is not watched; "
            + (f"watched: {known}" if known else "nothing is watched yet")
        )
    return pb.GetDriftResponse(
        reports=[report(one, histograms=request.histograms) for one in found]
    )


def report(watched: Watched, *, histograms: bool) -> pb.DriftReport:
    """Return what is known of one version."""
    made = pb.DriftReport(
        model=watched.key.model,
        version=watched.key.version,
        trouble=watched.trouble,
        now_ms=time.time_ns() // 1_000_000,
    )
    monitor = watched.monitor  # whole, or None: the thread that watches may replace it
    if monitor is None:
        made.state = "unwatched"
        made.score = made.mean = made.drifted_share = math.nan
        return made
    fill(made, monitor, monitor.evaluation)
    if histograms and made.features:
        _add_histograms(made, monitor.histograms())
    return made


def fill(made: pb.DriftReport, monitor: Monitor, found: Evaluation | None) -> None:
    """Add what a monitor knows, and found."""
    settings, reference = monitor.settings, monitor.reference
    made.warn, made.retrain, made.alpha = settings.warn, settings.retrain, settings.alpha
    made.reference_name = reference.name
    made.reference_time_ms = reference.time_ms or 0
    made.n_reference_rows = reference.n_rows
    if found is None:
        made.state = "warming"
        made.reasons.append("not evaluated yet")
        made.score = made.mean = made.drifted_share = math.nan
        return
    made.state = found.state
    made.evaluated_time_ms = found.time_ms
    made.score, made.mean = found.score, found.mean
    made.drifted_share = found.drifted_share
    made.reasons.extend(found.reasons)
    made.fast.CopyFrom(_window(found.fast))
    made.slow.CopyFrom(_window(found.slow))
    made.features.extend(_feature(one) for one in found.features)
    made.slow_features.extend(_feature(one) for one in found.slow_features)
    if found.raw_score is not None:
        made.raw_score.CopyFrom(_feature(found.raw_score))
    made.n_tests = found.n_tests


def _window(found: WindowReport) -> pb.DriftWindow:
    return pb.DriftWindow(
        n_rows=found.n_rows, span_s=found.span_s, is_ready=found.is_ready, score=found.score
    )


def _feature(found: FeatureDrift) -> pb.FeatureDrift:
    return pb.FeatureDrift(
        name=found.name,
        type=found.type,
        monitor=found.monitor,
        weight=found.weight,
        score=found.score,
        measure=found.measure,
        distance=found.distance,
        critical=found.critical,
        p_value=found.p_value,
        is_significant=found.is_significant,
        psi=found.psi,
        n_window=found.n_window,
        n_reference=found.n_reference,
        design_effect=found.design_effect,
        missing=_rate(found.missing),
        fallback=_rate(found.fallback),
        unseen=_rate(found.unseen),
        is_stuck=found.is_stuck,
        quantiles=[
            pb.QuantileChange(percent=float(percent), reference=before, window=now)
            for percent, (before, now) in found.quantiles.items()
        ],
        categories=[
            pb.CategoryChange(name=one.name, reference=one.reference, window=one.window)
            for one in found.categories
        ],
        note=found.note,
    )


def _rate(found: RateChange) -> pb.RateDrift:
    return pb.RateDrift(
        reference=found.reference,
        window=found.window,
        p_value=found.p_value,
        score=found.score,
    )


def _add_histograms(made: pb.DriftReport, found: Sequence[Histogram]) -> None:
    columns = [*made.features, *([made.raw_score] if made.HasField("raw_score") else [])]
    for column, histogram in zip(columns, found, strict=False):
        column.bin_edges.extend(histogram.edges.tolist())
        column.bin_names.extend(histogram.names)
        column.reference_counts.extend(histogram.reference.tolist())
        column.window_counts.extend(histogram.window.tolist())
        column.slow_counts.extend(histogram.slow.tolist())
