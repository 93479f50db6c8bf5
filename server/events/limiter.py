"""A state that flaps does not flood, and how it ends is told all the same.

Rules
-----
* Of one kind, model and version at most one event a minute passes. The first passes at once.
* What comes sooner is held back; when its minute is over, it passes.
* A later event of the same state takes the place of one that is held: of what was true in between
  only the number remains, in the next event's `n_suppressed`. So the last event that passes always
  tells the state that holds, a minute late at most.
* Deeds (kinds without a subject) all pass.

It knows no clock and no thread: whoever uses it says what time it is.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from server.events.event import Event
from server.events.kinds import KINDS

INTERVAL_S = 60.0


class _Told(NamedTuple):
    """A kind of event of one model and version."""

    kind: str
    model: str
    version: str


class _Subject(NamedTuple):
    """Whose state it is."""

    subject: str
    model: str
    version: str


class Limiter:
    """Decides which events pass, and when.

    Parameters
    ----------
    interval_s
        Between two events of one kind, model and version.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._passed_s: dict[_Told, float] = {}
        self._n_suppressed: dict[_Told, int] = {}
        self._held: dict[_Subject, Event] = {}

    def offer(self, event: Event, now_s: float) -> Event | None:
        """Return the event if it passes now; None if it is held back."""
        subject = KINDS[event.kind].subject
        if not subject:
            return event
        whose = _Subject(subject, event.model, event.version)
        replaced = self._held.pop(whose, None)
        if replaced is not None:
            told = _told(replaced)
            self._n_suppressed[told] = self._n_suppressed.get(told, 0) + 1
        if self._due_s(event) > now_s:
            self._held[whose] = event
            return None
        return self._pass(event, now_s)

    def due(self, now_s: float) -> list[Event]:
        """Return the events whose minute is over, in the order in which they happened."""
        ready = [whose for whose, event in self._held.items() if self._due_s(event) <= now_s]
        events = sorted((self._held.pop(whose) for whose in ready), key=lambda event: event.time_ms)
        return [self._pass(event, now_s) for event in events]

    def rest(self, now_s: float) -> list[Event]:
        """Return everything that is held, whether or not its minute is over: the end."""
        events = sorted(self._held.values(), key=lambda event: event.time_ms)
        self._held.clear()
        return [self._pass(event, now_s) for event in events]

    def wait_s(self, now_s: float) -> float | None:
        """Return how long until an event is due; None: nothing is held."""
        if not self._held:
            return None
        return max(0.0, min(self._due_s(event) for event in self._held.values()) - now_s)

    def _due_s(self, event: Event) -> float:
        passed_s = self._passed_s.get(_told(event))
        return float("-inf") if passed_s is None else passed_s + self._interval_s

    def _pass(self, event: Event, now_s: float) -> Event:
        told = _told(event)
        self._passed_s[told] = now_s
        n_suppressed = self._n_suppressed.pop(told, 0)
        if not n_suppressed:
            return event
        details = {**event.details, "n_suppressed": n_suppressed}
        return msgspec.structs.replace(event, details=details)


def _told(event: Event) -> _Told:
    return _Told(event.kind, event.model, event.version)
