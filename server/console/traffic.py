"""How traffic splits, how much of it there is, how long it takes and what is decided."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from server.collector import CODES
from server.console.history import Change, TrafficHistory
from server.console.words import text
from server.quantiles import quantile_us
from server.rollout.plans import ServedArm, ServedModel

MAX_ARMS = 24


class Point(Struct, frozen=True, array_like=True):
    """One interval of the five minutes."""

    from_s: float  # seconds ago
    to_s: float
    calls_per_s: float
    p99_us: float  # NaN: no calls


class Fallback(Struct, frozen=True):
    """Values of a group's features that came from elsewhere."""

    group: str
    source: str  # "batch" or "default"
    per_s: float
    per_call: float


class ArmTraffic(Struct, frozen=True):
    """One arm; a number that is not known (yet) is NaN."""

    model: str
    arm: str
    version: str
    engine: str
    weight: float  # share of the buckets, 0 to 1
    explored: float  # share of the strictest decisions that the model lets through, to learn
    observed: float  # share of the model's calls since the last change
    calls_per_s: float
    p50_us: float
    p99_us: float
    degraded: float  # share of calls with more fallbacks than the schema tolerates
    n_decided: int
    decisions: dict[str, float]  # share of calls in the five minutes
    thresholds: dict[str, float]  # as scores
    fallbacks: list[Fallback]
    points: list[Point]


class Traffic(Struct, frozen=True):
    """All arms."""

    rate_span_s: float  # what rates and quantiles are measured over
    share_span_s: float  # what decisions and fallbacks are measured over
    observed_span_s: float  # what observed shares are measured over
    errors_per_s: dict[str, float]  # by gRPC code
    n_left_out: int  # arms that are more than anybody looks at
    arms: list[ArmTraffic]


def read_traffic(history: TrafficHistory, models: Sequence[ServedModel]) -> Traffic:
    """Return the traffic of all arms; the history was just looked at."""
    arms = [arm for model in models for arm in model.arms]
    explored = {model.name: model.state.explore_share for model in models}
    now, recent, oldest = history.now, history.recent, history.oldest
    since = history.since_change()
    observed = {
        (arm.model, arm.version): history.change((arm.model, arm.version), since) for arm in arms
    }
    totals: dict[str, int] = {}
    for (model, _), change in observed.items():
        totals[model] = totals.get(model, 0) + (0 if change is None else change.calls)
    found = []
    for arm in arms[:MAX_ARMS]:
        key = (arm.model, arm.version)
        own = observed[key]
        total = totals[arm.model]
        found.append(
            _arm(
                arm,
                explored[arm.model],
                history.change(key, recent),
                history.change(key, oldest),
                math.nan if own is None or not total else own.calls / total,
                [_point(*interval) for interval in history.intervals(key)],
            )
        )
    return Traffic(
        rate_span_s=now.time_s - recent.time_s,
        share_span_s=now.time_s - oldest.time_s,
        observed_span_s=now.time_s - since.time_s,
        errors_per_s={CODES[code]: per_s for code, per_s in history.errors(recent).items()},
        n_left_out=max(0, len(arms) - MAX_ARMS),
        arms=found,
    )


def _arm(
    arm: ServedArm,
    explored: float,
    recent: Change | None,
    wide: Change | None,
    observed: float,
    points: list[Point],
) -> ArmTraffic:
    n_recent = 0 if recent is None else recent.calls
    buckets = [] if recent is None else recent.buckets
    n_wide = 0 if wide is None else wide.calls
    decisions = {} if wide is None else wide.of("decision")
    degraded = 0 if wide is None else wide.counted["degraded",]
    return ArmTraffic(
        model=text(arm.model),
        arm=text(arm.name),
        version=text(arm.version),
        engine=arm.engine,
        weight=arm.weight_basis_points / 10_000,
        explored=explored,
        observed=observed,
        calls_per_s=math.nan if recent is None else n_recent / recent.seconds,
        p50_us=quantile_us(buckets, 0.5) if n_recent else math.nan,
        p99_us=quantile_us(buckets, 0.99) if n_recent else math.nan,
        degraded=degraded / n_wide if n_wide else math.nan,
        n_decided=n_wide,
        decisions={
            text(name): n / n_wide if n_wide else math.nan for (name,), n in decisions.items()
        },
        thresholds={text(name): score for name, _, score in arm.thresholds},
        fallbacks=[] if wide is None else list(_fallbacks(wide)),
        points=points,
    )


def _fallbacks(change: Change) -> list[Fallback]:
    return [
        Fallback(text(group), source, n / change.seconds, n / max(1, change.calls))
        for (source, group), n in change.of("fallback").items()
        # What the request lacks can only become its default.
        if (source, group) != ("batch", "request")
    ]


def _point(from_s: float, to_s: float, change: Change) -> Point:
    p99_us = quantile_us(change.buckets, 0.99) if change.calls else math.nan
    return Point(from_s, to_s, change.calls / change.seconds, p99_us)
