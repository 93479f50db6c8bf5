"""The drift report from made evaluations: what it says, in which order, and that it is whole."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from server.cli.drift_report import figures, plots
from server.cli.drift_report.console import show
from server.cli.drift_report.page import make_page
from server.control.drift import report as report_of
from server.drift import DriftSettings
from server.monitoring.watch import Watched
from server.pb.scoregate.v1 import control_pb2 as pb
from server.rollout.loaded import Key
from tests.support.drift import FEATURES, feed, make_monitor, make_reference, make_rows, sources_of
from tests.support.html import parse

EVIL = '"><script>alert(1)</script>&lt;'


def made(change: Any = None, *, n: int = 1000, version: str = "1") -> pb.DriftReport:
    """A report of rows that `change(rows, sources)` has changed."""
    monitor, clock, _ = make_monitor(DriftSettings(n_rows=1000, min_span_s=60))
    rows, sources = make_rows(np.random.default_rng(1), n), sources_of(n)
    if change is not None:
        change(rows, sources)
    feed(monitor, clock, rows, minutes=5, sources=sources)
    monitor.evaluate(force=True)
    found = report_of(Watched(Key("fraud", version, "ab"), 0, monitor), histograms=True)
    assert figures.fill_p_values(found)
    return found


def cents(rows: np.ndarray[Any, Any], sources: np.ndarray[Any, Any]) -> None:
    rows[:, 0] *= 100


def gone(rows: np.ndarray[Any, Any], sources: np.ndarray[Any, Any]) -> None:
    sources[:400, 3] = 4


def unwatched() -> pb.DriftReport:
    return report_of(Watched(Key("fraud", "0", "x"), 0, None, EVIL), histograms=True)


def printed(*reports: pb.DriftReport, every: bool = False) -> str:
    out = io.StringIO()
    show(Console(file=out, width=120), reports, all_features=every)
    return out.getvalue()


def test_the_drifted_feature_comes_first_with_its_medians() -> None:
    report = made(cents)
    page = parse(make_page([report]))
    assert page.texts("h1") == ["Drift of fraud 1"]
    assert page.texts("h2") == ["fraud 1: warning"]
    assert page.texts("h4")[0].startswith("amount")
    before, now = (
        f"{float(np.sort(values)[len(values) // 2 - 1]):.4g}"
        for values in (make_reference().values[0], _sent())
    )
    assert before != now
    cells = page.texts("td")
    assert cells[cells.index(before) + 1] == now
    text = printed(report)
    rows = [line.split() for line in text.splitlines()]
    names = [row[0] for row in rows if row and row[0] in {f.name for f in FEATURES}]
    assert names[0] == "amount"
    assert ["before", *_shown(report, "reference")] in rows
    assert ["now", *_shown(report, "window")] in rows


def _sent() -> np.ndarray[Any, Any]:
    rows = make_rows(np.random.default_rng(1), 1000)
    rows[:, 0] *= 100
    return rows[:, 0]


def _shown(report: pb.DriftReport, which: str) -> list[str]:
    return [figures.number(getattr(q, which)) for q in report.features[0].quantiles]


def test_a_page_is_whole_and_fetches_nothing() -> None:
    reports = [
        made(cents),
        made(gone, version="2"),
        made(version="3"),
        made(n=10, version="4"),
        unwatched(),
    ]
    page = parse(make_page(reports))
    assert not page.fetched
    assert len(page.ids) == len(set(page.ids))
    states = [title.partition(": ")[2] for title in page.texts("h2")]
    assert states == ["warning", "broken pipeline", "stable", "warming", "not watched"]
    # A title for each plot and each bar: readers who cannot see them are told.
    assert len([t for t in page.texts("title") if "share of rows per" in t]) == 3 * 5
    charts = [t for t in page.texts("title") if t.startswith("Drift scores of features")]
    assert len(charts) == 2  # of those where something moved
    assert "Highest: amount 0.9" in charts[0]
    assert "Nothing: 4 features at 0." in page.texts("p")
    assert "10 of 600 rows, 60 of 60 seconds" in page.texts("li")
    assert any("missing values in 40.0 % of rows, 0 % before" in li for li in page.texts("li"))
    assert "1 feature that did not move" not in page.texts("summary")
    assert "3 features that did not move" in page.texts("summary")


def test_nothing_to_report_is_a_page_too() -> None:
    assert any("Nothing is watched" in text for text in parse(make_page([])).texts("p"))


def test_names_are_escaped() -> None:
    report = made(cents)
    for one in (*report.features, *report.slow_features):
        one.name = EVIL
        one.note = EVIL
    for share in report.features[2].categories:
        share.name = EVIL
    report.features[2].bin_names[:] = [EVIL] * 4
    report.model = report.state = report.reference_name = EVIL
    report.reasons.append(EVIL)
    page = parse(make_page([report]))
    assert not page.fetched
    assert EVIL in page.texts("h4")[0]
    assert EVIL in page.texts("li")


def test_colour_is_not_the_only_sign() -> None:
    marks = [words.mark for words in figures.WORDS.values()]
    assert len(set(marks)) == len(marks)
    assert set(figures.WORDS) == set(figures.STATES)


def test_every_feature_is_told_where_all_are_asked_for() -> None:
    report = made(cents)
    for i in range(30):
        report.features.add(name=f"x{i}", measure="ks", distance=0.01, score=0.0)
    assert "24 more features: --all" in printed(report)
    assert "x29" not in printed(report)
    text = printed(report, every=True)
    assert "x29" in text
    assert "--all" not in text
    page = make_page([report])
    assert "33 other features: in the table below" in page
    assert page.count(">x29<") == 2  # its card and its row


def test_p_values_are_scipys_and_only_the_missing_ones() -> None:
    report = made(cents)
    amount, foreign = report.features[0], report.features[1]
    theirs = stats.ks_2samp(_sent(), make_reference().values[0], method="asymp")
    assert amount.distance == pytest.approx(theirs.statistic, abs=1e-9)
    assert amount.p_value == pytest.approx(theirs.pvalue, abs=1e-9)
    foreign.p_value = 0.25
    assert figures.fill_p_values(report)
    assert foreign.p_value == 0.25
    assert all(not math.isnan(one.p_value) for one in report.slow_features)


@pytest.mark.parametrize(
    ("state", "failing"),
    [
        ("warning", {"warning", "retrain", "broken"}),
        ("retrain", {"retrain", "broken"}),
        ("broken", {"broken"}),
    ],
)
def test_what_is_as_grave(state: str, failing: set[str]) -> None:
    found = {one for one in figures.STATES if figures.is_as_grave(pb.DriftReport(state=one), state)}
    assert found == failing


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "–"),
        (0.0, "0"),
        (-3.0, "-3"),
        (1234567.0, "1,234,567"),
        (0.000123456, "0.0001235"),
        (4512.25, "4,512.2"),
        (math.inf, "inf"),
        (3.4e38, "3.4e+38"),
    ],
)
def test_numbers_are_as_people_write_them(value: float, text: str) -> None:
    assert figures.number(value) == text


def test_plots_bear_what_is_odd() -> None:
    one = pb.FeatureDrift(name="x", bin_edges=[1.0], reference_counts=[0, 0], window_counts=[0, 0])
    assert "now none" in plots.plot(one)
    one = pb.FeatureDrift(
        name="c",
        bin_names=[f"c{i}" for i in range(20)],
        reference_counts=[1] * 20,
        window_counts=[0] * 19 + [5],
    )
    assert "(9 more)" in plots.plot(one)
    assert not plots.has_plot(pb.FeatureDrift(name="empty"))
