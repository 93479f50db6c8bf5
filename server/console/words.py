"""Numbers and foreign texts as the console writes them: short, with their unit, "–" where unknown.

Spaces before units are ordinary ones: the style sheet keeps figures on one line.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from server.cli.lines import NONE, plain

MAX_TEXT = 300  # characters of somebody else's


def text(value: str, limit: int = MAX_TEXT) -> str:
    """Return a text of somebody else's on one line, of bounded length."""
    line = plain(value[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def rate(per_s: float) -> str:
    """Return how many a second: "2,950/s", "0.4/s"."""
    if math.isnan(per_s):
        return NONE
    if per_s == 0 or per_s >= 99.95:
        return f"{per_s:,.0f}/s"
    return f"{per_s:.1f}/s" if per_s >= 0.95 else f"{per_s:.2g}/s"


def duration(us: float) -> str:
    """Return a duration: "84 µs", "1.2 ms"."""
    if math.isnan(us):
        return NONE
    if us < 999.5:
        return f"{us:.0f} µs"
    ms = us / 1000
    if ms < 999.5:
        return f"{ms:.1f} ms" if ms < 99.95 else f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s"


def share(value: float) -> str:
    """Return a share: "12.5 %"; what is neither none nor all is never told as that."""
    if math.isnan(value):
        return NONE
    if 0 < value < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= value < 1:
        return "> 99.9 %"
    return f"{100 * value:.1f} %" if 0 < value < 1 else f"{100 * value:.0f} %"


def count(n: int, what: str) -> str:
    """Return how many: "1 feature", "2 features"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def clock(time_ms: int) -> str:
    """Return a moment of today or another day, to the second, in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%m-%d %H:%M:%S")


def iso(time_ms: int) -> str:
    """Return a moment for machines."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
