"""Plain lines for people: columns that line up, shares, times. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

NONE = "–"


def table(rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), indent: str = "") -> str:
    """Return rows of texts as lines whose columns line up.

    Parameters
    ----------
    rows
        All of one length; the first may be headings.
    right
        Columns of figures: aligned to the right.
    indent
        Stands before every line.
    """
    cells = [list(row) for row in rows]
    if not cells:
        return ""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for row in cells:
        parts = [
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(parts)).rstrip())
    return "\n".join(lines)


def plain(text: str) -> str:
    """Return a text of somebody else's on one line: what a terminal would obey is escaped."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def percent(basis_points: int) -> str:
    """Return a weight for people: "12.5 %"."""
    return f"{basis_points / 100:g} %"


def utc(time_ms: int) -> str:
    """Return a moment, to the second: "2026-11-23 22:20:01Z"."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def span(seconds: float) -> str:
    """Return a span in its largest fitting unit."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size(n_bytes: int) -> str:
    """Return a number of bytes, decimal: "1.2 MB"."""
    if n_bytes < 1000:
        return f"{n_bytes} B"
    value = float(n_bytes)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95 or unit == "GB":
            return f"{value:.1f} {unit}"
    raise AssertionError("GB is the last unit")
