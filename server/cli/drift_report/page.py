"""A drift report as one HTML page with everything in it: no network, no script.

Style is inline CSS, plots are inline SVG. Light or dark is the reader's choice. States are told by
mark and word, not by colour alone. Everything that comes from the server is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files

from server.cli.drift_report import figures, plots
from server.cli.drift_report.figures import change, distance, number, p_value
from server.cli.lines import NONE, utc
from server.pb.scoregate.v1 import control_pb2 as pb

# `default-src 'none'`: not even a browser that is asked to fetches anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
HEADINGS = (
    "feature", "score", "measure", "distance", "critical", "p", "PSI", "slow window", "missing",
    "fallback", "unseen",
)  # fmt: skip
LEGEND = (
    "<p class=legend><span><i class=key-before></i>before (reference)</span>"
    "<span><i class=key-now></i>now (fast window)</span>"
    "<span><i class=key-slow></i>slow window</span></p>"
)


@cache
def _style() -> str:
    return files(__package__).joinpath("page.css").read_text("utf-8")


def make_page(reports: Sequence[pb.DriftReport]) -> str:
    """Return the page: one section per version."""
    names = [f"{one.model} {one.version}" for one in reports]
    title = f"Drift of {', '.join(names[:3])}{' …' if len(names) > 3 else ''}" if names else "Drift"
    taken = utc(max(one.now_ms for one in reports)) if reports else ""
    contents = ""
    if len(reports) > 1:
        links = "".join(
            f'<a href="#v{at}">{figures.words(one).mark} {escape(name)}</a>'
            for at, (name, one) in enumerate(zip(names, reports, strict=True))
        )
        contents = f"<nav aria-label=Versions>{links}</nav>"
    body = "".join(_section(one, at) for at, one in enumerate(reports))
    if not reports:
        body = "<section><p>Nothing is watched: no version takes part.</p></section>"
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_style()}</style></head><body>"
        f"<header><p class=brand>Scoregate drift report</p><h1>{escape(title)}</h1>"
        f"<p class=note>{escape(taken)}</p>{contents}</header><main>{body}</main></body></html>\n"
    )


def _section(report: pb.DriftReport, at: int) -> str:
    state = figures.words(report)
    known = report.state if report.state in figures.WORDS else "unwatched"
    title = f"{escape(f'{report.model} {report.version}')}: {escape(state.name)}"
    parts = [
        f"<section id=v{at} aria-labelledby=v{at}-title>",
        f'<div class="state {known}"><span class=mark aria-hidden=true>{state.mark}</span>',
        f"<div><h2 id=v{at}-title>{title}</h2><p>{escape(state.advice)}</p></div>",
        f"{_score(report)}</div>",
    ]
    if report.trouble:
        parts.append(f"<p><b>Why:</b> {escape(report.trouble)}</p>")
    if report.reasons:
        lines = "".join(f"<li>{escape(reason)}</li>" for reason in report.reasons)
        parts.append(f"<ul class=reasons>{lines}</ul>")
    if report.state != "unwatched":
        parts.append(_facts(report))
    if report.features:
        parts.append(_features(report, at))
    return "".join(parts) + "</section>"


def _score(report: pb.DriftReport) -> str:
    if math.isnan(report.score):
        return ""
    return f"<p class=score><b>{distance(report.score)}</b><span>drift score</span></p>"


def _facts(report: pb.DriftReport) -> str:
    facts = [("Evaluated", figures.moment(report)), ("Compared with", figures.reference(report))]
    facts += [
        (f"{name.capitalize()} window", f"{rows} rows over {over}, score {score}")
        for name, rows, over, score in figures.windows(report)
    ]
    if report.n_tests:
        facts.append(("Score", figures.head(report)))
        alarms = f"any false alarm in at most {report.alpha:.1%} of evaluations"
        facts.append(("Tests", f"{report.n_tests} at once; {alarms}"))
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts)
    return f"<dl>{rows}</dl>"


def _features(report: pb.DriftReport, at: int) -> str:
    ordered = figures.by_score(report)
    moved = [one for one in ordered if one.score > 0]
    calm = [one for one in ordered if not one.score > 0]
    n_watched = sum(not math.isnan(one.score) for one in ordered)
    parts = []
    if moved:
        rest = n_watched - min(len(moved), plots.MOST_SCORES)
        note = f"<p class=note>{_count(rest, 'other feature')}: in the table below.</p>"
        parts.append(
            f"<h3>Scores</h3><div class=scores>{plots.scores(report, moved)}"
            f"{note if rest else ''}</div><h3>What moved</h3>{LEGEND}{_cards(moved, at, 0)}"
        )
    else:
        parts.append(f"<h3>What moved</h3><p>Nothing: {_count(n_watched, 'feature')} at 0.</p>")
    if report.HasField("raw_score"):
        parts.append(f"<h3>The model's scores</h3>{LEGEND}{_cards([report.raw_score], at, 10_000)}")
    if calm:
        cards = _cards(calm, at, len(moved))
        parts.append(
            f"<details{'' if moved else ' open'}><summary>{_count(len(calm), 'feature')} that did "
            f"not move</summary>{LEGEND}{cards}</details>"
        )
    return "".join(parts) + _table(report, ordered)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _cards(features: Iterable[pb.FeatureDrift], at: int, first: int) -> str:
    cards = "".join(_card(one, f"v{at}f{first + i}") for i, one in enumerate(features))
    return f"<div class=cards>{cards}</div>"


def _card(one: pb.FeatureDrift, ident: str) -> str:
    plot = f"<figure>{plots.plot(one)}</figure>" if plots.has_plot(one) else ""
    said = []
    if one.measure in figures.MEASURES:
        test = f"critical {distance(one.critical)}, " if one.measure == "ks" else ""
        sure = "more than chance" if one.is_significant else "no more than chance"
        name = "KS" if one.measure == "ks" else "Jensen-Shannon"
        said.append(
            f"{name} distance <b>{distance(one.distance)}</b> ({test}p {p_value(one.p_value)}): "
            f"{sure}{'' if math.isnan(one.psi) else f'; PSI {distance(one.psi)}'}"
        )
        said.append(f"{one.n_window:,} values now, {one.n_reference:,.0f} before")
    said += [escape(part) for part in (*figures.faults(one), *figures.remarks(one))]
    lines = "".join(f"<li>{line}</li>" for line in said)
    return (
        f"<article aria-labelledby={ident}><h4 id={ident}>{escape(one.name)}"
        f"<span class=n>{distance(one.score)}</span></h4>{plot}<ul>{lines}</ul>"
        f"{_quantiles(one)}</article>"
    )


def _quantiles(one: pb.FeatureDrift) -> str:
    if not one.quantiles:
        return ""
    rows = [[f"{q.percent:g} %", number(q.reference), number(q.window)] for q in one.quantiles]
    return _html_table(["quantile", "before", "now"], rows, f"Quantiles of {one.name}")


def _table(report: pb.DriftReport, ordered: Sequence[pb.FeatureDrift]) -> str:
    slow = {one.name: one for one in report.slow_features}
    columns = [*ordered, *([report.raw_score] if report.HasField("raw_score") else [])]
    rows = []
    for one in columns:
        day = slow.get(one.name)
        rows.append(
            [
                one.name,
                distance(one.score),
                figures.MEASURES.get(one.measure, NONE),
                distance(one.distance) + ("*" if one.is_significant else ""),
                distance(one.critical),
                p_value(one.p_value),
                distance(one.psi),
                NONE if day is None else distance(day.distance),
                change(one.missing),
                change(one.fallback),
                change(one.unseen),
            ]
        )
    table = _html_table(HEADINGS, rows, "Every feature")
    return f"<h3>All figures</h3>{table}<p class=note>* more than chance</p>"


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    heads = "".join(
        f"<th scope=col{' class=n' if i else ''}>{escape(x)}</th>" for i, x in enumerate(head)
    )
    body = "".join(
        f"<tr><th scope=row>{escape(row[0])}</th>"
        + "".join(f"<td class=n>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class=scroll tabindex=0><table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )
