"""Quality in words: what the server found out from outcomes, beside the simulator's truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.demo.drift_words import Row

SHOWN = (("auc", "AUC"), ("average_precision", "average precision"))


def quality_rows(state: dict[str, Any], *, live: bool) -> Iterator[Row]:
    """Yield lines of the summary's table; the last ones are not for a small screen."""
    outcomes, found = state["outcomes"], state["live_quality"]
    words = (
        f"{outcomes.get('reported', 0):,} reported, {outcomes.get('frauds', 0):,} as fraud; "
        f"{outcomes.get('revised', 0):,} took back what was said before; "
        f"{outcomes['waiting']:,} to come"
    )
    if outcomes.get("unnoticed"):
        words += f"; {outcomes['unnoticed']:,} frauds nobody notices"
    yield "outcomes", words, ""
    if outcomes["trouble"]:
        yield "", f"the control port does not take them: {outcomes['trouble']}", "yellow"
    for report in found["reports"]:
        yield from _report(report, live=live, is_compared=_is_compared(state) and not live)
    if not found["reports"]:
        yield "learnt", found["trouble"] or "no decision is old enough yet", ""


def quality_line(state: dict[str, Any]) -> str:
    """Return a part of a plain line: "  learnt of 1.0: recall 71.0% (truth 70.2%)"."""
    parts = []
    for report in state["live_quality"]["reports"]:
        name = _first_recall(report)
        value = report["metrics"].get(name, [None])[0]
        if value is not None:
            truth = report["truth"].get(name)
            true = "" if truth is None else f" (truth {truth:.1%})"
            parts.append(f"  learnt of {report['version']}: recall {value:.1%}{true}")
    return "".join(parts)


def _is_compared(state: dict[str, Any]) -> bool:
    """Whether recall and precision have a table of their own (`exploring_words`)."""
    return bool(state["exploring"]["is_hidden"])


def _report(report: dict[str, Any], *, live: bool, is_compared: bool) -> Iterator[Row]:
    metrics, truth = report["metrics"], report["truth"]
    recall = _first_recall(report)
    precision = recall.replace("recall", "precision")
    shown = (*SHOWN, (recall, _words(recall)), (precision, _words(precision)))
    figures = [
        f"{words} {_figure(metrics[name], truth.get(name))}"
        for name, words in shown
        if name in metrics and metrics[name][0] is not None
    ]
    name = f"learnt of {report['version']}"
    if not figures:
        yield name, f"{report['n']:,} decisions are old enough: too little is known", ""
        return
    yield name, ", ".join(figures[:2]), ""
    for words in [] if is_compared else figures[2:]:
        yield "", words, ""
    if live:
        return
    known = (
        f"of {report['n']:,} decisions as {report['arm']}, {report['labels']:,} with an outcome, "
        f"{report['positive']:,} of them fraud (truth: {truth.get('frauds', 0):,}"
        f"{', with those blocked' if is_compared else ''})"
    )
    yield "", known, ""


def _first_recall(report: dict[str, Any]) -> str:
    """Return the recall of the lowest threshold: what is looked into at all."""
    names = [name for name in report["truth"] if name.startswith("recall:")]
    return names[0] if names else "recall"


def _words(name: str) -> str:
    what, _, threshold = name.partition(":")
    return f"{what} from {threshold}" if threshold else what


def _figure(numbers: list[float | None], truth: float | None) -> str:
    value, low, high = numbers
    words = f"{value:.3f}"
    if low is not None and high is not None:
        words += f" [{low:.3f}, {high:.3f}]"
    return words + (f" (truth {truth:.3f})" if truth is not None else "")
