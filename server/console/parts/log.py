"""What happened: changes of what serves, and events."""

from __future__ import annotations

from server.console.changes import Change
from server.console.events import EventLine
from server.console.parts.tables import Column, Row, table
from server.console.tree import Element, element
from server.console.words import clock, iso

MARKS = {"info": ("●", "quiet"), "warning": ("▲", "warn"), "critical": ("✖", "bad")}


def changes(found: list[Change]) -> list[Element]:
    """Return the newest changes, newest first."""
    if not found:
        return [element("p", "No changes.", class_="none")]
    columns = [
        Column("when (UTC)"),
        Column("verb"),
        Column("who", "word"),
        Column("why", "wide"),
        Column("then in force", "wide"),
    ]
    rows = [
        Row(
            [
                _when(one.time_ms),
                one.verb,
                one.who + ("" if one.is_verified else " *"),
                one.why or "–",
                [one.plan, element("small", "frozen") if one.is_frozen else None],
            ],
            str(one.generation),
        )
        for one in found
    ]
    note = None
    if not all(one.is_verified for one in found):
        note = element("p", "* said by the caller, not proven by a token", class_="note")
    made = [table("The newest changes of what serves.", columns, rows)]
    return [*made, note] if note else made


def events(found: list[EventLine]) -> list[Element]:
    """Return the newest events, newest first."""
    if not found:
        return [element("p", "No events.", class_="none")]
    columns = [Column("when (UTC)"), Column("kind", "nowrap"), Column("what", "wide")]
    return [table("The newest events.", columns, [_event(one) for one in found])]


def _event(one: EventLine) -> Row:
    mark, kind = MARKS[one.severity]
    failed = one.delivery if one.delivery in ("failed", "dropped") else ""
    return Row(
        [
            _when(one.time_ms),
            element("span", f"{mark} {one.kind}", class_=kind),
            [
                one.summary,
                element("small", f"webhook: {failed}") if failed else None,
            ],
        ],
        str(one.id),
    )


def _when(time_ms: int) -> Element:
    return element("time", clock(time_ms), datetime=iso(time_ms))
