"""The plots of quality show the numbers they are made of: places against values computed anew."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binomtest

from server.config.feedback import FeedbackSettings
from server.console import plots
from server.console.curves import STEP, Curves, curves_of
from server.console.parts import quality as parts
from server.console.quality import QualityReader
from server.console.tree import Element, to_html
from server.feedback.quality import Evaluator, QualityReport, VersionFacts, score_edges
from server.feedback.quality.calibration import calibration
from server.feedback.quality.reports import CalibrationGroup, ScoreBin
from tests.support.console import HOSTILE
from tests.support.decided import DAY_MS, NOW_MS, decide, keep, open_records, report
from tests.support.html import parse
from tests.support.quality import Scored, scored, sigmoid

CUTS = (-2.0, 0.0)
SCORES = tuple(float(score) for score in sigmoid(np.array(CUTS, np.float32)))
THRESHOLDS = (("review", SCORES[0]), ("block", SCORES[1]))
EMPTY = ScoreBin(0.0, 0.0, 0.0, 0.0, float("nan"), 0.0, 0.0)
KEY = ("fraud", "1", "champion")
# The box of a plot, in units of its drawing.
LEFT, RIGHT, BOTTOM, TOP = 52, 326, 194, 20


def truthful(seed: int, n: int) -> Scored:
    """Return rows whose scores are the probability of what came."""
    rows = scored(seed, n)
    random = np.random.default_rng(seed + 1)
    return rows._replace(label=(random.random(n) < rows.score).astype(np.int8))


def evaluated(
    folder: Path, rows: Scored, *, explore_share: float = 0.0, labelled: bool = True
) -> dict[str, QualityReport]:
    """Return the reports of rows, by cohort."""
    records = open_records(folder)
    decided = decide(rows, NOW_MS - 40 * DAY_MS, cuts=CUTS, explore_share=explore_share)
    keep(records, decided, score_edges(np.sort(rows.raw), CUTS))
    if labelled:
        report(records, decided, rows.label == 1)
    facts = VersionFacts(
        (("review", CUTS[0]), ("block", CUTS[1])),
        decisions=("approve", "review", "block"),
        unseen=frozenset({2}) if explore_share else frozenset(),
    )
    found = Evaluator(records.path, FeedbackSettings(), lambda *_: facts).evaluate(NOW_MS)
    records.close()
    return {one.cohort: one for one in found}


def drawn(one: QualityReport, thresholds: Sequence[tuple[str, float]] = THRESHOLDS) -> Curves:
    found = curves_of(one, thresholds)
    assert found is not None
    return found


def paths(plot: Element, kind: str) -> list[tuple[float, ...]]:
    """Return the numbers of the parts of a drawing's paths of one class."""
    found = [
        child.attributes["d"]
        for child in plot.children
        if isinstance(child, Element) and child.attributes.get("class", "").split()[:1] == [kind]
    ]
    return [
        tuple(float(x) for x in re.findall(r"-?[\d.]+", one))
        for path in found
        for one in path.split("M")[1:]
    ]


def test_groups_are_the_error_s_and_their_intervals_are_wilson_s() -> None:
    rows = scored(1, 20_000)
    counts = rows.counts(score_edges(np.sort(rows.raw), CUTS))
    groups = calibration(counts)
    assert 10 <= len(groups) <= 20
    assert sum(one.n_effective for one in groups) == pytest.approx(20_000)
    assert sum(one.n_effective * one.positive_share for one in groups) == pytest.approx(
        rows.label.sum()
    )
    assert sum(one.n_effective * one.mean_score for one in groups) == pytest.approx(
        rows.score.sum(dtype=float)
    )
    for one in groups:
        n = round(one.n_effective)
        found = binomtest(round(n * one.positive_share), n).proportion_ci(method="wilson")
        assert (one.low, one.high) == pytest.approx((found.low, found.high), abs=1e-9)


