"""The report's plots: matplotlib's SVG, in colours that the page decides.

Each function returns one `<svg>` element to stand inside a page. Colours are written as marks that
no palette has and are then replaced by the page's CSS variables, so that one SVG is readable on
a light page and on a dark one; text stays text, in the page's own font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.hdr import Histogram

INK, RULE, PAPER = "#c0de0a", "#c0de0b", "#c0de0c"
SERIES = ["#c0de01", "#c0de02", "#c0de03", "#c0de04", "#c0de05", "#c0de06"]
VARIABLES = {INK: "var(--ink-2)", RULE: "var(--rule)", PAPER: "var(--card)"} | {
    mark: f"var(--s{i + 1})" for i, mark in enumerate(SERIES)
}
# Where "all but one in n" stands on a percentile plot.
QUANTILES = {"50 %": 2, "90 %": 10, "99 %": 100, "99.9 %": 1000, "99.99 %": 10_000}
LEGEND_PAD = 24
HATCH = "////"  # a run that says more about the client than about the server


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError:
        raise BenchError(
            "matplotlib draws the report's plots and is missing: pip install 'scoregate[bench]'"
        ) from None
    mpl.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "scoregate",
            "font.family": "sans-serif",
            "font.size": 9,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": RULE,
            "axes.facecolor": "none",
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "grid.color": RULE,
            "grid.linewidth": 0.6,
            "xtick.color": INK,
            "ytick.color": INK,
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
            "legend.frameon": False,
            "hatch.linewidth": 1.2,
            "lines.linewidth": 1.8,
        }
    )
    return plt


def _svg(plt: Any, figure: Any, label: str) -> str:
    """Return a figure as an element of a page, with names of its own."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for mark, variable in VARIABLES.items():
        text = text.replace(mark, variable)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)
    # Names are unique in a file, not in a page of several.
    prefix = re.sub(r"\W+", "-", label.lower()).strip("-")
    text = re.sub(r'id="', f'id="{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    safe = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{safe}"', 1)


def _new(
    title: str, size: tuple[float, float] = (5.6, 3.0), pad: float = 10
) -> tuple[Any, Any, Any]:
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.set_title(title, pad=pad, fontweight="bold")
    axes.tick_params(length=0)
    return plt, figure, axes


def _legend(axes: Any) -> None:
    """Name the lines above the plot, where no line can be."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.985),
        ncols=4,
        handlelength=1.4,
        columnspacing=1.2,
    )


def _log_scale(plt: Any, axes: Any) -> None:
    """Make the vertical axis logarithmic, with as many numbers as it needs."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    span = high / max(low, 1e-9)
    steps = [1.0, 2.0, 5.0] if span < 300 else [1.0]
    if span < 12:
        steps = [1.0, 1.5, 2.0, 3.0, 5.0, 7.0]
    axes.yaxis.set_major_locator(plt.matplotlib.ticker.LogLocator(subs=steps))
    axes.yaxis.set_minor_locator(plt.NullLocator())
    axes.yaxis.set_major_formatter(lambda y, _: number(y))


def number(value: float) -> str:
    """Return a number as a person writes it: three figures, thousands apart."""
    if value != value:
        return "-"
    if abs(value) < 1e-9:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def quantity(name: str, value: float) -> str:
    """Return a number with its unit where that is bytes; other names say theirs."""
    if name.endswith("bytes") and abs(value) >= 1e6:
        return f"{value / 1e6:.3g} MB"
    return number(value)


