"""The state of the process, in a banner's words."""

from __future__ import annotations

from msgspec import Struct

from server import __version__
from server.console.sources import Sources
from server.console.words import text
from server.lifecycle import State
from server.memory import resident_bytes

# State -> what it means.
WORDS = {
    State.STARTING: ("starting", "Scoring calls are refused until a plan is in force."),
    State.SERVING: ("serving", "Scoring calls are welcome."),
    State.NOT_READY: ("not ready", "Scoring calls are refused."),
    State.DRAINING: ("draining", "Calls in flight end, new ones are refused."),
}


class ServerState(Struct, frozen=True):
    """Where the process is in its life."""

    state: str  # "serving", "not ready" ...
    meaning: str
    reason: str  # why, where it does not serve
    frozen: str  # why changes are refused; empty: they are not
    generation: int
    default_model: str
    started_time_ms: int
    resident_bytes: int
    version: str
    name: str


def read_state(sources: Sources) -> ServerState:
    """Return the state as of now."""
    state, reason = sources.lifecycle.read()
    word, meaning = WORDS[state]
    served = sources.rollout.served
    frozen = "" if served is None else served.state.frozen
    return ServerState(
        state=word,
        meaning=meaning,
        reason="" if reason == word else text(reason),
        frozen=text(frozen),
        generation=sources.rollout.generation,
        default_model=text(sources.rollout.default_model),
        started_time_ms=sources.lifecycle.started_time_ms,
        resident_bytes=resident_bytes(),
        version=__version__,
        name=text(sources.name),
    )
