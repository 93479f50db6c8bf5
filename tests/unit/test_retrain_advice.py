"""Whether to train again: one test a line of the table in `server/feedback/advice.py`, and rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cli.retrain import render
from server.feedback.advice import Advice, advise
from server.feedback.training_rows import (
    DAY_MS,
    DriftHistory,
    Stretch,
    drift_history,
    positives_needed,
    training_rows,
)
from server.feedback.validation import Validation
from server.pb.scoregate.v1 import control_pb2, feedback_pb2

NOW = 1_790_000_000_000
BEFORE = Validation({("auc", ""): 0.9, ("recall", "block"): 0.7}, 600, 2000)
NO_HISTORY = DriftHistory((), {}, NOW - 365 * DAY_MS)


def days(n: float) -> int:
    """Milliseconds since the epoch, n days ago."""
    return NOW - round(n * DAY_MS)


def drift(state: str, **more: Any) -> control_pb2.DriftReport:
    fields: dict[str, Any] = {
        "model": "fraud",
        "version": "2",
        "state": state,
        "score": 0.4,
        "reasons": ["amount: KS distance 0.40"] if state != "stable" else [],
        "evaluated_time_ms": NOW,
        "reference_time_ms": days(200),
        "slow": control_pb2.DriftWindow(span_s=86_400, is_ready=True),
        "features": [control_pb2.FeatureDrift(name=f"f{i}") for i in range(15)],
    }
    return control_pb2.DriftReport(**{**fields, **more})


def metric(
    name: str, value: float, low: float, high: float, threshold: str = ""
) -> feedback_pb2.QualityMetric:
    return feedback_pb2.QualityMetric(
        name=name, threshold=threshold, value=value, low=low, high=high, interval="wilson"
    )


HELD = (metric("auc", 0.89, 0.87, 0.91), metric("recall", 0.68, 0.62, 0.74, "block"))
LOST = (metric("auc", 0.89, 0.87, 0.91), metric("recall", 0.52, 0.45, 0.59, "block"))
WIDE = (metric("recall", 0.5, 0.3, 0.75, "block"),)
UNKNOWN = (metric("recall", math.nan, math.nan, math.nan, "block"),)


def quality(
    metrics: Sequence[feedback_pb2.QualityMetric] = HELD, cohort: str = "matured", **more: Any
) -> feedback_pb2.QualityReport:
    fields: dict[str, Any] = {
        "model": "fraud",
        "version": "2",
        "arm": "champion",
        "cohort": cohort,
        "from_time_ms": days(60),
        "to_time_ms": days(30),
        "n_decisions": 1_000_000,
        "n_positive": 900,
        "n_labels": 1100,
        "metrics": metrics,
        "evaluated_time_ms": NOW,
    }
    return feedback_pb2.QualityReport(**{**fields, **more})


def ask(
    state: str | control_pb2.DriftReport | None,
    *reports: feedback_pb2.QualityReport,
    validation: Validation | None = BEFORE,
    history: DriftHistory = NO_HISTORY,
) -> Advice:
    found = drift(state) if isinstance(state, str) else state
    return advise(
        "fraud",
        "2",
        drift=[drift("broken", version="1"), *([found] if found else [])],
        quality=reports,
        validation=validation,
        history=history,
        now_ms=NOW,
    )


def says(lines: Sequence[str], text: str) -> bool:
    return any(text in line for line in lines)


@pytest.mark.parametrize("metrics", [HELD, LOST])
def test_a_broken_pipeline_outranks_everything(metrics: Any) -> None:
    advice = ask("broken", quality(metrics))
    assert advice.verdict == "repair the pipeline first"
    assert says(advice.why, "KS distance 0.40")
    assert says(advice.why, "would learn the fault")
    assert "docs/runbooks/drift.md" in render(advice)


@pytest.mark.parametrize("state", ["stable", "warning", "retrain", "warming", "unwatched", None])
def test_lost_quality_asks_for_a_new_model_whatever_drifts(state: str | None) -> None:
    advice = ask(state, quality(LOST))
    assert advice.verdict == "retrain"
    assert says(advice.why, "lost: recall at block 0.520 (0.450 to 0.590), 0.700 at validation")
    assert not says(advice.why, "lost: auc")
    assert says(advice.why, "same rows mean something else") == (state == "stable")
    assert says(advice.why, "moved too") == (state in ("warning", "retrain"))
    assert advice.rows.n_positive == 900
    assert says(advice.why, "keep older rows too")  # 900 of 2,000


def test_lost_is_the_upper_bound_and_not_the_figure() -> None:
    at_the_bound = metric("recall", 0.62, 0.55, 0.7, "block")
    below = metric("recall", 0.62, 0.55, math.nextafter(0.7, 0), "block")
    assert ask("stable", quality([at_the_bound])).verdict == "wait"
    assert ask("stable", quality([below])).verdict == "retrain"


@pytest.mark.parametrize("state", ["stable", "retrain"])
def test_too_few_positives_wait_for_the_day_that_they_are_enough(state: str) -> None:
    few = ask(state, quality(LOST, n_positive=300))
    assert few.verdict == "wait"
    # 10 a day, and 400 are needed: ten days.
    assert says(few.why, "300 positives to train on, 400 needed")
    assert says(few.why, "at the pace so far about 2026-10-01")
    none = ask("stable", quality(LOST, n_positive=300, to_time_ms=days(61), from_time_ms=days(90)))
    assert none.verdict == "wait"


def test_drift_alone_waits_until_rows_of_it_have_matured() -> None:
    # The newest matured decision is 30 days old, and the slow window holds one.
    advice = ask("retrain", quality(HELD))
    assert advice.verdict == "wait"
    assert says(advice.why, "would not know what changed")
    assert says(advice.why, "mature about 2026-10-20")  # 29 days


def test_drift_retrains_once_rows_of_it_have_matured() -> None:
    since = DriftHistory((), {"2": days(40)}, 0)
    assert ask("retrain", quality(WIDE), history=since).verdict == "retrain"
    assert ask("retrain", quality(HELD), history=since).verdict == "retrain"  # most are of before
    few = ask("retrain", quality(WIDE, n_positive=300), history=since)
    assert few.verdict == "wait"
    # Another version's drift is not this one's.
    other = DriftHistory((), {"1": days(40)}, 0)
    assert ask("retrain", quality(WIDE), history=other).verdict == "wait"


def test_drift_through_which_quality_held_is_let_pass() -> None:
    advice = ask("retrain", quality(HELD), history=DriftHistory((), {"2": days(50)}, 0))
    assert advice.verdict == "wait"
    assert says(advice.why, "not lost: recall at block")
    assert says(advice.why, "since it moved")


def test_drift_without_any_outcome_waits_for_them() -> None:
    advice = ask("retrain")
    assert advice.verdict == "wait"
    assert says(advice.why, "0 positives to train on, 400 needed, and none comes")
    assert says(advice.unknown, "no decision is old enough")


@pytest.mark.parametrize("state", ["stable", "warning", "warming", None])
def test_outcomes_that_do_not_come_are_no_good_news(state: str | None) -> None:
    advice = ask(state, quality(UNKNOWN, n_positive=0))
    assert advice.verdict == "not known"
    assert says(advice.why, "not one of 1,000,000 matured decisions")


def test_nothing_moves_and_nothing_is_lost() -> None:
    for state in ("stable", "warning"):
        advice = ask(state, quality(HELD))
        assert advice.verdict == "wait"
        assert says(advice.why, "not lost: auc 0.890")
    assert ask(None, quality(HELD)).verdict == "wait"
    assert ask("stable").verdict == "wait"


@pytest.mark.parametrize("state", ["warming", "unwatched", None])
def test_nothing_known_is_said_to_be_nothing_known(state: str | None) -> None:
    for reports in ((), (quality(WIDE),), (quality(HELD, n_decisions=0),)):
        advice = ask(state, *reports)
        assert advice.verdict == "not known"
        assert says(advice.unknown, "whether what is scored has changed")
    assert says(ask(drift("unwatched", trouble="no disk")).unknown, "no disk")


def test_blocked_traffic_is_held_against_what_would_have_been_allowed() -> None:
    note = "1,100 of 1,000,000 decisions have a label; allowed traffic only"
    precision = metric("precision", math.nan, math.nan, math.nan, "block")
    hidden = metric("recall", 0.0, 0.0, 0.01, "block")
    review = metric("recall", 0.4, 0.35, 0.45, "review")
    blocked = quality([precision, hidden, review], note=note)
    for validation in (BEFORE, None, with_allowed(0.44)):
        advice = ask("stable", blocked, validation=validation)
        assert advice.verdict == "wait"
        assert not says(advice.why, "lost: recall at block")
    assert says(ask("stable", blocked).unknown, "scoregate explore")
    assert says(advice.why, "not lost: recall at review of allowed traffic 0.400 (0.350 to 0.450)")
    assert says(advice.unknown, "scoregate explore")
    # Like with like: the validation rows that would have been allowed.
    assert ask("stable", blocked, validation=with_allowed(0.46)).verdict == "retrain"
    # Where some of it can be seen over each threshold, there is no such part of validation rows.
    partly = quality([metric("precision", 0.5, 0.4, 0.6, "block"), hidden, review], note=note)
    assert ask("stable", partly, validation=with_allowed(0.46)).verdict == "wait"


def with_allowed(recall: float) -> Validation:
    """Validation rows of which `recall` reach review, of those under block."""
    return Validation(
        {("recall", "block"): 0.7, ("recall", "review"): 0.9},
        600,
        2000,
        allowed={("review", "block"): recall},
    )


def test_what_stays_unknown_is_said() -> None:
    assert says(ask("stable", quality(WIDE)).unknown, "recall at block was lost")
    assert says(ask("stable", quality(LOST), validation=None).unknown, "--bundle")
    assert ask("stable", quality(LOST), validation=None).verdict == "wait"
    noted = Validation({}, 600, 2000, "the recall of its validation rows: not calibrated")
    assert says(ask("stable", quality(LOST), validation=noted).unknown, "not calibrated")
    bare = Validation({}, 600, 2000)
    assert says(ask("stable", quality(LOST), validation=bare).unknown, "no matured figure")
    later = DriftHistory((), {}, days(45))
    assert says(ask("stable", quality(), history=later).unknown, "when the server started")
    assert says(ask("stable", quality()).unknown, "silence counts as negative")


def test_estimates_are_told_and_decide_nothing() -> None:
    low = quality([metric("recall", 0.2, math.nan, math.nan, "block")], "estimated")
    advice = ask("stable", quality(HELD), low)
    assert advice.verdict == "wait"
    assert says(advice.unknown, "recall at block 0.200")
    assert says(advice.unknown, "concept drift")
    none = quality((), "estimated", note="not calibrated")
    assert says(ask("stable", quality(HELD), none).unknown, "no estimate (not calibrated)")


def test_labelled_cohorts_and_other_models_decide_nothing() -> None:
    others = (
        quality(LOST, "labelled"),
        quality(LOST, model="other"),
        quality(LOST, version="1", n_positive=5),
    )
    assert ask("stable", quality(HELD), *others).verdict == "wait"


def test_the_arm_with_the_most_decisions_is_judged() -> None:
    small = quality(LOST, arm="canary", n_decisions=1000)
    assert ask("stable", small, quality(HELD)).verdict == "wait"
    assert ask("stable", quality(LOST), quality(HELD, arm="b", n_decisions=10)).verdict == "retrain"


# ------------------------------------------------------------------------ rows


def rows_of(
    *reports: feedback_pb2.QualityReport, reference: int = 0, broken: Sequence[Stretch] = ()
) -> Any:
    return training_rows(
        reports, "fraud", reference_time_ms=reference, broken=broken, n_features=15
    )


def test_positives_needed() -> None:
    assert positives_needed(0) == 400  # 100 in the quarter that validates
    assert positives_needed(30) == 400  # 300 in the three quarters that train
    assert positives_needed(300) == 4000


def test_rows_begin_with_the_reference() -> None:
    whole = rows_of(quality(), reference=days(200))
    assert (whole.from_time_ms, whole.to_time_ms) == (days(60), days(30))
    assert (whole.n_positive, whole.is_prorated, whole.positives_per_day) == (900, False, 30)
    half = rows_of(quality(), reference=days(45))
    assert (half.from_time_ms, half.n_positive, half.is_prorated) == (days(45), 450, True)
    none = rows_of(quality(), reference=days(20))
    assert (none.n_decisions, none.n_positive, none.positives_per_day) == (0, 0, 30)
    assert none.days_missing == pytest.approx(400 / 30)


def test_rows_of_every_version_and_arm_count_and_of_no_other_model() -> None:
    rows = rows_of(
        quality(version="1", from_time_ms=days(70)),
        quality(arm="canary", n_positive=100),
        quality(model="other"),
        quality(cohort="labelled"),
        quality(n_decisions=0),
    )
    assert (rows.from_time_ms, rows.n_positive, rows.n_decisions) == (days(70), 1000, 2_000_000)


def test_broken_stretches_are_left_out() -> None:
    broken = [(days(90), days(55)), (days(50), days(49)), (days(49.5), days(48)), (days(9), NOW)]
    rows = rows_of(quality(), broken=broken)
    assert rows.without == ((days(60), days(55)), (days(50), days(48)))
    assert rows.n_positive == math.floor(900 * 23 / 30)
    text = render(ask("stable", quality(), history=DriftHistory(tuple(broken), {}, 0)))
    assert "without those of 2026-07-23 14:13Z to 2026-07-28 14:13Z" in text
    assert "about 690 positives in about 766,667" in text
    assert rows_of(quality(), broken=[(days(99), NOW)]).n_positive == 0


stretches = st.lists(
    st.tuples(st.floats(20, 80), st.floats(0, 30)).map(
        lambda given: (days(given[0]), days(given[0] - given[1]))
    ),
    max_size=6,
)


@given(stretches, st.floats(0, 100))
def test_what_is_left_out_is_left_out_once(broken: list[Stretch], reference: float) -> None:
    """Against minutes counted one by one."""
    rows = rows_of(quality(), reference=days(reference), broken=broken)
    minutes = np.arange(days(60), days(30), 60_000)
    kept = minutes >= days(reference)
    for since, until in broken:
        kept &= ~((minutes >= since) & (minutes < until))
    assert rows.n_positive == pytest.approx(900 * kept.mean(), abs=1 + 900 * 8 / len(minutes))


def event(kind: str, at: int, version: str = "2", model: str = "fraud") -> control_pb2.Event:
    return control_pb2.Event(kind=f"drift.{kind}", time_ms=at, model=model, version=version)


def history_of(*events: control_pb2.Event) -> DriftHistory:
    return drift_history(events, "fraud", lead_ms=100, known_from_ms=7, now_ms=9000)


@pytest.mark.parametrize(
    ("events", "broken", "since"),
    [
        ([], (), {}),
        ([event("broken", 1000)], ((900, 9000),), {}),
        # In any order, and the monitor's own failure is none of the pipeline.
        (
            [event("recovered", 3000), event("broken", 1000), event("failed", 2000)],
            ((900, 3000),),
            {},
        ),
        ([event("warning", 1000), event("retrain", 2000)], (), {"2": 900}),
        ([event("warning", 1000), event("recovered", 2000)], (), {}),
        ([event("retrain", 1000), event("broken", 2000)], ((1900, 9000),), {}),
        ([event("broken", 1000), event("warning", 2000)], ((900, 2000),), {"2": 1900}),
        # Versions share features: what breaks for one is left out for all.
        (
            [event("broken", 1000, "1"), event("recovered", 1500), event("broken", 1700)],
            ((900, 9000),),
            {},
        ),
        ([event("broken", 1000, model="other")], (), {}),
    ],
)
def test_what_events_tell(
    events: list[control_pb2.Event], broken: tuple[Stretch, ...], since: Mapping[str, int]
) -> None:
    assert history_of(*events) == DriftHistory(broken, dict(since), 7)


def test_a_page_for_a_terminal_is_folded_and_harmless() -> None:
    report = drift("broken", reasons=["am\x1bount: missing values in " + "x " * 90])
    text = render(ask(report, quality()))
    assert text.startswith("fraud 2: repair the pipeline first\n  why")
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert "  train on    decisions of 2026-07-23 14:13Z to 2026-08-22 14:13Z\n" in text
    assert "900 positives in 1,000,000; 400 positives needed" in text
