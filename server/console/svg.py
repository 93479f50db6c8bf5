"""Small drawings of our own: lines over time, shares, histograms, intervals.

Rules: a drawing says in its title what it shows, so it can be heard as well as seen; what it tells
stands beside it as figures, too. Drawings stretch to the width that they are given, so they hold no
letters; lines keep their width (the style sheet's `vector-effect`). Colours are classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from server.cli.drift_report.figures import number
from server.console.history import SPAN_S
from server.console.traffic import Point
from server.console.tree import Element, element, short
from server.console.words import share
from server.drift import Histogram

SPARK_HEIGHT = 40.0
STEP_S = 5.0
GAP_S = 65.0  # nobody looked for longer, not even a scrape each minute: no line


def drawing(title: str, width: float, height: float, *body: Element | None, kind: str) -> Element:
    """Return a drawing that stretches."""
    return element(
        "svg",
        element("title", title),
        *body,
        role="img",
        class_=kind,
        viewBox=f"0 0 {short(width)} {short(height)}",
        preserveAspectRatio="none",
    )


def over_time(title: str, points: Sequence[Point], values: Sequence[float]) -> Element:
    """Draw values of the last five minutes; `values` belong to the points, NaN: none."""
    known = [value for value in values if not math.isnan(value)]
    top = max(known, default=0.0) or 1.0
    line: list[str] = []
    area: list[str] = []
    run: list[str] = []
    begun = 0.0

    def close() -> None:
        if run:
            line.append(f"M{' '.join(run)}")
            area.append(f"M{begun:.0f} {SPARK_HEIGHT:g}L{' '.join(run)}V{SPARK_HEIGHT:g}Z")
            run.clear()

    for from_s, to_s, value in _thinned(points, values):
        if math.isnan(value) or from_s - to_s > GAP_S:
            close()
            continue
        y = 1 + (SPARK_HEIGHT - 2) * (1 - value / top)
        if not run:
            begun = SPAN_S - min(from_s, SPAN_S)
            run.append(f"{begun:.0f} {y:.0f}")
        run.append(f"{SPAN_S - to_s:.0f} {y:.0f}")
    close()
    return drawing(
        title,
        SPAN_S,
        SPARK_HEIGHT,
        element("path", class_="area", d="".join(area)) if area else None,
        element("path", class_="line", d="".join(line)) if line else None,
        kind="spark",
    )


def _thinned(
    points: Sequence[Point], values: Sequence[float]
) -> Iterator[tuple[float, float, float]]:
    """Yield (from, to, value): of intervals that would be narrower than STEP_S the largest value.

    Steps are counted from now, so that what is drawn moves as a whole.
    """
    kept: tuple[float, float, float] | None = None
    for point, value in zip(points, values, strict=True):
        if kept is not None and point.to_s // STEP_S == kept[1] // STEP_S:
            larger = value if math.isnan(kept[2]) or value > kept[2] else kept[2]
            kept = (kept[0], point.to_s, larger)
            continue
        if kept is not None:
            yield kept
        kept = (point.from_s, point.to_s, value)
    if kept is not None:
        yield kept


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


def score(value: float, warn: float, retrain: float) -> Element | None:
    """Draw a drift score, 0 to 1; nothing where there is none. Its figure stands beside it."""
    if not value > 0:
        return None
    kind = "calm"
    if value >= warn:
        kind = "grave" if value >= retrain else "raised"
    return element(
        "svg",
        element("rect", class_="track", width=100, height=6),
        element("rect", class_=kind, width=100 * min(1.0, value), height=6),
        class_="score",
        aria_hidden="true",
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
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
    height = 90 if is_large else 30

    def steps(parts: Sequence[float]) -> str:
        """Return a path along the tops of the bins, in whole units: they are finer than pixels."""
        levels = [1 + round((height - 2) * (1 - part / top)) for part in parts]
        path = [f"{levels[0]}h9"]
        for last, level in pairwise(levels):
            path.append(f"v{level - last}h9" if level != last else "h9")
        return "".join(path)

    width = 9 * len(before)
    return drawing(
        f"{name}, before and now: {in_words(histogram)}",
        width,
        height,
        element("path", class_="before", d=f"M0 {height}V{steps(before)}V{height}z"),
        element("path", class_="now", d=f"M0 {steps(now)}") if any(now) else None,
        element("line", class_="axis", x1=0, x2=width, y1=height, y2=height) if is_large else None,
        kind="bins large" if is_large else "bins",
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
