"""The kinds of events: how grave each is, and whether it tells of a state or of a deed.

Rules: a state (drift, a monitor, the server) may flap, so what tells of it is limited (`limiter`);
a deed (a change, a rollback) happened once, and each is told. A kind says who should look, not who
is to be woken: that is for whoever receives it to decide.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["info", "warning", "critical"]


class Kind(NamedTuple):
    """What holds for every event of a kind."""

    severity: Severity
    # What the state is of; events with the same subject, model and version replace one another.
    # Empty: a deed.
    subject: str


KINDS: dict[str, Kind] = {
    "drift.warning": Kind("warning", "drift"),
    "drift.retrain": Kind("warning", "drift"),
    "drift.broken": Kind("critical", "drift"),
    "drift.recovered": Kind("info", "drift"),
    "drift.failed": Kind("warning", "monitor"),
    "rollout.rollback": Kind("warning", ""),
    "rollout.change": Kind("info", ""),
    "server.fallback": Kind("critical", ""),
    "server.not_ready": Kind("critical", "server"),
}
