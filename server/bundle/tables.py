"""Plain tables for people at a terminal, and where they are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

NONE = "–"
PIPE_COLUMNS = 120


def stdout_console() -> Console:
    """Return a console on standard output; a file or pipe gets lines of 120 columns."""
    return Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of plain texts: the first column to the left, the others to the right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_header=any(columns),
    )
    for index, column in enumerate(columns):
        # Names left, figures right; a list of pairs without headings is text.
        text = index == 0 or not any(columns)
        table.add_column(Text(column), justify="left" if text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
