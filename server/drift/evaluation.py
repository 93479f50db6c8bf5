"""What an evaluation says: plain data, which msgspec turns into JSON (NaN becomes null)."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from server.drift.settings import Kind
from server.drift.states import State


class RateChange(msgspec.Struct, frozen=True, kw_only=True):
    """A share of rows, before and now."""

    window: float = 0.0
    reference: float = 0.0
    p_value: float = 1.0
    score: float = 0.0  # |change| where it is significant, else 0


class CategoryShare(msgspec.Struct, frozen=True, kw_only=True):
    """One category's share, before and now."""

    name: str
    window: float
    reference: float


class FeatureDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One feature, or the raw score, against the reference."""

    name: str
    type: Kind
    monitor: Literal["auto", "off", "calendar"] = "auto"
    weight: float = 1.0
    score: float = math.nan  # in [0, 1]: the largest of what follows; NaN: not watched
    measure: Literal["ks", "js", "none"] = "none"
    distance: float = math.nan  # D, or the Jensen-Shannon distance
    critical: float = math.nan  # of D: what chance exceeds with alpha / K
    p_value: float = math.nan  # of categories; for D see `pvalues.ks_p_value`
    is_significant: bool = False
    in_aggregate: bool = True  # whether the distance takes part in the drift score
    psi: float = math.nan
    n_window: int = 0  # values present
    n_reference: float = 0.0
    design_effect: float = 1.0
    missing: RateChange = RateChange()
    fallback: RateChange = RateChange()
    unseen: RateChange = RateChange()
    is_stuck: bool = False  # a number that is the same in nearly every row, and was not before
    quantiles: dict[str, tuple[float, float]] = {}  # "50": (before, now)
    categories: tuple[CategoryShare, ...] = ()  # the most frequent, before and now
    note: str = ""

    @property
    def distribution_score(self) -> float:
        """Return what the distance puts into the drift score."""
        if not (self.in_aggregate and self.is_significant):
            return 0.0
        return min(1.0, self.weight * self.distance)

    @property
    def rate_score(self) -> float:
        """Return the largest change of a rate."""
        return max(self.missing.score, self.fallback.score, self.unseen.score)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One window against the reference."""

    features: tuple[FeatureDrift, ...]
    raw_score: FeatureDrift
    largest: float  # of all scores: `ml_data_drift_score`, unless settings say "mean"
    mean: float
    drifted_share: float  # of watched features with a score of at least the warning limit
    broken: tuple[str, ...] = ()  # one line for each rate that changed too much


class WindowReport(msgspec.Struct, frozen=True, kw_only=True):
    """How much a window holds, and what it says; NaN where it holds too little."""

    n_rows: int = 0
    span_s: float = 0.0
    is_ready: bool = False
    score: float = math.nan


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One look at both windows."""

    time_ms: int
    state: State
    score: float  # in [0, 1]; NaN while warming
    mean: float
    drifted_share: float
    raw_score_drift: float
    features: tuple[FeatureDrift, ...]
    raw_score: FeatureDrift | None
    fast: WindowReport
    slow: WindowReport
    slow_features: tuple[FeatureDrift, ...] = ()
    reasons: tuple[str, ...] = ()  # why this state, the gravest first
    n_tests: int = 0
    alpha: float = 0.0
    duration_s: float = 0.0
