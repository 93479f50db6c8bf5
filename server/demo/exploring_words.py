"""Exploring in words: what it cost, and what is known because of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from server.demo.drift_words import Row

UNKNOWN = "unknown"
FEW = 30
HEADINGS = ("allowed only", "weighed", "truth")


def exploring_rows(state: dict[str, Any], *, live: bool) -> Iterator[Row]:
    """Yield lines of the summary's table; none where the demo explores nothing."""
    if not _is_told(state):
        return
    found = state["exploring"]
    n_explored, n_all = _numbers(found)
    share = f" ({n_explored / n_all:.1%})" if n_all else ""
    yield "explored", f"{n_explored:,} of {n_all:,} that reach the blocking threshold{share}", ""
    if live:
        return
    if n_explored:
        frauds = _count("fraud", *found["explored"]["frauds"])
        genuine = _count("genuine payment", *found["explored"]["genuine"])
        yield "  cost", f"{frauds} passed; and {genuine}", ""
    if not found["is_hidden"]:
        yield "  bought", "nothing: blocked payments have outcomes here, but with --explore", ""
        return
    reports = state["live_quality"]["reports"]
    if n_explored and reports:
        yield "  bought", "their outcomes, which stand for those of what was blocked:", ""
    for report in reports:
        yield from _comparison(report)
    if reports:
        yield from _explanation(n_explored)


def exploring_line(state: dict[str, Any]) -> str:
    """Return a part of a plain line: "  explored 12 of 240"."""
    if not _is_told(state):
        return ""
    n_explored, n_all = _numbers(state["exploring"])
    return f"  explored {n_explored} of {n_all}"


def _is_told(state: dict[str, Any]) -> bool:
    found = state["exploring"]
    return bool(found["is_hidden"] or _numbers(found)[0])


def _numbers(found: dict[str, Any]) -> tuple[int, int]:
    """Return how many were explored, of how many that were to be blocked."""
    n_explored, n_blocked = (
        sum(n for n, _ in found[what].values()) for what in ("explored", "blocked")
    )
    return n_explored, n_explored + n_blocked


def _count(noun: str, n: int, amount: float) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'} worth {amount:,.2f}"


def _comparison(report: dict[str, Any]) -> Iterator[Row]:
    """Yield a small table: every threshold's figures without exploring, with it, and in truth."""
    lines = [(f"of {report['version']} as {report['arm']}", *HEADINGS)]
    recalls = [name for name in report["metrics"] if name.startswith("recall:")]
    for recall in recalls:
        threshold = recall.partition(":")[2]
        for what in ("recall", "precision"):
            name = f"{what}:{threshold}"
            cells = (
                _figure(report["allowed"].get(name)),
                _interval(report["metrics"].get(name)),
                _figure(report["truth"].get(name)),
            )
            lines.append((f"{what} from {threshold}", *cells))
    for words in aligned(lines):
        yield "", words, ""
    for part in report["note"].split("; "):
        if part.startswith("allowed traffic only"):
            yield "", f"the server says: {part}", "yellow"


def _explanation(n_explored: int) -> Iterator[Row]:
    yield "", "allowed only: the rest of the traffic, which is all one sees without exploring", ""
    yield (
        "",
        "weighed: what the server found out; explored ones stand for blocked ones",
        "",
    )
    if 0 < n_explored < FEW:
        yield "", "few were explored: a longer run or a larger share narrows intervals", ""


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            [first.ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        )
        for first, *rest in lines
    ]


def _figure(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"


def _interval(numbers: Sequence[float | None] | None) -> str:
    """Return a value and its interval: "0.742 [0.684, 0.801]"."""
    if numbers is None or numbers[0] is None:
        return UNKNOWN
    value, low, high = numbers
    if low is None or high is None:
        return _figure(value)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
