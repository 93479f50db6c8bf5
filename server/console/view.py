"""One look at everything: read once, told as data, as a page and as what the script patches.

Rules: a part that cannot be read says so and leaves the others alone. A part is encoded once; the
script says which ones it has (by digest), and is sent the others only. NaN becomes null.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import msgspec

from server.console.changes import RecentChanges
from server.console.drift import Drawn, DriftReader
from server.console.events import EventReader
from server.console.history import TrafficHistory
from server.console.parts import banner, drift, features, log, quality, traffic
from server.console.quality import QualityReader, Shown
from server.console.sources import Sources
from server.console.state import read_state
from server.console.stores import read_stores
from server.console.traffic import read_traffic
from server.console.tree import Element, element
from server.errors import ScoregateError
from server.rollout.plans import ServedModel

FORMAT = 1  # of /console/data: members are added, none changes its meaning
# Part of the page -> its heading; the banner's parts have none.
HEADINGS = {
    "traffic": "Traffic",
    "decisions": "Decisions",
    "features": "Features and stores",
    "drift": "Drift",
    "quality": "Quality",
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
        self._quality = QualityReader()
        self._events = EventReader()
        self._kept: dict[str, tuple[Any, Part]] = {}  # what was read, and what it looks like
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
        served = sources.rollout.served
        models = () if served is None else served.models
        state = read_state(sources)
        flow = read_traffic(self._history, models)
        stores, features_part = self._part(
            "features",
            lambda: read_stores(sources.stores, sources.metrics),
            lambda found: features.features(flow, found),
        )
        drawn, drift_part = self._part("drift", self._read_drift, self._show_drift)
        reports, quality_part = self._part(
            "quality", lambda: self._read_quality(models), quality.quality
        )
        entries, changes_part = self._part(
            "changes", lambda: self._changes.read(sources.rollout.generation), log.changes
        )
        lines, events_part = self._part(
            "events", lambda: self._events.read(sources.events), log.events
        )
        return View(
            now_ms,
            {
                "server": state,
                "traffic": flow,
                "stores": stores,
                "drift": None if drawn is None else [one.drift for one in drawn],
                "quality": None if reports is None else [one.quality for one in reports],
                "changes": entries,
                "events": lines,
            },
            {
                "state": _encoded(banner.banner(state)),
                "facts": _encoded(banner.facts(state, len(models))),
                "traffic": _encoded(traffic.traffic(flow, state.default_model)),
                "decisions": _encoded(traffic.decisions(flow)),
                "features": features_part,
                "drift": drift_part,
                "quality": quality_part,
                "changes": changes_part,
                "events": events_part,
            },
        )

    def _read_drift(self) -> list[Drawn]:
        watch = self._sources.watch
        return [] if watch is None else self._drift.read(watch)

    def _show_drift(self, found: list[Drawn]) -> list[Element]:
        return drift.drift(found, is_watched=self._sources.watch is not None)

    def _read_quality(self, models: Sequence[ServedModel]) -> list[Shown]:
        reports = self._sources.quality
        thresholds = {
            (arm.model, arm.version, arm.name): [(name, score) for name, _, score in arm.thresholds]
            for model in models
            for arm in model.arms
        }
        return self._quality.read(() if reports is None else reports(), thresholds)

    def _part(
        self, name: str, read: Callable[[], Read], show: Callable[[Read], list[Element]]
    ) -> tuple[Any, Part]:
        """Read one part, and show it unless it is the very thing that was read before.

        Returns
        -------
        what was read, or None, and the part
        """
        try:
            found = read()
            before, kept = self._kept.get(name, (None, None))
            if kept is None or before is not found:
                kept = _encoded(show(found))
                self._kept[name] = (found, kept)
        except Exception as error:  # noqa: BLE001 - the other parts are shown
            self._kept.pop(name, None)
            self._complain(name, error)
            said = str(error) if isinstance(error, ScoregateError) else type(error).__name__
            return None, _encoded(
                [element("p", f"This cannot be shown: {said}", class_="none raised")]
            )
        self._troubles.pop(name, None)
        return found, kept

    def _complain(self, name: str, error: Exception) -> None:
        """Log a part that cannot be read, once for each reason."""
        said = f"{type(error).__name__}: {error}"
        if self._troubles.get(name) != said:
            self._troubles[name] = said
            logger.warning("console: %s cannot be read", name, exc_info=error)


def _encoded(nodes: list[Element]) -> Part:
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
