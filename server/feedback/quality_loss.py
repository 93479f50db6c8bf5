"""Whether a version's quality is still what it was on its validation rows.

Rules
-----
* It is lost where the upper bound of a matured figure's 95 % interval is under the figure of the
  validation rows. AUC, and recall at each threshold, are looked at: precision depends on the
  prevalence, which validation rows need not share. With k figures, chance alone says "lost" in at
  most k times 2.5 % of the cases.
* It held where no figure is lost and no interval is wider than `WIDEST`: else a loss would go
  unseen.
* Of traffic that is partly blocked, without exploration, matured figures are of the allowed part
  only: at the threshold of blocking there is no precision, and a recall of 0, whatever the model is
  worth. Recall at lower thresholds is held against that of the validation rows which would have
  been allowed, too. That a model ranks those as it did says nothing of what is blocked.
* Where a version has several arms, the one with the most decisions is judged.

The validation figure has an error of its own, which is not counted: a bundle says of how many
positives it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from server.feedback.quality.judging import ALLOWED_ONLY
from server.feedback.quality.reports import MATURED
from server.feedback.told import Figure, QualityReport
from server.feedback.validation import AUC, RECALL, Validation

WIDEST = 0.2  # of an interval that still tells something
PRECISION = "precision"
HIDDEN = (
    "how good it is on blocked traffic, which has no outcomes: `scoregate explore` lets a share "
    "through, by which it can be judged"
)


class Judged(NamedTuple):
    """What matured quality says."""

    kind: Literal["lost", "held", "absent", "unclear"]
    why: tuple[str, ...]
    unknown: tuple[str, ...]
    from_time_ms: int = 0
    to_time_ms: int = 0


def judge(quality: Sequence[QualityReport], validation: Validation | None) -> Judged:
    """Hold matured figures against those of the validation rows.

    Parameters
    ----------
    quality
        Reports of one version, of any arm and cohort.
    validation
        Its figures on its validation rows; None: not known.
    """
    matured = [one for one in quality if one.cohort == MATURED and one.n_decisions]
    if not matured:
        return Judged("unclear", (), ("how good it is: no decision is old enough to tell",))
    report = max(matured, key=lambda one: one.n_decisions)  # of the arm with the most traffic
    span = report.from_time_ms, report.to_time_ms
    n = f"{report.n_positive:,} positives of {report.n_decisions:,} matured decisions"
    if not report.n_positive:
        silence = (
            f"not one of {report.n_decisions:,} matured decisions turned out positive: do outcomes "
            "come at all? (ml_feedback_outcomes_total)"
        )
        return Judged("absent", (silence,), (), *span)
    if validation is None:
        missing = "what its quality was on validation rows: --bundle says where its bundle is"
        return Judged("unclear", (), (missing,), *span)
    blocked = _blocked_from(report)
    of = "" if blocked is None else " of allowed traffic"
    lost, held, wide = [], [], []
    for one in report.metrics:
        before = _before(validation, one, blocked)
        if not _are_known(before, one.low, one.high):
            continue
        what = (f"{one.name} at {one.threshold}" if one.threshold else one.name) + of
        said = (
            f"{what} {one.value:.3f} ({one.low:.3f} to {one.high:.3f}), {before:.3f} at validation"
        )
        if one.high < before:
            lost.append(f"lost: {said}")
        elif one.high - one.low > WIDEST:
            wide.append(f"whether {what} was lost: {one.low:.3f} to {one.high:.3f} is too wide")
        else:
            held.append(f"not lost: {said}")
    unknown = [*wide, *([validation.note] if validation.note else []), *([HIDDEN] if of else [])]
    if lost:
        return Judged("lost", (f"{n}", *lost), tuple(unknown), *span)
    if held and not wide:
        return Judged("held", (f"{n}", *held), tuple(unknown), *span)
    if not (unknown or held):
        unknown = ["how good it is: no matured figure can be held against one of validation"]
    return Judged("unclear", (f"{n}", *held), tuple(unknown), *span)


def _blocked_from(report: QualityReport) -> str | None:
    """Return the lowest threshold over which no outcome can be seen; None: all can.

    Empty where only some can over any: such traffic is not that of the validation rows.
    """
    if ALLOWED_ONLY not in report.note:
        return None
    hidden = (one for one in report.metrics if one.name == PRECISION and math.isnan(one.value))
    found = next(hidden, None)
    return found.threshold if found is not None else ""


def _before(validation: Validation, one: Figure, blocked: str | None) -> float:
    """Return what to hold a figure against; NaN: nothing."""
    if one.name not in (AUC, RECALL):
        return math.nan
    if blocked is None:
        return validation.figure(one.name, one.threshold)
    return validation.allowed.get((one.threshold, blocked), math.nan)


def _are_known(*values: float) -> bool:
    return not any(map(math.isnan, values))


def moment(time_ms: int) -> str:
    """Return a moment for people, to the minute: "2026-11-23 22:20Z"."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")
