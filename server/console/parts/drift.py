"""Drift: each version's state and why, its worst feature large, every feature in a table."""

from __future__ import annotations

import math
from collections.abc import Iterator

from server.cli.drift_report.figures import WORDS, distance, number
from server.cli.lines import NONE, span
from server.console.drift import Drawn, Drift, Feature, Rate, Window
from server.console.parts.tables import Column, Row, table
from server.console.svg import before_and_now, in_words
from server.console.svg import score as draw_score
from server.console.tree import Child, Element, element
from server.console.words import clock, count, iso, share
from server.drift import Histogram

KINDS = {"stable": "good", "warning": "warn", "retrain": "bad", "broken": "bad"}
OPEN_ROWS = 8  # features that are shown without being asked for
LEGEND = "Before is filled, now is the line; * is more than chance."
COLUMNS = (
    Column("feature"),
    Column("score", "n"),
    Column("0 to 1", "draw thin"),
    Column("before and now", "draw"),
    Column("median", "n"),
    Column("changed rates", "wide"),
)


def drift(found: list[Drawn], *, is_watched: bool) -> list[Element]:
    """Return one block for each version."""
    if not is_watched:
        return [element("p", "Drift is not monitored: drift.enabled is false.", class_="none")]
    if not found:
        return [element("p", "Nothing is watched yet.", class_="none")]
    return [_version(one) for one in found]


def _version(drawn: Drawn) -> Element:
    one = drawn.drift
    words = WORDS[one.state]
    name = f"{one.model} {one.version}"
    return element(
        "article",
        element(
            "h3",
            name,
            element(
                "span", f"{words.mark} {words.name}", class_=f"tag {KINDS.get(one.state, 'quiet')}"
            ),
        ),
        element("p", words.advice, class_="note"),
        _why(one),
        _scale(one) if one.state != "unwatched" else None,
        _worst(drawn),
        list(_features(drawn)),
        data_key=f"drift {name}",
    )


def _why(one: Drift) -> Child:
    reasons = [one.trouble] if one.trouble else one.reasons
    return element("ul", [element("li", reason) for reason in reasons]) if reasons else None


def _scale(one: Drift) -> Element:
    value = f"{one.score:.3f}" if not math.isnan(one.score) else "none yet"
    facts: list[tuple[str, Child]] = [
        (
            "score",
            [
                element("strong", value),
                f" (warning from {one.warn:g}, retrain from {one.retrain:g})",
            ],
        ),
        ("fast window", _window(one.fast)),
        ("slow window", _window(one.slow)),
        ("compared with", f"{one.n_reference:,} rows, {one.reference}"),
    ]
    if one.evaluated_time_ms:
        when = element(
            "time", f"{clock(one.evaluated_time_ms)} UTC", datetime=iso(one.evaluated_time_ms)
        )
        facts.append(("evaluated", when))
    return element(
        "dl",
        [element("div", element("dt", name), element("dd", value)) for name, value in facts],
        class_="facts",
    )


def _window(window: Window) -> str:
    said = f"{count(window.n_rows, 'row')}, {span(window.span_s)}"
    if not math.isnan(window.score):
        said += f", score {window.score:.3f}"
    return said if window.is_ready else f"{said} (filling)"


def _worst(drawn: Drawn) -> Child:
    """Return the feature that drifted the most, where one did, drawn large."""
    if not drawn.drift.features:
        return None
    one, histogram = drawn.drift.features[0], drawn.histograms[0]
    if not one.score > 0 or histogram is None or not len(histogram.reference):
        return None
    return element(
        "div",
        element("h4", f"Worst: {one.name}", element("span", distance(one.score), class_="n")),
        before_and_now(one.name, histogram, is_large=True),
        element("p", *_ends(histogram), class_="ends", aria_hidden="true"),
        element(
            "p",
            element("i", class_="key before", aria_hidden="true"),
            "before (reference) ",
            element("i", class_="key now", aria_hidden="true"),
            "now (fast window). ",
            f"{in_words(histogram).capitalize() if not histogram.names else in_words(histogram)}.",
            class_="note",
        ),
        class_="worst",
    )


def _ends(histogram: Histogram) -> Iterator[Element]:
    """Yield what stands below the drawing's ends."""
    if histogram.names:
        names = (histogram.names[0], histogram.names[-1])
    elif len(histogram.edges):
        edges = histogram.edges
        names = (f"≤ {number(float(edges[0]))}", f"> {number(float(edges[-1]))}")
    else:
        return
    yield from (element("span", name) for name in names)


def _features(drawn: Drawn) -> Iterator[Element]:
    one = drawn.drift
    if not one.features:
        return
    rows = [
        _row(feature, histogram, one)
        for feature, histogram in zip(one.features, drawn.histograms, strict=True)
    ]
    name = f"{one.model} {one.version}"
    yield table(f"Features of {name}, the worst first. {LEGEND}", COLUMNS, rows[:OPEN_ROWS])
    if len(rows) > OPEN_ROWS:
        yield element(
            "details",
            element("summary", f"{count(len(rows) - OPEN_ROWS, 'more row')}"),
            table(f"The other features of {name}.", COLUMNS, rows[OPEN_ROWS:]),
            data_key="rest",
        )
    if one.n_left_out:
        left = count(one.n_left_out, "feature")
        yield element("p", f"{left} that drifted less: scoregate drift report --all", class_="note")


def _row(one: Feature, histogram: Histogram | None, of: Drift) -> Row:
    drawn: Child = NONE
    if histogram is not None and len(histogram.reference):
        drawn = before_and_now(one.name, histogram, is_large=False)
    remarks = [_rate(rate) for rate in one.rates]
    if one.is_stuck:
        remarks.append("stands still")
    if one.note:
        remarks.append(one.note)
    kind = ""
    if one.score >= of.warn:
        kind = "grave" if one.score >= of.retrain else "raised"
    is_off = one.monitor == "off"
    return Row(
        [
            one.name,
            "not watched" if is_off else distance(one.score) + ("*" if one.is_significant else ""),
            draw_score(one.score, of.warn, of.retrain),
            drawn,
            _median(one),
            "; ".join(remarks),
        ],
        one.name,
        kind,
    )


def _median(one: Feature) -> str:
    if math.isnan(one.median_before) and math.isnan(one.median_now):
        return NONE
    return f"{number(one.median_before)} → {number(one.median_now)}"


def _rate(rate: Rate) -> str:
    mark = "▲ " if rate.is_significant else ""
    return f"{mark}{rate.name} {share(rate.before)} → {share(rate.now)}"
