"""The page's plots: SVG that stretches with the page while its letters keep their size.

Widths and places across are in percent, heights and letters in pixels, so one plot is readable on
a phone and on a wide screen. Colours are the page's: classes, no values. Each plot has a title for
those who cannot see it, and each bar one that says its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from server.cli.drift_report.figures import distance, number, share
from server.pb.scoregate.v1 import control_pb2 as pb

LEFT, RIGHT = 10.0, 99.0  # where a histogram's plot begins and ends, in percent
TOP, HEIGHT, BOTTOM = 10, 130, 22  # pixels
ROW = 34  # pixels of a row of names and bars
MOST_SCORES = 20
MOST_CATEGORIES = 12
NAME_LETTERS = 46


def _svg(height: float, title: str, body: Sequence[str]) -> str:
    safe = escape(title)
    return (
        f'<svg class=plot role=img aria-label="{safe}" width="100%" height="{height:g}">'
        f"<title>{safe}</title>{''.join(body)}</svg>"
    )


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class={kind} x="{x:.3f}%" y="{y:.1f}" width="{max(0.0, width):.3f}%" '
        f'height="{max(0.0, height):.1f}"/>'
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class={kind} x1="{x1:.3f}%" y1="{y1:.1f}" x2="{x2:.3f}%" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    name = f" class={kind}" if kind else ""
    return f'<text{name} x="{x:.3f}%" y="{y:.1f}" text-anchor={anchor}>{escape(text)}</text>'


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts] if total else [0.0] * len(counts)


def has_plot(one: pb.FeatureDrift) -> bool:
    """Whether there are counts to draw."""
    return bool(one.reference_counts) and bool(one.bin_names or one.bin_edges)


def plot(one: pb.FeatureDrift) -> str:
    """Draw a column before and now: a histogram, or paired bars of categories."""
    return categories(one) if one.bin_names else histogram(one)


def histogram(one: pb.FeatureDrift) -> str:
    """Draw a number's bins: the reference filled, the fast window over it, the slow one as steps.

    Bins are equally wide on the page; the first and the last are open.
    """
    before, now = _shares(one.reference_counts), _shares(one.window_counts)
    day = _shares(one.slow_counts) if sum(one.slow_counts) else []
    top = _round_up(max([*before, *now, *day, 0.01]))
    step = (RIGHT - LEFT) / len(before)

    def y(value: float) -> float:
        return TOP + HEIGHT * (1 - value / top)

    body = []
    for part in (0.0, 0.5, 1.0):
        at = y(part * top)
        body.append(_line("grid", LEFT, at, RIGHT, at))
        body.append(_text(LEFT - 1, at + 4, _percent(part * top), "axis", "end"))
    for i, (old, new) in enumerate(zip(before, now, strict=True)):
        x = LEFT + i * step
        told = f"{_bin(one.bin_edges, i)}: before {share(old)}, now {share(new)}"
        steps = ""
        if day:
            told += f", slow window {share(day[i])}"
            steps = _line("slow", x, y(day[i]), x + step, y(day[i]))
        body.append(
            f"<g class=bin><title>{escape(told)}</title>"
            + _rect("hit", x, TOP, step, HEIGHT)
            + _rect("before", x + 0.04 * step, y(old), 0.92 * step, TOP + HEIGHT - y(old))
            + _rect("now", x + 0.22 * step, y(new), 0.56 * step, TOP + HEIGHT - y(new))
            + f"{steps}</g>"
        )
    base = TOP + HEIGHT
    body.append(_line("base", LEFT, base, RIGHT, base))
    for i in _ticks(len(one.bin_edges)):
        x = LEFT + (i + 1) * step
        body.append(_line("base", x, base, x, base + 4))
        body.append(_text(x, base + 17, _tick(one.bin_edges[i]), "axis", "middle"))
    title = (
        f"{one.name}: share of rows per bin, before and now. "
        f"Median bin before {_median(one.bin_edges, before)}, now {_median(one.bin_edges, now)}."
    )
    return _svg(TOP + HEIGHT + BOTTOM, title, body)


def _bin(edges: Sequence[float], i: int) -> str:
    if i == 0:
        return f"up to {number(edges[0])}"
    if i == len(edges):
        return f"over {number(edges[-1])}"
    return f"over {number(edges[i - 1])}, up to {number(edges[i])}"


def _median(edges: Sequence[float], shares: Sequence[float]) -> str:
    if not sum(shares):
        return "none"
    total = 0.0
    for i, one in enumerate(shares):
        total += one
        if total >= 0.5:
            return _bin(edges, i)
    return _bin(edges, len(shares) - 1)


def _ticks(n_edges: int) -> list[int]:
    """Return which edges are named: at most five, the outer ones too."""
    if n_edges <= 5:
        return list(range(n_edges))
    return sorted({round(i * (n_edges - 1) / 4) for i in range(5)})


def categories(one: pb.FeatureDrift) -> str:
    """Draw shares of categories as pairs of bars, the most frequent ones."""
    before, now = _shares(one.reference_counts), _shares(one.window_counts)
    rows = list(zip(one.bin_names, before, now, strict=True))
    # What is nowhere needs no bar, and "unseen" is nearly always nowhere.
    rows = [row for row in rows if row[1] or row[2]]
    if len(rows) > MOST_CATEGORIES:
        order = sorted(rows, key=lambda row: -max(row[1:]))
        kept = {name for name, _, _ in order[: MOST_CATEGORIES - 1]}
        rest = [row for row in rows if row[0] not in kept]
        rows = [row for row in rows if row[0] in kept]
        rows.append((f"({len(rest)} more)", sum(r[1] for r in rest), sum(r[2] for r in rest)))
    top = max([*before, *now, 0.01])
    body = []
    for i, (name, old, new) in enumerate(rows):
        y = 4 + i * (ROW + 4)
        told = f"{share(old)} → {share(new)}"
        body.append(
            f"<g class=bin><title>{escape(f'{name}: before {share(old)}, now {share(new)}')}"
            "</title>"
            + _text(0, y + 10, _short(name))
            + _text(100, y + 10, told, "axis", "end")
            + _rect("before", 0, y + 15, 100 * old / top, 8)
            + _rect("now", 0, y + 24, 100 * new / top, 8)
            + "</g>"
        )
    title = f"{one.name}: share of rows per category, before and now."
    return _svg(8 + len(rows) * (ROW + 4), title, body)


def scores(report: pb.DriftReport, features: Sequence[pb.FeatureDrift]) -> str:
    """Draw the scores of the first features as bars, with the limits as lines."""
    shown = features[:MOST_SCORES]
    height = 22 + len(shown) * ROW
    body = []
    for limit, name in ((report.warn, "warning"), (report.retrain, "retrain")):
        x = 100 * limit
        body.append(_line(f"limit-{name}", x, 15, x, 20))
        body.append(_text(x, 11, f"{name} {limit:g}", "axis", "start" if x < 80 else "end"))
    for i, one in enumerate(shown):
        y = 22 + i * ROW
        kind = "calm"
        if one.score >= report.warn:
            kind = "grave" if one.score >= report.retrain else "raised"
        told = f"{one.name}: score {distance(one.score)}"
        body.append(
            f"<g class=bin><title>{escape(told)}</title>"
            + _text(0, y + 12, _short(one.name))
            + _text(100, y + 12, distance(one.score), "value", "end")
            + _rect("track", 0, y + 17, 100, 9)
            + _rect(kind, 0, y + 17, 100 * min(1.0, one.score), 9)
            + _line("limit-warning", 100 * report.warn, y + 15, 100 * report.warn, y + 28)
            + _line("limit-retrain", 100 * report.retrain, y + 15, 100 * report.retrain, y + 28)
            + "</g>"
        )
    title = (
        f"Drift scores of features, 0 to 1; warning from {report.warn:g}, retrain from "
        f"{report.retrain:g}. Highest: "
        + ", ".join(f"{one.name} {distance(one.score)}" for one in shown[:3])
    )
    return _svg(height + 4, title, body)


def _short(name: str) -> str:
    return name if len(name) <= NAME_LETTERS else name[: NAME_LETTERS - 1] + "…"


def _tick(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:g} %"


def _round_up(value: float) -> float:
    """Return the next of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * power >= value * 0.999)
