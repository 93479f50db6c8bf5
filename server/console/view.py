"""One look at everything: read once, told as data, as a page and as what the script patches.

Rules: a part that cannot be read says so and leaves the others alone. A part is encoded once; the
script says which ones it has (by digest), and is sent the others only. NaN becomes null.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import msgspec

from server.console.changes import RecentChanges
from server.console.drift import DriftReader
from server.console.events import read_events
from server.console.history import TrafficHistory
from server.console.parts import banner, drift, features, log, quality, traffic
from server.console.quality import read_quality
from server.console.sources import Sources
from server.console.state import read_state
from server.console.stores import read_stores
from server.console.traffic import read_traffic
from server.console.tree import Element, element
from server.errors import ScoregateError

FORMAT = 1  # of /console/data: members are added, none changes its meaning
# Part of the page -> its heading; the banner's parts have none.
HEADINGS = {
    "traffic": "Traffic",
    "decisions": "Decisions",
    "drift": "Drift",
    "quality": "Quality",
    "features": "Features and stores",
    "changes": "Rollout history",
    "events": "Events",
}

logger = logging.getLogger(__name__)
Read = TypeVar("Read")


class Part(NamedTuple):
    """One part of the page."""

    nodes: list[Element]
    encoded: bytes
    digest: str


class View(NamedTuple):
    """Everything, as of one moment."""

    now_ms: int
    data: dict[str, Any]
    parts: dict[str, Part]


class Looker:
    """Makes views. Not safe from several threads: its owner locks.

    Parameters
    ----------
    sources
        The rooms.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._history = TrafficHistory(sources.metrics)
        self._drift = DriftReader()
        self._changes = RecentChanges(sources.rollout.journal)
        self._troubles: dict[str, str] = {}

    def sample(self) -> None:
        """Take a sample of the counters."""
        rollout = self._sources.rollout
        self._history.look([(arm.model, arm.version) for arm in rollout.arms], rollout.generation)

    def look(self) -> View:
        """Read everything."""
        sources = self._sources
        self.sample()
        now_ms = time.time_ns() // 1_000_000
        arms = list(sources.rollout.arms)
        state = read_state(sources)
        flow = read_traffic(self._history, arms)
        n_models = len({arm.model for arm in arms})
        data: dict[str, Any] = {"server": state, "traffic": flow}
        nodes = {
            "state": banner.banner(state),
            "facts": banner.facts(state, n_models),
            "traffic": traffic.traffic(flow, state.default_model),
            "decisions": traffic.decisions(flow),
        }

        def part(name: str, read: Callable[[], Read], show: Callable[[Read], list[Element]]) -> Any:
            """Read one part and show it; return what was read, or None."""
            try:
                found = read()
                nodes[name] = show(found)
            except Exception as error:  # noqa: BLE001 - the other parts are shown
                self._complain(name, error)
                said = str(error) if isinstance(error, ScoregateError) else type(error).__name__
                nodes[name] = [element("p", f"This cannot be shown: {said}", class_="none raised")]
                return None
            self._troubles.pop(name, None)
            return found

        watch, reports = sources.watch, sources.quality
        data["stores"] = part(
            "features",
            lambda: read_stores(sources.stores, sources.metrics),
            lambda found: features.features(flow, found),
        )
        drawn = part(
            "drift",
            lambda: [] if watch is None else self._drift.read(watch),
            lambda found: drift.drift(found, is_watched=watch is not None),
        )
        data["drift"] = None if drawn is None else [one.drift for one in drawn]
        data["quality"] = part(
            "quality",
            lambda: read_quality([] if reports is None else reports()),
            quality.quality,
        )
        data["changes"] = part(
            "changes", lambda: self._changes.read(sources.rollout.generation), log.changes
        )
        data["events"] = part("events", lambda: read_events(sources.events), log.events)
        return View(now_ms, data, {name: _part(found) for name, found in nodes.items()})

    def _complain(self, name: str, error: Exception) -> None:
        """Log a part that cannot be read, once for each reason."""
        said = f"{type(error).__name__}: {error}"
        if self._troubles.get(name) != said:
            self._troubles[name] = said
            logger.warning("console: %s cannot be read", name, exc_info=error)


def _part(nodes: list[Element]) -> Part:
    encoded = msgspec.json.encode(nodes)
    return Part(nodes, encoded, blake2b(encoded, digest_size=6).hexdigest())


def to_json(view: View, seen: Mapping[str, str], build: str) -> bytes:
    """Return a view as `/console/data` tells it.

    Parameters
    ----------
    view
        What was read.
    seen
        Part -> digest, of what the asker has.
    build
        Digest of the page's own files: a page of another one loads itself anew.
    """
    return msgspec.json.encode(
        {
            "format": FORMAT,
            "build": build,
            "now_ms": view.now_ms,
            **view.data,
            "digests": {name: part.digest for name, part in view.parts.items()},
            "parts": {
                name: msgspec.Raw(part.encoded)
                for name, part in view.parts.items()
                if seen.get(name) != part.digest
            },
        }
    )
