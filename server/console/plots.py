"""Plots of quality: scores against what came, and how scores are distributed.

Rules: a plot keeps its proportions, so that it can hold letters; the style sheet bounds its width.
Both axes of scores are logarithmic, whole decades up to 1, and the same in both plots of a version.
Whoever cannot see a plot hears its title (what it says) and its description (its numbers).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from server.console.curves import Curves
from server.console.tree import Element, element, short
from server.console.words import share, text
from server.feedback.quality.reports import CalibrationGroup

WIDTH, HEIGHT = 340.0, 234.0
LEFT, RIGHT, BOTTOM = 52.0, 332.0, 194.0
TOP = 20.0  # below the vertical axis' name
ROW = 12.0  # of a threshold's name, above the box
MAX_ROWS = 3
MAX_LABELS = 5  # beside the first one
MAX_NAME = 16
LEAST = 0.1  # of the logarithmic axis of decisions, where a bar has less than one


class Axis(NamedTuple):
    """A logarithmic axis from 10 ** low to 10 ** high."""

    low: int
    high: int
    start: float  # of the drawing
    end: float

    def place(self, value: float) -> float:
        """Return where a value stands; at an end what lies beyond it."""
        if value <= 0:
            return self.start
        at = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, at))

    def decades(self) -> Iterator[tuple[float, str]]:
        """Yield places and labels; some are empty, where there is no room for all."""
        step = 1 + (self.high - self.low) // (MAX_LABELS + 1)
        for decade in range(self.high, self.low - 1, -1):
            value = 10.0**decade
            label = f"{value:,.0f}" if decade >= 0 else f"{value:.{-decade}f}"
            yield self.place(value), "" if (self.high - decade) % step else label


def calibration(name: str, curves: Curves) -> Element:
    """Draw the mean score of each group against the share of positives, with its interval."""
    across = Axis(curves.decade, 0, LEFT, RIGHT)
    up = Axis(curves.decade, 0, BOTTOM, TOP)
    whiskers: dict[bool, list[str]] = {True: [], False: []}
    dots: dict[bool, list[str]] = {True: [], False: []}
    hollow: list[str] = []
    for one in curves.groups:
        x, y = short(across.place(one.mean_score)), short(up.place(one.positive_share))
        within = is_within(one)
        if not math.isnan(one.low):
            whiskers[within].append(f"M{x} {short(up.place(one.low))}V{short(up.place(one.high))}")
        dots[within].append(f"M{x} {y}h0")
        if not one.positive_share > 0:
            hollow.append(f"M{x} {y}h0")
    return _plot(
        f"Calibration of {name}: {in_words(curves.groups)}",
        "; ".join(map(_group, curves.groups)),
        _frame(across, up, TOP, "mean score", "share of positives"),
        element("line", class_="diagonal", x1=LEFT, y1=BOTTOM, x2=RIGHT, y2=TOP),
        _path("whisker", whiskers[True]),
        _path("whisker off", whiskers[False]),
        _path("dot", dots[True]),
        _path("dot off", dots[False]),
        _path("hole", hollow),
    )


def is_within(one: CalibrationGroup) -> bool:
    """Whether chance explains how far a group is off: its mean score lies within its interval."""
    return math.isnan(one.low) or one.low <= one.mean_score <= one.high


def in_words(groups: Sequence[CalibrationGroup]) -> str:
    """Return what the plot of calibration says."""
    n = sum(map(is_within, groups))
    return (
        f"in {n} of {len(groups)} groups the mean score lies within the 95 % interval of the share "
        "of positives"
    )


def _group(one: CalibrationGroup) -> str:
    said = f"{one.mean_score:.2g}: {one.positive_share:.2g}"
    return said if math.isnan(one.low) else f"{said} ({one.low:.2g} to {one.high:.2g})"


def distribution(name: str, curves: Curves) -> Element:
    """Draw decisions by score, positives before them, and where thresholds are."""
    rows = min(len(curves.thresholds), MAX_ROWS)
    top = TOP + ROW * rows
    heights = [n for n in (*curves.decisions, *curves.positives) if n >= LEAST]
    highest = max(1, math.ceil(math.log10(max(heights, default=1.0))))
    across = Axis(curves.decade, 0, LEFT, RIGHT)
    # What is one decision high must be seen.
    up = Axis(-1 if min(heights, default=1.0) < 2 else 0, highest, BOTTOM, top)
    marks = []
    for i, one in enumerate(curves.thresholds):
        x = across.place(one.score)
        # Names stand left of their lines, each above the one before: thresholds lie close to each
        # other and to the right end, and no line may cross a name.
        y = top - 3 - ROW * (i % MAX_ROWS)
        marks.append(element("line", class_="threshold", x1=x, x2=x, y1=y - ROW + 3, y2=BOTTOM))
        marks.append(element("text", text(one.name, MAX_NAME), class_="end", x=x - 4, y=y))
    return _plot(
        f"Scores of {name}: {spread(curves)}",
        _by_decade(curves),
        _frame(across, up, top, "score", "decisions per bar"),
        _area("decisions", curves.decisions, across, up),
        _area("positives", curves.positives, across, up),
        *marks,
    )


def spread(curves: Curves) -> str:
    """Return what the plot of scores says."""
    said = [f"median {curves.median:.2g}"]
    for one in curves.thresholds:
        caught = "" if math.isnan(one.caught) else f" and {share(one.caught)} of positives"
        said.append(f"{one.name} from {one.score:.3g}: {share(one.share)} of decisions{caught}")
    return "; ".join(said)


def _by_decade(curves: Curves) -> str:
    """Return decisions and positives of each decade of scores."""
    n = len(curves.decisions) // -curves.decade
    said = []
    for i in range(-curves.decade):
        bars = slice(n * i, n * (i + 1))
        top = 10.0 ** (curves.decade + i + 1)
        held, positive = sum(curves.decisions[bars]), sum(curves.positives[bars])
        said.append(f"up to {top:g}: {held:,.0f} decisions, {positive:,.0f} positive")
    return "; ".join(said)


def _area(kind: str, heights: Sequence[float], across: Axis, up: Axis) -> Element | None:
    """Return bars as one path along their tops."""
    if not any(height > 0 for height in heights):
        return None
    width = (across.end - across.start) / len(heights)
    path = [f"M{short(across.start)} {short(up.start)}"]
    last = ""
    for i, height in enumerate(heights):
        top = f"V{up.place(height):.1f}"
        if top != last:
            # Absolute places: rounding must not add up.
            path.append(f"H{across.start + width * i:.1f}{top}")
        last = top
    path.append(f"H{short(across.end)}V{short(up.start)}z")
    return element("path", class_=kind, d="".join(path))


def _frame(across: Axis, up: Axis, top: float, below: str, above: str) -> Element:
    """Return grid lines, their labels, and the names of the axes."""
    grid = [f"M{short(x)} {short(top)}V{short(BOTTOM)}" for x, _ in across.decades()]
    grid += [f"M{short(LEFT)} {short(y)}H{short(RIGHT)}" for y, _ in up.decades()]
    return element(
        "g",
        element("path", class_="grid", d="".join(grid)),
        element("line", class_="base", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM),
        [
            element("text", label, class_="middle", x=x, y=BOTTOM + 17)
            for x, label in across.decades()
            if label
        ],
        [
            element("text", label, class_="end", x=LEFT - 5, y=y + 4)
            for y, label in up.decades()
            if label
        ],
        element("text", below, class_="end", x=RIGHT, y=BOTTOM + 33),
        element("text", above, x=2, y=10),
    )


def _path(kind: str, parts: Sequence[str]) -> Element | None:
    return element("path", class_=kind, d="".join(parts)) if parts else None


def _plot(title: str, description: str, *body: Element | None) -> Element:
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *body,
        role="img",
        class_="plot",
        viewBox=f"0 0 {short(WIDTH)} {short(HEIGHT)}",
    )