def bars(
    title: str,
    rows: Sequence[tuple[str, Sequence[float], bool]],
    axis: str,
    colours: Mapping[str, int],
    label: str,
) -> str:
    """Draw medians as bars, with the repetitions as dots and client-bound runs hatched.

    Parameters
    ----------
    rows
        Name, repetitions, whether client-bound.
    axis
        Name and unit of the quantity.
    """
    plt, figure, axes = _new(title)
    most = max(max(values) for _, values, _ in rows) or 1.0
    for at, (name, values, bound) in enumerate(rows):
        colour = SERIES[colours[name] % len(SERIES)]
        middle = float(np.median(values))
        axes.barh(
            at, middle, 0.6, color="none" if bound else colour, edgecolor=colour, linewidth=1.2,
            hatch=HATCH if bound else None,
        )  # fmt: skip
        axes.plot(values, [at] * len(values), "|", color=INK, markersize=11, markeredgewidth=1.2)
        mark = "  client-bound" if bound else ""
        axes.text(max(middle, *values) + most * 0.02, at, f"{number(middle)}{mark}", va="center")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    rest = max(0, 4 - len(rows)) / 2  # bars of two or three runs need not fill the plot
    axes.set_ylim(len(rows) - 0.5 + rest, -0.5 - rest)
    axes.set_xlim(0, most * 1.35)
    axes.xaxis.set_major_formatter(lambda x, _: number(x))
    axes.set_xlabel(axis)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return _svg(plt, figure, label)


def percentiles(
    title: str, histograms: Mapping[str, Histogram], colours: Mapping[str, int], label: str
) -> str:
    """Draw latency by percentile, each step to the right ten times rarer."""
    plt, figure, axes = _new(title, pad=LEGEND_PAD)
    rarest = 100.0
    for name, histogram in histograms.items():
        last = max(min(histogram.count, 100_000), 10)
        rarest = max(rarest, last)
        n = np.geomspace(1.25, last, 160)
        times = [histogram.percentile(100 * (1 - 1 / x)) / 1e3 for x in n]
        axes.plot(n, times, color=SERIES[colours[name] % len(SERIES)], label=name)
    axes.set_xscale("log")
    _log_scale(plt, axes)
    shown = {text: x for text, x in QUANTILES.items() if x <= rarest}
    axes.set_xticks(list(shown.values()), list(shown))
    axes.xaxis.set_minor_locator(plt.NullLocator())
    axes.set_ylabel("latency, µs")
    _legend(axes)
    return _svg(plt, figure, label)


def over_time(
    title: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    axis: str,
    colours: Mapping[str, int],
    label: str,
    *,
    log: bool = False,
    dashed: Sequence[str] = (),
) -> str:
    """Draw quantities over the seconds of a run."""
    plt, figure, axes = _new(title, pad=LEGEND_PAD)
    for name, (seconds, values) in lines.items():
        base = name.split(" ", 1)[0]
        axes.plot(
            seconds, values, "--" if name in dashed else "-",
            color=SERIES[colours[base] % len(SERIES)],
            label=None if name in dashed else base,
            marker="o" if len(values) < 25 else None, markersize=3,
        )  # fmt: skip
    if log:
        _log_scale(plt, axes)
    else:
        axes.set_ylim(0, 1.2 * max(max(values) for _, values in lines.values()) or 1)
        axes.yaxis.set_major_formatter(lambda y, _: number(y))
    axes.set_xlabel("seconds")
    axes.set_ylabel(axis)
    _legend(axes)
    return _svg(plt, figure, label)


def against_load(
    title: str,
    sweeps: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    colours: Mapping[str, int],
    label: str,
) -> str:
    """Draw p50 and p99 against the offered load; a step that was not kept is a cross."""
    plt, figure, axes = _new(title, pad=LEGEND_PAD)
    for name, repetitions in sweeps.items():
        colour = SERIES[colours[name] % len(SERIES)]
        for i, points in enumerate(repetitions):
            rates = [point["offered_per_s"] for point in points]
            for key, style in (("p99_us", "-"), ("p50_us", ":")):
                text = f"{name} {key[:3]}" if i == 0 else None
                values = [point[key] for point in points]
                axes.plot(rates, values, style, color=colour, label=text, linewidth=1.4)
            for point in points:
                kept = point["kept"]
                axes.plot(
                    point["offered_per_s"], point["p99_us"], "o" if kept else "X", color=colour,
                    markersize=3 if kept else 8,
                )  # fmt: skip
    _log_scale(plt, axes)
    axes.xaxis.set_major_formatter(lambda x, _: number(x))
    axes.set_xlim(left=0)
    axes.set_xlabel("offered calls/s")
    axes.set_ylabel("latency, µs")
    _legend(axes)
    return _svg(plt, figure, label)
