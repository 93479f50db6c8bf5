"""One event, and the JSON that the log file and the webhook give of it.

    {"id":1795480000000001,"time":"2026-11-24T00:46:49.123Z","kind":"drift.retrain",
     "severity":"warning","model":"fraud","version":"2","summary":"...","details":{...},
     "source":"host:9464"}

Rules: one form for both, so that what was not delivered can be posted from the file. Details hold
no row, no routing key and no id of a request or an entity. NaN becomes null.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from server.events.kinds import KINDS, Severity

MAX_SUMMARY = 300  # characters


class Event(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Something that happened."""

    id: int = 0  # rises, also over restarts: it begins with the process's time in microseconds
    time_ms: int  # when it happened, since the epoch
    kind: str  # of KINDS
    model: str = ""
    version: str = ""
    summary: str  # one line
    details: dict[str, Any] = {}

    @property
    def severity(self) -> Severity:
        """Return how grave it is."""
        return KINDS[self.kind].severity

    def document(self, source: str) -> dict[str, Any]:
        """Return what the log file and the webhook are given; `source` says which server speaks."""
        time = datetime.fromtimestamp(self.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return {
            "id": self.id,
            "time": time.replace("+00:00", "Z"),
            "kind": self.kind,
            "severity": self.severity,
            "model": self.model,
            "version": self.version,
            "summary": self.summary,
            "details": self.details,
            "source": source,
        }


def make_event(
    kind: str, summary: str, *, time_ms: int, model: str, version: str, details: dict[str, Any]
) -> Event:
    """Return an event without its number; the summary is made one line of bounded length."""
    line = " ".join(summary.split())
    if len(line) > MAX_SUMMARY:
        line = line[: MAX_SUMMARY - 1] + "…"
    return Event(
        time_ms=time_ms, kind=kind, model=model, version=version, summary=line, details=details
    )


def encode(event: Event, source: str) -> bytes:
    """Return an event as JSON, on one line, without the newline."""
    return msgspec.json.encode(event.document(source))
