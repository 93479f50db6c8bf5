"""Quality by version, arm and cohort: figures with their intervals, and plots of the surest."""

from __future__ import annotations

import math
from itertools import groupby

from server.cli.lines import NONE
from server.console.curves import Curves
from server.console.parts.tables import Column, Row, table
from server.console.plots import calibration, distribution, in_words, spread
from server.console.quality import Metric, Quality, Shown
from server.console.svg import interval
from server.console.tree import Element, element
from server.console.words import clock, count

COHORTS = {
    "matured": "decisions old enough for silence to mean a good one",
    "labelled": "decisions with a report, however young",
    "estimated": "from calibrated scores alone, before outcomes",
}
NAMES = {"auc": "AUC", "brier": "Brier score"}
READING = "Below the dashed line scores promise too much, above it too little. ○: none, or all."
COLUMNS = (
    Column("metric"),
    Column("value", "n"),
    Column("95 %", "n"),
    Column("0 to 1", "draw"),
)


def quality(reports: list[Shown]) -> list[Element]:
    """Return one block for each version in an arm: what is drawn, and its other cohorts beside."""
    if not reports:
        return [
            element(
                "p",
                "No outcomes yet: report them with scoregate outcomes load, or ReportOutcomes.",
                class_="none",
            )
        ]
    return [
        _version(list(mine))
        for _, mine in groupby(
            reports, lambda one: (one.quality.model, one.quality.version, one.quality.arm)
        )
    ]


def _version(cohorts: list[Shown]) -> Element:
    first = next((one for one in cohorts if one.curves), cohorts[0])
    blocks = [_report(one.quality, one.curves) for one in cohorts if one is not first]
    return element(
        "div",
        _report(first.quality, first.curves),
        element("div", blocks) if blocks else None,
        class_="version",
        data_key=_named(first.quality),
    )


def _named(one: Quality) -> str:
    return f"{one.model} {one.version} {one.arm}".strip()


def _report(one: Quality, curves: Curves | None) -> Element:
    name = _named(one)
    counted = f"{count(one.n_decisions, 'decision')}, {count(one.n_labels, 'label')}, "
    counted += f"{one.n_positive:,} positive"
    if not math.isnan(one.n_effective) and round(one.n_effective) not in (0, one.n_labels):
        counted += f", effective {one.n_effective:,.0f}"
    times = ""
    if one.from_time_ms and one.to_time_ms:
        times = f" {clock(one.from_time_ms)} to {clock(one.to_time_ms)} UTC."
    known = [metric for metric in one.metrics if not math.isnan(metric.value)]
    unknown = [_name(metric) for metric in one.metrics if math.isnan(metric.value)]
    caption = f"{counted}.{times} With 95 % intervals."
    return element(
        "article",
        element("h3", name, element("small", one.cohort)),
        element("p", COHORTS.get(one.cohort, one.cohort), class_="note"),
        element("p", "Note: ", one.note, class_="note raised") if one.note else None,
        _plots(f"{name}, {one.cohort}", curves) if curves else None,
        table(caption, COLUMNS, [_metric(metric) for metric in known]) if known else None,
        element("p", f"{counted}. Nothing can be said yet.", class_="none") if not known else None,
        element("p", f"Not known: {', '.join(unknown)}", class_="note")
        if known and unknown
        else None,
        data_key=f"quality {name} {one.cohort}",
    )


def _plots(name: str, curves: Curves) -> Element:
    """Return the drawings, each with what it says."""
    drawn = []
    if curves.groups:
        drawn.append(
            element(
                "div",
                element("h4", "Do scores keep what they promise?"),
                calibration(name, curves),
                element("p", f"{in_words(curves.groups).capitalize()}. {READING}", class_="note"),
            )
        )
    positives = [element("i", class_="key positive", aria_hidden="true"), "positives. "]
    drawn.append(
        element(
            "div",
            element("h4", "How scores are spread"),
            distribution(name, curves),
            element(
                "p",
                element("i", class_="key before", aria_hidden="true"),
                "decisions",
                [" ", *positives] if curves.n_positive else ". ",
                f"{spread(curves).capitalize()}.",
                class_="note",
            ),
        )
    )
    return element("div", drawn, class_="plots")


def _name(one: Metric) -> str:
    name = NAMES.get(one.name, one.name.replace("_", " "))
    return f"{name} {one.threshold}".strip()


def _metric(one: Metric) -> Row:
    name = NAMES.get(one.name, one.name.replace("_", " "))
    value = _figure(one.value)
    known = not (math.isnan(one.low) or math.isnan(one.high))
    said = f"{_figure(one.low)} – {_figure(one.high)}" if known else NONE
    title = f"{_name(one)}: {value}, interval {said}"
    is_share = all(math.isnan(x) or 0 <= x <= 1 for x in (one.value, one.low, one.high))
    return Row(
        [
            [name, element("small", one.threshold) if one.threshold else None],
            value,
            said,
            interval(title, one.value, one.low, one.high) if is_share else NONE,
        ],
        f"{one.name} {one.threshold}",
    )


def _figure(value: float) -> str:
    if math.isnan(value):
        return NONE
    return f"{value:.4f}" if 0 < abs(value) < 0.01 else f"{value:.3f}"
