"""Tables that a phone shows as cards.

A narrow screen gives every row a block of its own, and every cell its column's name (`data-label`,
see style.css). Rows and cells say their roles, because some browsers forget what a table is when
its boxes are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from server.console.tree import Child, Element, element


class Column(NamedTuple):
    """One column."""

    head: str
    kind: str = ""  # "n": figures, "wide": prose, "draw": a drawing


class Row(NamedTuple):
    """One row; its first cell is its heading."""

    cells: Sequence[Child]
    key: str  # unique in its table: the script moves rows by it
    kind: str = ""


def table(caption: str, columns: Sequence[Column], rows: Iterable[Row]) -> Element:
    """Return a table."""
    head = element(
        "tr",
        [
            element("th", c.head, scope="col", role="columnheader", class_=c.kind or None)
            for c in columns
        ],
        role="row",
    )
    return element(
        "table",
        element("caption", caption),
        element("thead", head, role="rowgroup"),
        element("tbody", [_row(columns, row) for row in rows], role="rowgroup"),
        role="table",
    )


def _row(columns: Sequence[Column], row: Row) -> Element:
    cells = []
    for i, (column, cell) in enumerate(zip(columns, row.cells, strict=True)):
        kind = column.kind or None
        if i:
            label = column.head
            cells.append(element("td", cell, role="cell", class_=kind, data_label=label))
        else:
            cells.append(element("th", cell, scope="row", role="rowheader", class_=kind))
    return element("tr", cells, role="row", class_=row.kind or None, data_key=row.key)
