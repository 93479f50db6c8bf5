"""GetEvents: what happened lately, as messages."""

from __future__ import annotations

import msgspec

from server.errors import InputError
from server.events.kinds import KINDS
from server.events.log import EventLog, Kept
from server.pb.scoregate.v1 import control_pb2 as pb

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


def read_events(events: EventLog, request: pb.GetEventsRequest) -> pb.GetEventsResponse:
    """Return events that are kept: the newest first, or those after one, the oldest first.

    Raises
    ------
    InputError
        The limit is too large, or a kind is not known.
    """
    if request.limit > MAX_LIMIT:
        raise InputError(f"limit: up to {MAX_LIMIT}, not {request.limit}; older ones are not kept")
    unknown = sorted(set(request.kinds) - set(KINDS))
    if unknown:
        raise InputError(f"kinds: no {', '.join(unknown)}; there is {', '.join(KINDS)}")
    found, last_id = events.read(
        request.limit or DEFAULT_LIMIT, after_id=request.after_id, kinds=frozenset(request.kinds)
    )
    return pb.GetEventsResponse(events=[_event(kept) for kept in found], last_id=last_id)


def _event(kept: Kept) -> pb.Event:
    event = kept.event
    return pb.Event(
        id=event.id,
        time_ms=event.time_ms,
        kind=event.kind,
        severity=event.severity,
        model=event.model,
        version=event.version,
        summary=event.summary,
        details=msgspec.json.encode(event.details).decode(),
        delivery=kept.delivery,
    )