def test_the_intervals_of_explored_groups_are_of_the_rows_that_were_seen(tmp_path: Path) -> None:
    rows = truthful(3, 30_000)
    one = evaluated(tmp_path, rows, explore_share=0.1)["matured"]
    top = [group for group in one.calibration if group.mean_score > SCORES[1]]
    n_blocked = int((rows.raw >= CUTS[1]).sum())
    assert top
    # A tenth is seen, each of which stands for ten.
    worth = sum(group.n_effective for group in top)
    assert 0.07 * n_blocked < worth < 0.13 * n_blocked
    assert sum(map(plots.is_within, one.calibration)) >= len(one.calibration) - 3
    # Decisions are counted once: those that were blocked stand for those that were explored.
    curves = drawn(one)
    assert sum(curves.decisions) == pytest.approx(30_000, rel=0.02)
    assert curves.thresholds[1].share == pytest.approx(n_blocked / 30_000, rel=0.1)
    assert curves.n_positive == pytest.approx(rows.label.sum(), rel=0.2)


def test_bars_hold_the_decisions_of_the_rows(tmp_path: Path) -> None:
    rows = scored(4, 20_000)
    found = evaluated(tmp_path, rows)["matured"]
    curves = drawn(found)
    assert len(curves.decisions) == round((curves.high - curves.low) / STEP)
    assert sum(curves.decisions) == pytest.approx(20_000)
    assert sum(curves.positives) == pytest.approx(rows.label.sum())
    # Up to each bar's end, but for what lies in the bin that it cuts.
    slack = max(one.n_decisions for one in found.bins)
    ends = np.linspace(curves.low, curves.high, len(curves.decisions) + 1)[1:-1]
    for i, end in enumerate(ends):
        below = (rows.score < 10**end / (1 + 10**end)).sum()
        assert abs(sum(curves.decisions[: i + 1]) - below) <= slack
    for one, cut in zip(curves.thresholds, CUTS, strict=True):
        reached = rows.raw >= np.float32(cut)
        assert one.share == pytest.approx(reached.mean())
        assert one.caught == pytest.approx(rows.label[reached].sum() / rows.label.sum())
    assert curves.median == pytest.approx(np.median(rows.score), rel=0.05)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 100), st.sampled_from(range(1, 4))
        ),
        min_size=1,
        max_size=40,
    ),
    st.lists(st.floats(0, 1), max_size=4),
)
def test_whatever_the_bins_nothing_is_lost(
    held: list[tuple[float, float, float, int]], cuts: list[float]
) -> None:
    bins = []
    for mean, n, positive, skip in sorted(held):
        bins += [EMPTY] * (skip - 1)
        bins.append(ScoreBin(0.0, n, positive, 0.0, mean, 0.0, n))
    one = made(bins=tuple(bins))
    curves = curves_of(one, [(f"d{i}", cut) for i, cut in enumerate(cuts)])
    total = sum(n for _, n, _, _ in held)
    if not total:
        assert curves is None
        return
    assert curves is not None
    assert sum(curves.decisions) == pytest.approx(total)
    assert sum(curves.positives) == pytest.approx(sum(p for _, _, p, _ in held))
    assert min(curves.decisions + curves.positives) >= 0
    html = to_html([plots.distribution("x", curves)])
    shapes = re.findall(r' d="([^"]*)"', html)
    numbers = [float(x) for shape in shapes for x in re.findall(r"-?[\d.]+", shape)]
    assert len(numbers) > 10
    assert all(0 <= x <= plots.WIDTH for x in numbers)
    assert "nan" not in html.lower()


def made(**members: object) -> QualityReport:
    usual: dict[str, object] = {
        "model": "fraud", "version": "1", "arm": "champion", "cohort": "matured",
        "from_time_ms": 0, "to_time_ms": 0, "n_decisions": 100, "n_labels": 10, "n_positive": 5,
        "n_effective": 100.0,
    }  # fmt: skip
    return QualityReport(**{**usual, **members})  # type: ignore[arg-type]


