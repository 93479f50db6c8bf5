"""From comparisons to words: whether the windows agree, why a state holds, what warming says."""

from __future__ import annotations

import math

from server.drift.evaluation import Comparison, Evaluation, WindowReport
from server.drift.settings import DriftSettings

MAX_REASONS = 20


def agree(found: Comparison, day: Comparison, settings: DriftSettings) -> bool:
    """Return whether the slow window sees what makes the fast one high: the same features."""
    if settings.aggregate == "mean":
        return day.mean >= settings.slow_agreement
    pairs = zip((*found.features, found.raw_score), (*day.features, day.raw_score), strict=True)
    return any(
        now.score >= settings.retrain and then.score >= settings.slow_agreement
        for now, then in pairs
    )


def why(
    found: Comparison, settings: DriftSettings, *, slow_ready: bool, agrees: bool
) -> tuple[str, ...]:
    """Return lines for people: what breaks, what moved, and what holds a retrain back."""
    lines = list(found.broken)
    moved = [f for f in (*found.features, found.raw_score) if f.distribution_score >= settings.warn]
    for f in sorted(moved, key=lambda f: -f.distribution_score):
        name = {"ks": "KS distance", "js": "Jensen-Shannon distance"}[f.measure]
        middle = f.quantiles.get("50")
        median = f", median {middle[0]:.6g} before and {middle[1]:.6g} now" if middle else ""
        lines.append(f"{f.name}: {name} {f.distance:.2f}{median}")
    if found.largest >= settings.retrain and not agrees:
        lines.append(
            "the slow window does not agree"
            if slow_ready
            else "the slow window is not full yet: it cannot agree"
        )
    return tuple(lines[:MAX_REASONS])


def warming(
    now_ms: int, fast: WindowReport, slow: WindowReport, settings: DriftSettings, duration_s: float
) -> Evaluation:
    """Return the evaluation of windows that hold too little."""
    return Evaluation(
        time_ms=now_ms,
        state="warming",
        score=math.nan,
        mean=math.nan,
        drifted_share=math.nan,
        raw_score_drift=math.nan,
        features=(),
        raw_score=None,
        fast=fast,
        slow=slow,
        reasons=(_progress(fast, settings),),
        alpha=settings.alpha,
        duration_s=duration_s,
    )


def _progress(fast: WindowReport, settings: DriftSettings) -> str:
    """Return how far a warming window is: "412 of 600 rows, 3 of 10 minutes"."""
    unit, length = ("minutes", 60.0) if settings.min_span_s >= 120 else ("seconds", 1.0)
    wanted = settings.min_span_s / length
    # Rounded down: "10 of 10 minutes" would not be warming.
    so_far = math.floor(min(fast.span_s / length, wanted) * 10) / 10
    rows = f"{min(fast.n_rows, settings.min_rows):,} of {settings.min_rows:,} rows"
    return f"{rows}, {so_far:g} of {wanted:g} {unit}"
