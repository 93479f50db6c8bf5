"""What can be set about drift, and what a monitor must know of a feature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from fastpath.spec import REQUEST
from server.bundle.schema import FeatureEntry

Kind = Literal["numeric", "boolean", "categorical"]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class DriftSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Windows, limits and what they are held to; durations are in seconds."""

    n_rows: Annotated[int, msgspec.Meta(ge=100, le=100_000)] = 2000  # of the fast window
    min_rows: Annotated[int, msgspec.Meta(ge=25)] = 600  # fewer: warming
    min_span_s: Annotated[float, msgspec.Meta(ge=0)] = 600.0  # a shorter fast window: warming
    slow_span_s: Positive = 86_400.0
    pane_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 1800.0  # of the slow window
    interval_s: Positive = 30.0  # between evaluations
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.001  # false alarms per evaluation
    warn: Share = 0.1
    retrain: Share = 0.3
    broken: Share = 0.1  # change of a missing, unseen or fallback rate
    slow_agreement: Share = 0.1  # what the slow window must say before a retrain
    aggregate: Literal["max", "mean"] = "max"
    # What sample sizes are divided by where rows are not independent; 0: the reference's estimate.
    design_effect: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    max_ahead_s: Annotated[float, msgspec.Meta(ge=0)] = 300.0  # later event times count as now
    max_back_s: Positive = 3600.0  # a batch older than this, behind the newest: the clock went back


class MonitoredFeature(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of a model, in the model's order."""

    name: str
    type: Kind = "numeric"
    vocabulary: tuple[str, ...] = ()  # categorical: what the codes stand for
    monitor: Literal["auto", "off", "calendar"] = "auto"
    weight: float = 1.0
    stored: bool = False  # comes from a group: falling back is watched

    @property
    def n_categories(self) -> int:
        """Return how many codes there are; 0 for numbers."""
        return {"numeric": 0, "boolean": 2}.get(self.type, len(self.vocabulary))

    def category(self, code: int) -> str:
        """Return what people call a code."""
        if self.type == "boolean":
            return ("false", "true", "unseen")[code]
        return self.vocabulary[code] if code < len(self.vocabulary) else "unseen"


def monitored_features(entries: Iterable[FeatureEntry]) -> tuple[MonitoredFeature, ...]:
    """Return what a monitor must know of a schema's features."""
    return tuple(
        MonitoredFeature(
            name=entry.name,
            type=entry.type,
            vocabulary=tuple(entry.vocabulary),
            monitor=entry.monitor,
            weight=entry.weight,
            stored=entry.source != REQUEST,
        )
        for entry in entries
    )


def n_tests(features: Iterable[MonitoredFeature]) -> int:
    """Return K: all tests of one evaluation, the score's distribution among them."""
    total = 1
    for feature in features:
        if feature.monitor != "off":
            total += 2 + (feature.type == "categorical") + feature.stored
    return total
