"""The newest events."""

from __future__ import annotations

from msgspec import Struct

from server.console.words import text
from server.events.log import EventLog

N_EVENTS = 20


class EventLine(Struct, frozen=True):
    """One event, without its details."""

    id: int
    time_ms: int
    kind: str
    severity: str
    model: str
    version: str
    summary: str
    delivery: str  # what became of it at the webhook


class EventReader:
    """Reads them. Not safe from several threads: its owner locks."""

    def __init__(self) -> None:
        self._last: list[EventLine] = []

    def read(self, events: EventLog) -> list[EventLine]:
        """Return the newest events, newest first; the same list where nothing has changed."""
        kept, _ = events.read(N_EVENTS)
        found = [
            EventLine(
                id=one.event.id,
                time_ms=one.event.time_ms,
                kind=one.event.kind,
                severity=one.event.severity,
                model=text(one.event.model),
                version=text(one.event.version),
                summary=text(one.event.summary),
                delivery=one.delivery,
            )
            for one in kept
        ]
        if found != self._last:
            self._last = found
        return self._last
