"""Words and numbers of a drift report, the same at a terminal and on a page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from server.cli.lines import NONE, span, utc
from server.pb.scoregate.v1 import control_pb2 as pb

LEAST_P = 1e-300
MEASURES = {"ks": "KS", "js": "JS"}
# In the order of gravity: `--fail-on` takes the last three.
STATES = ("unwatched", "warming", "stable", "warning", "retrain", "broken")


class State(NamedTuple):
    """What a state is called, and what to do about it."""

    mark: str  # tells states apart without colours
    name: str
    advice: str


WORDS = {
    "unwatched": State("○", "not watched", "Nothing is known of this version's drift."),
    "warming": State(
        "◌", "warming", "Too few rows, or too short a time, to say anything yet: wait."
    ),
    "stable": State("●", "stable", "What is scored looks like the reference: nothing to do."),
    "warning": State("▲", "warning", "Look at what moved, and find out why."),
    "retrain": State(
        "◆",
        "retrain",
        "The slow window agrees. Find out whether the world changed or the pipeline; then train on "
        "rows of now.",
    ),
    "broken": State(
        "✖",
        "broken pipeline",
        "Repair the pipeline. A model trained on such rows would learn the fault.",
    ),
}


def words(report: pb.DriftReport) -> State:
    """Return the words of a report's state, also of one that a later server knows."""
    return WORDS.get(report.state, State("?", report.state, "See docs/monitoring.md."))


def is_as_grave(report: pb.DriftReport, state: str) -> bool:
    """Whether a report's state is `state` or a graver one."""
    return report.state in STATES[STATES.index(state) :]


def fill_p_values(report: pb.DriftReport) -> bool:
    """Compute the p-values that the server leaves to its callers: those of KS distances.

    Returns
    -------
    bool
        False where scipy is not installed: they stay NaN.
    """
    columns = [*report.features, *report.slow_features, report.raw_score]
    wanted = [one for one in columns if one.measure == "ks" and math.isnan(one.p_value)]
    if not wanted:
        return True
    try:
        from server.drift.pvalues import ks_p_value
    except ImportError:
        return False
    for one in wanted:
        one.p_value = ks_p_value(one.distance, one.n_window, one.n_reference, one.design_effect)
    return True


def by_score(report: pb.DriftReport) -> list[pb.FeatureDrift]:
    """Return the features, the most drifted first; the unwatched ones last."""

    def order(one: pb.FeatureDrift) -> tuple[float, float]:
        return (_or_less(one.score), _or_less(one.distance))

    return sorted(report.features, key=order, reverse=True)


def _or_less(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def head(report: pb.DriftReport) -> str:
    """Return the score and its limits."""
    if math.isnan(report.score):
        return "none yet"
    n_drifted = round(report.drifted_share * _n_watched(report))
    return (
        f"{report.score:.3f} (warning from {report.warn:g}, retrain from "
        f"{report.retrain:g}); mean {report.mean:.3f}; {n_drifted} of {_n_watched(report)} "
        "watched features over the warning limit"
    )


def _n_watched(report: pb.DriftReport) -> int:
    return sum(one.monitor != "off" for one in report.features)


def moment(report: pb.DriftReport) -> str:
    """Return when it was evaluated."""
    if not report.evaluated_time_ms:
        return "never"
    ago = span((report.now_ms - report.evaluated_time_ms) / 1000)
    return f"{utc(report.evaluated_time_ms)}, {ago} before this report"


def reference(report: pb.DriftReport) -> str:
    """Return what is compared with."""
    made = f", made {utc(report.reference_time_ms)}" if report.reference_time_ms else ""
    return f"{report.n_reference_rows:,} rows, {report.reference_name}{made}"


def windows(report: pb.DriftReport) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, rows, span and score of each window."""
    for name, window in (("fast", report.fast), ("slow", report.slow)):
        score = number(window.score) if window.is_ready else f"{number(window.score)} (filling)"
        yield (
            name,
            f"{window.n_rows:,}",
            span(window.span_s),
            score if window.n_rows and not math.isnan(window.score) else NONE,
        )


def number(value: float) -> str:
    """Return a number as a person writes it; "–" where it is not known."""
    if math.isnan(value):
        return NONE
    if abs(value) < 1e15 and value == round(value):
        return f"{value:,.0f}"
    if 1000 <= abs(value) < 1e15:
        return f"{value:,.1f}" if abs(value) < 1e5 else f"{value:,.0f}"
    return f"{value:.4g}"


def distance(value: float) -> str:
    """Return a distance or an index, to the third place."""
    return NONE if math.isnan(value) else f"{value:.3f}"


def p_value(value: float) -> str:
    """Return a p-value: "0.034", "2e-12", "< 1e-300"."""
    if math.isnan(value):
        return NONE
    if value < LEAST_P:
        return f"< {LEAST_P:.0e}"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def share(value: float) -> str:
    """Return a share of rows: "12.5 %"."""
    if math.isnan(value):
        return NONE
    return f"{100 * value:.1f} %" if 0.00005 < value < 1 else f"{100 * value:.0f} %"


def change(rate: pb.RateDrift) -> str:
    """Return a rate before and now; "–" where there was and is none."""
    if not rate.reference and not rate.window:
        return NONE
    return f"{share(rate.reference)} → {share(rate.window)}"


def faults(one: pb.FeatureDrift) -> list[str]:
    """Return what of a feature's pipeline has changed."""
    found = []
    if one.is_stuck:
        found.append("stands still: the same value in nearly every row")
    for what, rate in (
        ("missing values", one.missing),
        ("fallbacks", one.fallback),
        ("unseen categories", one.unseen),
    ):
        if rate.score:
            found.append(f"{what} in {share(rate.window)} of rows, {share(rate.reference)} before")
    return found


def remarks(one: pb.FeatureDrift) -> list[str]:
    """Return how a feature is watched, where that is out of the ordinary."""
    found = []
    if one.monitor == "off":
        found.append("not watched (monitor: off)")
    elif one.weight != 1:
        found.append(f"its distance weighs {one.weight:g}")
    if one.monitor == "calendar":
        found.append("compared with the same hours of the week (monitor: calendar)")
    if one.note:
        found.append(one.note)
    return found
