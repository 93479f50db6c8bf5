"""The report: one HTML page with everything in it, and a Markdown table.

The page needs nothing from anywhere: plots are inline SVG, style is inline CSS, there is no script.
It says what was promised and met, on which machine, at which commit and by which command; runs
that say more about the client than about the server are marked, and what is not valid says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench import results, sections
from bench.errors import ResultError
from bench.plots import number, quantity
from bench.sections import Section, html_table

STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
UNITS_NOTE = (
    "Medians of the repetitions; ticks in the bars are the repetitions themselves. Latency counts "
    "from the intended send time. Hatched: the client was the limit, not the server."
)


def collect(paths: Sequence[Path]) -> list[Section]:
    """Read result files; latest.json comes first.

    Raises
    ------
    ResultError
        A file cannot be read or is no result file.
    """
    if not paths:
        raise ResultError("no result files; `make bench-quick` or `scoregate bench run` make some")
    found = [sections.section(path.stem, results.read(path)) for path in paths]
    return sorted(found, key=lambda section: section.document.get("scenario") is not None)


def promise(target: Mapping[str, Any]) -> list[str]:
    """Return a promise's cells: name, measured, promised, whether met."""
    value = float("nan") if target["value"] is None else target["value"]
    met = "met" if target["met"] else "not met"
    name, most = target["name"], float(target["target"])
    bound = quantity(name, most) if name.endswith("bytes") else f"{most:.4g}"
    return [name, quantity(name, value), f"{target['op']} {bound}", met]


def _sign(op: str) -> str:
    return {"<=": "at most", ">=": "at least"}.get(op, op)


def markdown(found: Sequence[Section]) -> str:
    """Return the promises and the runs as Markdown tables."""
    first = found[0].document
    machine = first["machine"]
    where = f"{machine.get('processor')}, {machine.get('cores')} cores, {machine.get('system')}"
    what = f"commit {first.get('commit')}; taken {first['taken']} by `{first.get('command')}`"
    lines = ["# Benchmarks", "", f"{where}; {what}."]
    for section in found:
        lines += ["", f"## {section.title} (`{section.name}`)", ""]
        lines += [f"Not valid: {reason}\n" for reason in section.reasons]
        if section.targets:
            lines += ["| promise | measured | promised | |", "| --- | ---: | --- | --- |"]
            lines += [f"| {' | '.join(promise(target))} |" for target in section.targets]
            lines.append("")
        rows = sections.run_rows(section.document)
        if rows:
            heads = ["run", *(head for _, head in sections.COLUMNS), ""]
            lines.append(f"| {' | '.join(heads)} |")
            lines.append("| --- |" + " ---: |" * len(sections.COLUMNS) + " --- |")
            lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def page(found: Sequence[Section]) -> str:
    """Return the HTML page."""
    first = found[0].document
    promises = [target for section in found for target in section.targets]
    n_met = sum(1 for target in promises if target["met"])
    valid = all(not section.reasons for section in found)
    machine = first["machine"]
    facts = {
        "Machine": f"{machine.get('processor')}, {machine.get('cores')} cores, "
        f"{machine.get('memory_gib')} GiB",
        "System": f"{machine.get('system')}, Linux {machine.get('kernel')}",
        "Commit": str(first.get("commit")),
        "Taken": str(first["taken"]).replace("T", " "),
        "Command": str(first.get("command")),
        "Versions": ", ".join(f"{k} {v}" for k, v in first.get("versions", {}).items()),
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    state = "" if valid else ' <span class="badge bad">some runs are not valid</span>'
    contents = "".join(
        f'<a href="#{escape(section.name)}">{escape(section.title)}</a>' for section in found
    )
    body = "".join(_html(section) for section in found)
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>Scoregate benchmarks</title><style>{STYLE}</style></head><body>"
        f"<header><h1>Scoregate benchmarks</h1><p class=lead>"
        f'<span class="badge {"good" if n_met == len(promises) else "bad"}">{n_met} of '
        f"{len(promises)} promises met</span>{state}</p>"
        f"<dl>{rows}</dl><nav>{contents}</nav></header>"
        f"<main>{_overview(found)}<p class=note>{escape(UNITS_NOTE)}</p>{body}</main>"
        "</body></html>\n"
    )


def _overview(found: Sequence[Section]) -> str:
    lines = []
    for section in found:
        for i, target in enumerate(section.targets):
            name, value, bound, met = promise(target)
            group = ""
            if i == 0:
                link = f'<a href="#{escape(section.name)}">{escape(section.title)}</a>'
                group = f"<td rowspan={len(section.targets)} class=group>{link}</td>"
            kind = "good" if target["met"] else "bad"
            sign = f"{_sign(target['op'])} {bound.split(' ', 1)[1]}"
            lines.append(
                f"<tr>{group}<td>{escape(name)}</td><td class=n>{value}</td><td class=n>{sign}</td>"
                f'<td><span class="badge {kind}">{met}</span></td></tr>'
            )
    if not lines:
        return ""
    return (
        "<section><h2>Promises</h2><div class=scroll><table><thead><tr><th>from</th>"
        "<th>promise</th><th class=n>measured</th><th class=n>promised</th><th></th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div></section>"
    )


def _html(section: Section) -> str:
    document = section.document
    title = f"<h2>{escape(section.title)}</h2><p>{escape(section.about)}</p>"
    parts = [f"<section id={escape(section.name)}>", title]
    if section.reasons:
        lines = "".join(f"<li>{escape(reason)}</li>" for reason in section.reasons)
        count = f"{len(section.reasons)} reasons not to believe every run"
        parts.append(
            f'<details class=warning><summary><span class="badge bad">not valid</span> {count}'
            f"</summary><ul>{lines}</ul></details>"
        )
    parts += [f"<p class=note>Not judged: {escape(x)}</p>" for x in document.get("unjudged", [])]
    if document.get("command") and "bench run" in document["command"]:
        parts.append(f"<p class=note>Made by <code>{escape(document['command'])}</code></p>")
    figures = "".join(f"<figure>{plot}</figure>" for plot in section.plots)
    parts.append(f"<div class=plots>{figures}</div>")
    rows = sections.run_rows(document)
    if rows:
        head = ["run", *(head for _, head in sections.COLUMNS), ""]
        parts.append(html_table(head, rows, text_columns=(0, len(head) - 1)))
    facts = {key: value for run in document.get("runs", []) for key, value in run["beside"].items()}
    if facts:
        text = ", ".join(f"{key.replace('_', ' ')} {number(value)}" for key, value in facts.items())
        parts.append(f"<p class=note>Beside the load: {escape(text)}.</p>")
    if document.get("scenario") is None:
        head = ["figure", "min", "median", "max", "unit"]
        table = html_table(head, sections.figure_rows(document), text_columns=(0, 4))
        parts.append(f"<details><summary>All figures</summary>{table}</details>")
    return "".join(parts) + "</section>"


def write(path: Path, text: str) -> None:
    """Write a page or a table: aside, renamed.

    Raises
    ------
    ResultError
        It cannot be written.
    """
    aside = path.with_name(path.name + ".tmp")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.rename(path)
    except OSError as error:
        raise ResultError(f"{path}: cannot be written: {error.strerror}") from None
