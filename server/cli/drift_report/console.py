"""A drift report at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from server.bundle.tables import make_table
from server.cli.drift_report import figures
from server.cli.drift_report.figures import change, distance, number, p_value, share
from server.pb.scoregate.v1 import control_pb2 as pb

SHOWN = 10  # features, unless all are asked for
EXPLAINED = 5  # of those over 0
STYLES = {
    "stable": "green",
    "warning": "yellow",
    "retrain": "red",
    "broken": "red",
}
HEADINGS = (
    "feature", "score", "", "distance", "critical", "p", "PSI", "missing", "fallback", "unseen",
)  # fmt: skip


def show(console: Console, reports: Sequence[pb.DriftReport], *, all_features: bool) -> None:
    """Print the reports, one section each."""
    for at, report in enumerate(reports):
        if at:
            console.print()
        for block in _section(report, all_features=all_features):
            console.print(block)


def _section(report: pb.DriftReport, *, all_features: bool) -> Iterator[RenderableType]:
    state = figures.words(report)
    title = Text(f"{report.model} {report.version}", style="bold")
    title.append(": ")
    title.append(f"{state.mark} {state.name}", style=STYLES.get(report.state, ""))
    yield title
    yield Text(f"  {state.advice}")
    if report.state == "unwatched":
        yield Text(f"  why: {report.trouble}")
        return
    for reason in report.reasons:
        yield Text(f"  - {reason}")
    yield Text(f"  score        {figures.head(report)}")
    yield Text(f"  evaluated    {figures.moment(report)}")
    yield Text(f"  reference    {figures.reference(report)}")
    for name, rows, over, score in figures.windows(report):
        yield Text(f"  {name} window  {rows} rows over {over}, score {score}")
    if not report.features:
        return
    ordered = figures.by_score(report)
    shown = ordered if all_features else ordered[:SHOWN]
    yield _features(report, shown)
    if len(shown) < len(ordered):
        yield Text(f"  {len(ordered) - len(shown)} more features: --all")
    yield from _notes(shown)
    moved = [one for one in shown if one.score > 0][:EXPLAINED]
    for one in moved:
        if one.quantiles:
            yield _quantiles(one)
        elif one.categories:
            yield _categories(one)


def _features(report: pb.DriftReport, shown: Sequence[pb.FeatureDrift]) -> Table:
    columns = [*shown, *([report.raw_score] if report.HasField("raw_score") else [])]
    rows = [
        (
            one.name,
            distance(one.score),
            figures.MEASURES.get(one.measure, ""),
            distance(one.distance) + ("*" if one.is_significant else " "),
            distance(one.critical),
            p_value(one.p_value),
            distance(one.psi),
            change(one.missing),
            change(one.fallback),
            change(one.unseen),
        )
        for one in columns
    ]
    table = make_table("", HEADINGS, rows)
    table.title = None
    n_tests = f"{report.n_tests} tests at once, any false alarm in at most {report.alpha:.1%}"
    table.caption = f"* more than chance ({n_tests})"
    table.caption_justify = "left"
    return table


def _notes(shown: Sequence[pb.FeatureDrift]) -> Iterator[Text]:
    for one in shown:
        for part in figures.remarks(one):
            yield Text(f"  {one.name}: {part}")


def _quantiles(one: pb.FeatureDrift) -> Table:
    headings = ("", *(f"{q.percent:g} %" for q in one.quantiles))
    rows = [
        ("before", *(number(q.reference) for q in one.quantiles)),
        ("now", *(number(q.window) for q in one.quantiles)),
    ]
    return make_table(f"{one.name}: quantiles", headings, rows)


def _categories(one: pb.FeatureDrift) -> Table:
    rows = [(c.name, share(c.reference), share(c.window)) for c in one.categories]
    return make_table(f"{one.name}: shares", ("category", "before", "now"), rows)
