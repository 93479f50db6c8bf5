"""Small drawings of our own: lines over time, shares, histograms, intervals.

Rules: a drawing says in its title what it shows, so it can be heard as well as seen; what it tells
stands beside it as figures, too. Drawings stretch to the width that they are given, so they hold no
letters; lines keep their width (the style sheet's `vector-effect`). Colours are classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.cli.drift_report.figures import number
from server.console.history import SPAN_S
from server.console.traffic import Point
from server.console.tree import Element, element, short
from server.console.words import share
from server.drift import Histogram

GAP_S = 65.0  # nobody looked for longer, not even a scrape each minute: no line


def drawing(
    title: str, width: float, height: float, *body: Element | None, kind: str = "", about: str = ""
) -> Element:
    """Return a drawing that stretches."""
    return element(
        "svg",
        element("title", title),
        element("desc", about) if about else None,
        *body,
        role="img",
        class_=kind or None,
        viewBox=f"0 0 {short(width)} {short(height)}",
        preserveAspectRatio="none",
    )


def over_time(title: str, points: Sequence[Point], values: Sequence[float]) -> Element:
    """Draw values of the last five minutes; `values` belong to the points, NaN: none."""
    width, height = SPAN_S, 28.0
    known = [value for value in values if not math.isnan(value)]
    top = max(known, default=0.0) or 1.0
    line: list[str] = []
    area: list[str] = []
    run: list[tuple[float, float]] = []

    def close() -> None:
        if run:
            steps = " ".join(f"{short(x)} {short(y)}" for x, y in run)
            line.append(f"M{steps}")
            area.append(f"M{short(run[0][0])} {short(height)}L{steps}V{short(height)}Z")
            run.clear()

    for point, value in zip(points, values, strict=True):
        if math.isnan(value) or point.from_s - point.to_s > GAP_S:
            close()
            continue
        y = 1 + (height - 2) * (1 - value / top)
        if not run:
            run.append((width - min(point.from_s, SPAN_S), y))
        run.append((width - point.to_s, y))
    close()
    return drawing(
        title,
        width,
        height,
        element("path", class_="area", d="".join(area)) if area else None,
        element("path", class_="line", d="".join(line)) if line else None,
        kind="spark",
    )


def shares(title: str, parts: Sequence[tuple[str, float]]) -> Element:
    """Draw shares of a whole as one bar; parts are (class, share)."""
    at = 0.0
    body = []
    for kind, part in parts:
        if part > 0:
            body.append(element("rect", class_=kind, x=100 * at, y=0, width=100 * part, height=10))
            at += part
            body.append(element("line", class_="cut", x1=100 * at, x2=100 * at, y1=0, y2=10))
    return drawing(title, 100, 10, *body[:-1], kind="bar")


def score(title: str, value: float, warn: float, retrain: float) -> Element:
    """Draw a drift score, 0 to 1, with its two limits."""
    kind = "calm"
    if value >= warn:
        kind = "grave" if value >= retrain else "raised"
    known = 0.0 if math.isnan(value) else min(1.0, value)
    return drawing(
        title,
        100,
        10,
        element("rect", class_="track", x=0, y=2, width=100, height=6),
        element("rect", class_=kind, x=0, y=2, width=100 * known, height=6),
        element("line", class_="limit", x1=100 * warn, x2=100 * warn, y1=0, y2=10),
        element("line", class_="limit", x1=100 * retrain, x2=100 * retrain, y1=0, y2=10),
        kind="score",
    )


def interval(title: str, value: float, low: float, high: float) -> Element:
    """Draw a figure between 0 and 1 with its interval."""

    def place(x: float) -> float:
        return 100 * min(1.0, max(0.0, x))

    body = [element("line", class_="axis", x1=0, x2=100, y1=5, y2=5)]
    if not (math.isnan(low) or math.isnan(high)):
        body.append(
            element(
                "rect", class_="range", x=place(low), y=2, height=6,
                width=max(0.5, place(high) - place(low)),
            )
        )  # fmt: skip
    if not math.isnan(value):
        x = place(value)
        body.append(element("line", class_="value", x1=x, x2=x, y1=0, y2=10))
    return drawing(title, 100, 10, *body, kind="interval")


def before_and_now(name: str, histogram: Histogram, *, is_large: bool) -> Element:
    """Draw a column before (filled) and now (a line), each bin equally wide."""
    before, now = portions(histogram.reference), portions(histogram.window)
    top = max([*before, *now, 1e-9])
    height = 60.0 if is_large else 22.0

    def steps(parts: Sequence[float]) -> str:
        return "".join(
            f"{'L' if i else ''}{short(10 * i)} {short(y)}h10"
            for i, y in enumerate(1 + (height - 2) * (1 - part / top) for part in parts)
        )

    width = 10.0 * max(1, len(before))
    return drawing(
        f"{name}: share of rows per bin, before and now",
        width,
        height,
        element("path", class_="before", d=f"M0 {short(height)}L{steps(before)}V{short(height)}Z"),
        element("path", class_="now", d=f"M{steps(now)}") if any(now) else None,
        element("line", class_="axis", x1=0, x2=width, y1=height, y2=height) if is_large else None,
        kind="bins large" if is_large else "bins",
        about=in_words(histogram),
    )


def portions(counts: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Return counts as shares."""
    total = float(sum(counts))
    return [float(count) / total if total else 0.0 for count in counts]


def in_words(histogram: Histogram) -> str:
    """Return what a histogram shows: the middle bins, or the categories that changed most."""
    before, now = portions(histogram.reference), portions(histogram.window)
    if histogram.names:
        rows = sorted(
            zip(histogram.names, before, now, strict=True), key=lambda row: -abs(row[1] - row[2])
        )
        return "; ".join(f"{name} {share(old)} → {share(new)}" for name, old, new in rows[:4])
    return f"middle bin before {_middle(histogram, before)}, now {_middle(histogram, now)}"


def _middle(histogram: Histogram, parts: Sequence[float]) -> str:
    edges = histogram.edges
    if not sum(parts) or not len(edges):
        return "none"
    total, at = 0.0, len(parts) - 1
    for i, part in enumerate(parts):
        total += part
        if total >= 0.5:
            at = i
            break
    if at == 0:
        return f"up to {number(float(edges[0]))}"
    if at == len(edges):
        return f"over {number(float(edges[-1]))}"
    return f"{number(float(edges[at - 1]))} to {number(float(edges[at]))}"