def share_of(decades: float) -> float:
    """Return the probability of odds."""
    return float(expit(decades * np.log(10)))


def bins_of(*held: tuple[float, float, float]) -> tuple[ScoreBin, ...]:
    """Return bins beside each other, of (mean score, decisions, positives)."""
    return tuple(ScoreBin(0.0, n - p, p, 0.0, mean, 0.0, n) for mean, n, p in held)


def test_points_and_whiskers_stand_where_their_values_do() -> None:
    groups = (
        CalibrationGroup(0.001, 0.0, 0.0, 0.01, 500.0),
        CalibrationGroup(0.01, 0.02, 0.015, 0.03, 900.0),
        CalibrationGroup(0.5, 0.4, 0.3, 0.6, 100.0),
    )
    curves = drawn(made(bins=bins_of((0.001, 90, 1), (0.5, 10, 4)), calibration=groups))
    assert (curves.low, curves.high) == (-3, 0)

    def place(value: float, start: float, end: float) -> float:
        """Log odds from 1 : 1,000 to 1 : 1."""
        decades = logit(value) / np.log(10)
        return float(start + (end - start) * np.clip((decades + 3) / 3, 0, 1))

    plot = plots.calibration("fraud 1", curves)
    expected = [
        (place(one.mean_score, LEFT, RIGHT), place(one.positive_share, BOTTOM, TOP), 0)
        for one in groups
    ]
    assert np.array(sorted(paths(plot, "dot"))) == pytest.approx(np.array(expected), abs=0.01)
    whiskers = [
        (x, place(one.low, BOTTOM, TOP), place(one.high, BOTTOM, TOP))
        for (x, _, _), one in zip(expected, groups, strict=True)
    ]
    assert np.array(sorted(paths(plot, "whisker"))) == pytest.approx(np.array(whiskers), abs=0.01)
    # None at all has no place on an axis of odds: a hole, at its beginning.
    assert np.array(paths(plot, "hole")) == pytest.approx(np.array(expected[:1]), abs=0.01)
    labels = [float(one) for one in parse(to_html([plot])).texts("text")[:8]]
    assert labels == [0.001, 0.01, 0.1, 0.5] * 2
    html = to_html([plot])
    assert html.count('class="dot off"') == html.count('class="whisker off"') == 1
    [title] = parse(html).texts("title")
    assert "in 2 of 3 groups the mean score lies within the 95 % interval" in title
    [description] = parse(html).texts("desc")
    assert description.split("; ")[1] == "0.01: 0.02 (0.015 to 0.03)"
    [line] = re.findall(r'<line class="diagonal"([^>]*)>', html)
    assert dict(re.findall(r'(\w+)="([^"]*)"', line)) == {
        "x1": f"{LEFT}", "y1": f"{BOTTOM}", "x2": f"{RIGHT}", "y2": f"{TOP}",
    }  # fmt: skip


def test_bars_are_as_high_as_the_logarithm_of_what_they_hold() -> None:
    # In the middle of bars, and far from each other.
    low, high = bins_of((share_of(-2.95), 1000, 0), (share_of(-0.35), 10, 4))
    curves = drawn(made(bins=(low, EMPTY, high)), [("at", 0.091)])
    plot = plots.distribution("fraud 1", curves)
    top = TOP + 12  # a row for the threshold's name
    [shape] = paths(plot, "decisions")
    bar = (RIGHT - LEFT) / 30
    # Axes from 1 to 1000, and from odds of 1 : 1000 to 1 : 1 in thirty bars.
    assert shape == pytest.approx(
        (
            LEFT, BOTTOM, LEFT, top, LEFT + bar, BOTTOM,
            LEFT + 26 * bar, BOTTOM + (top - BOTTOM) / 3, LEFT + 27 * bar, BOTTOM, RIGHT, BOTTOM,
        ),
        abs=0.06,
    )  # fmt: skip
    [shape] = paths(plot, "positives")
    assert shape[5] == pytest.approx(BOTTOM + (top - BOTTOM) * np.log10(4) / 3, abs=0.06)
    html = to_html([plot])
    [x] = re.findall(r'class="threshold" x1="([\d.]+)"', html)
    at = logit(0.091) / np.log(10)
    assert float(x) == pytest.approx(LEFT + (RIGHT - LEFT) * (3 + at) / 3, abs=0.01)
    assert parse(html).texts("title") == [
        "Scores of fraud 1: median 0.0011; at from 0.091: 1.0 % of decisions and 100 % of positives"
    ]
    assert parse(html).texts("desc")[0] == (
        "up to 0.0099: 1,000 decisions, 0 positive; up to 0.091: 0 decisions, 0 positive; "
        "more: 10 decisions, 4 positive"
    )


