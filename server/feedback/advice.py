"""Whether to train a model again: what drift, matured quality and label counts say together.

In this order, the first that holds:

| what is known | verdict |
|---|---|
| the pipeline is broken | repair the pipeline first |
| matured quality is under the validation figure, and positives are enough | retrain |
| the same, and they are not | wait, for so many positives |
| drift says `retrain`; quality held through it | wait: what moved does not reach quality |
| ... no row since it began has matured | wait: a new model would not know what changed |
| ... positives are enough | retrain |
| ... they are not | wait, for so many positives |
| decisions have matured, and not one is positive | not known: outcomes do not come |
| drift is `stable` or `warning` | wait: nothing asks for another model |
| quality is not under the validation figure | wait |
| else | not known |

Rules
-----
* What "under the validation figure" and "held" mean: `quality_loss`.
* Estimates (made of calibrated scores, before outcomes) decide nothing: they take it for granted
  that a score still means what it meant.
* Rows and how many positives are enough: `training_rows`.

Pure: no clock, no file, no server. `told` is what it takes of the messages of GetDrift, GetQuality
and GetEvents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from server.feedback.quality.reports import ESTIMATED
from server.feedback.quality_loss import Judged, judge, moment
from server.feedback.told import DriftReport, QualityReport
from server.feedback.training_rows import DAY_MS, DriftHistory, TrainingRows, training_rows
from server.feedback.validation import RECALL, Validation

Verdict = Literal["retrain", "wait", "repair the pipeline first", "not known"]
RETRAIN: Verdict = "retrain"
WAIT: Verdict = "wait"
REPAIR: Verdict = "repair the pipeline first"
NOT_KNOWN: Verdict = "not known"

# Before this share of the positives that it was trained on, a model is better kept than replaced
# by one of the new rows alone.
FEWER_POSITIVES = 0.5
SILENT = ("warming", "unwatched", "")  # states that say nothing


class Advice(Struct, frozen=True):
    """What to do about one version."""

    model: str
    version: str
    verdict: Verdict
    why: tuple[str, ...]
    rows: TrainingRows  # to train on, if it is to be done
    unknown: tuple[str, ...]  # what would have to be known for more


def advise(
    model: str,
    version: str,
    *,
    drift: Sequence[DriftReport],
    quality: Sequence[QualityReport],
    validation: Validation | None,
    history: DriftHistory,
    now_ms: int,
) -> Advice:
    """Return the advice on one version.

    Parameters
    ----------
    model, version
        Which.
    drift, quality
        Reports of any versions: GetDrift's and GetQuality's.
    validation
        The version's figures on its validation rows; None: not known.
    history
        Of the model, from events.
    now_ms
        The server's time, in milliseconds since the epoch.
    """
    report = next((one for one in drift if (one.model, one.version) == (model, version)), None)
    state = report.state if report else ""
    rows = training_rows(
        quality,
        model,
        reference_time_ms=report.reference_time_ms if report else 0,
        broken=history.broken,
        n_features=len(report.features) if report else 0,
    )
    ours = [one for one in quality if (one.model, one.version) == (model, version)]
    judged = judge(ours, validation)
    since = history.drifts_since_ms.get(version)
    verdict, why = _decide(report, state, judged, rows, since, now_ms)
    if verdict == RETRAIN and validation and _is_small(rows, validation):
        why.append(
            f"keep older rows too: {rows.n_positive:,} positives are fewer than half of the "
            f"{validation.n_trained_positive:,} that this version was trained on"
        )
    unknown = [*_unknown_drift(report), *judged.unknown, *_unknown_now(ours, judged, rows)]
    if rows.n_decisions and rows.from_time_ms < history.known_from_ms:
        unknown.append(
            f"whether the pipeline was broken before {moment(history.known_from_ms)}, when the "
            "server started"
        )
    return Advice(model, version, verdict, tuple(why), rows, tuple(unknown))


def _decide(
    report: DriftReport | None,
    state: str,
    judged: Judged,
    rows: TrainingRows,
    drifts_since_ms: int | None,
    now_ms: int,
) -> tuple[Verdict, list[str]]:
    """Return the first line of the table that holds, and its reasons."""
    if report is not None and state == "broken":
        faults = [*report.reasons, "a model trained on such rows would learn the fault"]
        return REPAIR, faults
    if judged.kind == "lost":
        moved = (
            [f"what is scored has moved too: {_first(report)}"]
            if report is not None and state in ("warning", "retrain")
            else ["while no feature drifts: the same rows mean something else now"]
            if state == "stable"
            else []
        )
        enough, counts = _enough(rows, now_ms)
        return (RETRAIN if enough else WAIT), [*judged.why, *moved, counts]
    if report is not None and state == "retrain":
        since = _drift_start(report, drifts_since_ms)
        why = [f"what is scored moved far, and the slow window agrees: {_first(report)}"]
        if judged.kind == "held" and since <= (judged.from_time_ms + judged.to_time_ms) / 2:
            return WAIT, [*why, *judged.why, "most of these decisions were taken since it moved"]
        if rows.to_time_ms and rows.to_time_ms <= since:
            ready = since + max(0, now_ms - rows.to_time_ms)
            late = (
                f"it moved about {moment(since)}, and the newest matured decision is of "
                f"{moment(rows.to_time_ms)}: a model trained now would not know what changed; "
                f"the first rows that do mature about {moment(ready)}"
            )
            return WAIT, [*why, late]
        enough, counts = _enough(rows, now_ms)
        return (RETRAIN if enough else WAIT), [*why, *judged.why, counts]
    if judged.kind == "absent":
        return NOT_KNOWN, list(judged.why)
    if state in ("stable", "warning"):
        said = "what is scored looks like the reference"
        if report is not None and state == "warning":
            said = f"what is scored moved, but not far enough for a new model: {_first(report)}"
        return WAIT, [said, *judged.why]
    if judged.kind == "held":
        return WAIT, list(judged.why)
    return NOT_KNOWN, list(judged.why) or ["neither drift nor quality can be told yet"]


def _enough(rows: TrainingRows, now_ms: int) -> tuple[bool, str]:
    """Return whether positives are enough, and a line that says how many there are."""
    about = "about " if rows.is_prorated else ""
    there = f"{about}{rows.n_positive:,} positives to train on, {rows.n_positive_needed:,} needed"
    if rows.is_enough:
        return True, there
    days = rows.days_missing
    if math.isinf(days):
        return False, f"{there}, and none comes"
    return False, f"{there}: at the pace so far about {moment(now_ms + round(days * DAY_MS))}"


def _drift_start(report: DriftReport, told_ms: int | None) -> int:
    """Return since when it drifts at the latest: since an event, or what the slow window holds."""
    seen = report.evaluated_time_ms - round(1000 * report.slow.span_s)
    return seen if told_ms is None else min(seen, told_ms)


def _unknown_drift(report: DriftReport | None) -> list[str]:
    if report is not None and report.state not in SILENT:
        return []
    why = "it takes no part in serving"
    if report is not None:
        why = report.trouble or "its windows fill"
    return [f"whether what is scored has changed: {why}"]


def _unknown_now(ours: Sequence[QualityReport], judged: Judged, rows: TrainingRows) -> list[str]:
    """Return what is not known of the time since the newest matured decision, and of the counts."""
    out = []
    estimated = next((one for one in ours if one.cohort == ESTIMATED), None)
    recent = f"since {moment(judged.to_time_ms)}" if judged.to_time_ms else "so far"
    told = ", ".join(
        f"{one.name} at {one.threshold} {one.value:.3f}"
        for one in (estimated.metrics if estimated is not None else ())
        if one.name == RECALL and not math.isnan(one.value)
    )
    if told:
        out.append(
            f"quality {recent}: estimates ({told}) cannot see that the same score means something "
            "else (concept drift)"
        )
    else:
        note = f" ({estimated.note})" if estimated is not None and estimated.note else ""
        out.append(f"quality {recent}: there is no estimate{note}")
    if rows.n_decisions:
        out.append("positives that nobody reported: silence counts as negative")
    return out


def _is_small(rows: TrainingRows, validation: Validation) -> bool:
    return rows.n_positive < FEWER_POSITIVES * validation.n_trained_positive


def _first(report: DriftReport) -> str:
    return next(iter(report.reasons), f"score {report.score:.2f}")
