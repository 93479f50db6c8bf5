"""Plots of quality: scores against what came, and how scores are distributed.

Rules: a plot keeps its proportions, so that it can hold letters; the style sheet bounds its width.
Both axes of scores are of log odds, and the same in both plots of a version.
Whoever cannot see a plot hears its title (what it says) and its description (its numbers).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from server.console.curves import Curves, log_odds
from server.console.tree import Element, element, short
from server.console.words import share, text
from server.feedback.quality.reports import CalibrationGroup

WIDTH, HEIGHT = 340.0, 234.0
LEFT, RIGHT, BOTTOM = 52.0, 326.0, 194.0
TOP = 20.0  # below the vertical axis' name
ROW = 12.0  # of a threshold's name, above the box
MAX_ROWS = 3
MAX_LABELS = 6  # of an axis, beside the first one
MAX_NAME = 16
LEAST = 0.1  # of the logarithmic axis of decisions, where a bar has less than one


class Axis(NamedTuple):
    """An axis of decades, of counts or of odds."""

    low: int
    high: int
    start: float  # of the drawing
    end: float

    def place(self, at: float) -> float:
        """Return where a logarithm stands; at an end what lies beyond it."""
        part = (at - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, part))

    def counts(self) -> Iterator[tuple[float, str]]:
        """Yield places and labels of 1, 10, 100 and so on."""
        for decade in self._labelled():
            label = f"{10**decade:,}" if decade >= 0 else f"{10.0**decade:.{-decade}f}"
            yield self.place(decade), label

    def shares(self) -> Iterator[tuple[float, str]]:
        """Yield places and labels of 0.01, 0.1, 0.5, 0.9, 0.99 and so on."""
        for decade in self._labelled():
            value = 0.5 if decade == 0 else 10.0**decade if decade < 0 else 1 - 10.0**-decade
            yield self.place(log_odds(value)), f"{value:.{max(1, abs(decade))}f}"

    def _labelled(self) -> range:
        """Return decades that there is room for."""
        step = 1 + (self.high - self.low) // (MAX_LABELS + 1)
        # 0 is among them where the axis holds it.
        return range(-(-self.low // step) * step, self.high + 1, step)


def calibration(name: str, curves: Curves) -> Element:
    """Draw the mean score of each group against the share of positives, with its interval."""
    across = Axis(curves.low, curves.high, LEFT, RIGHT)
    up = Axis(curves.low, curves.high, BOTTOM, TOP)
    whiskers: dict[bool, list[str]] = {True: [], False: []}
    dots: dict[bool, list[str]] = {True: [], False: []}
    hollow: list[str] = []
    for one in curves.groups:
        x = short(across.place(log_odds(one.mean_score)))
        y, low, high = (
            short(up.place(log_odds(share))) for share in (one.positive_share, one.low, one.high)
        )
        within = is_within(one)
        if not math.isnan(one.low):
            whiskers[within].append(f"M{x} {low}V{high}")
        dots[within].append(f"M{x} {y}h0")
        if not 0 < one.positive_share < 1:
            hollow.append(f"M{x} {y}h0")
    return _plot(
        f"Calibration of {name}: {in_words(curves.groups)}",
        "; ".join(map(_group, curves.groups)),
        _frame(across, TOP, list(up.shares()), "mean score", "share of positives"),
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
    across = Axis(curves.low, curves.high, LEFT, RIGHT)
    # What is one decision high must be seen.
    up = Axis(-1 if min(heights, default=1.0) < 2 else 0, highest, BOTTOM, top)
    marks = []
    for i, one in enumerate(curves.thresholds):
        x = across.place(log_odds(one.score))
        # Names stand left of their lines, each above the one before: thresholds lie close to each
        # other and to the right end, and no line may cross a name.
        y = top - 3 - ROW * (i % MAX_ROWS)
        marks.append(element("line", class_="threshold", x1=x, x2=x, y1=y - ROW + 3, y2=BOTTOM))
        marks.append(element("text", text(one.name, MAX_NAME), class_="end", x=x - 4, y=y))
    return _plot(
        f"Scores of {name}: {spread(curves)}",
        _by_decade(curves),
        _frame(across, top, list(up.counts()), "score", "decisions per bar"),
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
    """Return decisions and positives of each decade of odds."""
    n_decades = curves.high - curves.low
    n = len(curves.decisions) // n_decades
    said = []
    for i in range(n_decades):
        bars = slice(n * i, n * (i + 1))
        odds = 10.0 ** (curves.low + i + 1)
        held, positive = sum(curves.decisions[bars]), sum(curves.positives[bars])
        end = f"up to {odds / (1 + odds):.2g}" if i + 1 < n_decades else "more"
        said.append(f"{end}: {held:,.0f} decisions, {positive:,.0f} positive")
    return "; ".join(said)


def _area(kind: str, heights: Sequence[float], across: Axis, up: Axis) -> Element | None:
    """Return bars as one path along their tops."""
    if not any(height > 0 for height in heights):
        return None
    width = (across.end - across.start) / len(heights)
    path = [f"M{short(across.start)} {short(up.start)}"]
    last = ""
    for i, height in enumerate(heights):
        top = f"V{up.place(math.log10(height) if height > 0 else -math.inf):.1f}"
        if top != last:
            # Absolute places: rounding must not add up.
            path.append(f"H{across.start + width * i:.1f}{top}")
        last = top
    path.append(f"H{short(across.end)}V{short(up.start)}z")
    return element("path", class_=kind, d="".join(path))


def _frame(
    across: Axis, top: float, levels: Sequence[tuple[float, str]], below: str, above: str
) -> Element:
    """Return grid lines, their labels, and the names of the axes."""
    scores = list(across.shares())
    grid = [f"M{short(x)} {short(top)}V{short(BOTTOM)}" for x, _ in scores]
    grid += [f"M{short(LEFT)} {short(y)}H{short(RIGHT)}" for y, _ in levels]
    return element(
        "g",
        element("path", class_="grid", d="".join(grid)),
        element("line", class_="base", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM),
        [element("text", label, class_="middle", x=x, y=BOTTOM + 17) for x, label in scores],
        [element("text", label, class_="end", x=LEFT - 5, y=y + 4) for y, label in levels],
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