def test_an_empty_bin_is_a_gap_and_a_threshold_an_end() -> None:
    low, high = bins_of((share_of(-2.55), 100, 0), (share_of(-0.55), 10, 0))
    apart = drawn(made(bins=(low, EMPTY, high)), [])
    assert dict(enumerate(apart.decisions)) == pytest.approx(
        {**dict.fromkeys(range(30), 0.0), 4: 100.0, 24: 10.0}
    )
    beside = drawn(made(bins=(low, high)), [("stop", share_of(-0.6))])
    assert all(n > 0 for n in beside.decisions[4:25])
    assert sum(beside.decisions[:24]) == pytest.approx(100)
    assert sum(beside.decisions[24:]) == pytest.approx(10)


@pytest.mark.parametrize("mean", [-0.1, 1.5])
def test_scores_that_are_no_probabilities_are_not_drawn(mean: float) -> None:
    assert curves_of(made(bins=bins_of((mean, 10, 1))), THRESHOLDS) is None


def test_the_surest_cohort_with_labels_is_drawn(tmp_path: Path) -> None:
    one = {"bins": bins_of((0.1, 10, 1))}
    reader = QualityReader()

    def cohorts(matured: int, labelled: int) -> list[str]:
        found = reader.read(
            [
                made(cohort="estimated", n_decisions=50, n_labels=matured, **one),
                made(cohort="labelled", n_decisions=90, n_labels=labelled, **one),
                made(cohort="matured", n_decisions=40, n_labels=matured, **one),
            ],
            {},
        )
        return [shown.quality.cohort for shown in found if shown.curves]

    assert cohorts(3, 5) == ["matured"]
    assert cohorts(0, 5) == ["labelled"]
    assert cohorts(0, 0) == ["labelled"]  # the most decisions
    found = evaluated(tmp_path, scored(5, 500), labelled=False)
    [shown] = [shown for shown in reader.read(tuple(found.values()), {}) if shown.curves]
    assert shown.curves is not None
    assert not shown.curves.n_positive


def test_curves_are_made_once_for_an_evaluation_and_its_thresholds() -> None:
    reports = (made(bins=bins_of((0.1, 10, 1))),)
    reader = QualityReader()
    first = reader.read(reports, {KEY: list(THRESHOLDS)})
    assert reader.read(reports, {KEY: list(THRESHOLDS)}) is first
    moved = reader.read(reports, {KEY: [("review", 0.3)]})
    assert moved is not first
    assert moved[0].curves is not None
    assert [one.name for one in moved[0].curves.thresholds] == ["review"]
    other = (made(bins=reports[0].bins),)
    assert reader.read(other, {KEY: [("review", 0.3)]}) is not moved


def test_names_of_thresholds_are_escaped() -> None:
    report = made(bins=bins_of((0.01, 90, 1), (0.5, 10, 4)), arm=HOSTILE)
    found = QualityReader().read([report], {("fraud", "1", HOSTILE): [(HOSTILE, 0.2)]})
    html = to_html(parts.quality(found))
    page = parse(html)
    assert not page.fetched
    assert "<script" not in html
    assert "<img" not in html
    assert html.isprintable()
    assert page.texts("text")[-1] == HOSTILE[:15] + "…"
