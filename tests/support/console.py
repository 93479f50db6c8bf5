"""A console in this process over a real rollout, and monitors that have something to say.

with ConsoleWorld(repository, monitors={"2": monitor_of(names)}) as world:
    world.page()
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from email.message import Message
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import numpy as np

from server.console.console import SEEN, Console
from server.console.sources import Sources
from server.drift import DriftSettings, Monitor, MonitoredFeature, reference_from_arrays
from server.events.log import EventLog
from server.events.rollout import RolloutEvents
from server.export.reference import build_reference
from server.feedback.quality import QualityMetric, QualityReport, ScoreBin, score_edges
from server.feedback.quality.calibration import calibration
from server.feedback.quality.reports import CalibrationGroup
from server.monitoring.watch import DriftWatch, Watched
from server.rollout.loaded import Key
from server.sidecar import Answer
from tests.support.control import ControlWorld
from tests.support.drift import Clock
from tests.support.quality import scored, sigmoid
from tests.support.serving import MODEL

# What a name, a reason or a why may hold at worst: markup, quotes, control characters, an escape
# sequence of terminals, letters that turn the reading direction, half of a pair.
HOSTILE = (
    "</td><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x00\x07\x1b[31m\u202eabc\ud800"
)


def monitor_of(names: Sequence[str], *, shift: float = 0.0, n_rows: int = 1000) -> Monitor:
    """Return a monitor of numeric features that was shown rows and asked; the first one moved."""
    features = tuple(MonitoredFeature(name=name) for name in names)
    rng = np.random.default_rng(len(names))
    before = rng.lognormal(size=(4000, len(names))).astype(np.float32)
    reference = reference_from_arrays(
        build_reference(before, before[:, 0].copy(), features, None), features
    )
    clock = Clock()
    monitor = Monitor(reference, features, DriftSettings(), clock)
    now = rng.lognormal(size=(n_rows, len(names))).astype(np.float32)
    now[:, 0] *= np.float32(np.exp(shift))
    times = clock.now_ms + 1000 * (1 + np.arange(n_rows, dtype=np.int64))
    clock.now_ms = int(times[-1])
    monitor.observe(now, now[:, 0].copy(), None, times)
    assert monitor.evaluate(force=True) is not None
    return monitor


def watch_of(monitors: Mapping[str, Monitor]) -> DriftWatch:
    """Return what watches versions of the example with these monitors."""
    watched = [Watched(Key(MODEL, version, ""), 0, one) for version, one in monitors.items()]
    return cast("DriftWatch", SimpleNamespace(watched=watched))


@cache
def curves_report() -> tuple[tuple[ScoreBin, ...], tuple[CalibrationGroup, ...]]:
    """Return the bins and the calibration of rare fraud that scores promise too little of."""
    rows = scored(1, 12_000, share=0.0)
    promised = sigmoid(rows.raw - np.float32(3))
    fraud = np.random.default_rng(2).random(12_000) < 2 * promised
    rows = rows._replace(score=promised, label=fraud.astype(np.int8))
    counts = rows.counts(score_edges(np.sort(rows.raw), ()))
    every = counts.known
    columns = (counts.negative.weight, counts.positive.weight, every.score, every.weight)
    bins = tuple(
        ScoreBin(0.0, good, bad, 0.0, score / n if n else math.nan, 0.0, n)
        for good, bad, score, n in zip(*(one.tolist() for one in columns), strict=True)
    )
    return bins, calibration(counts)


def quality_report(**members: Any) -> QualityReport:
    """Return a report of quality, with two figures unless others are given."""

    bins, groups = curves_report()
    usual: dict[str, Any] = {
        "model": MODEL,
        "version": "2",
        "arm": "champion",
        "cohort": "matured",
        "from_time_ms": 1_795_000_000_000,
        "to_time_ms": 1_795_400_000_000,
        "evaluated_time_ms": 1_795_480_000_000,
        "n_decisions": 12_345,
        "n_labels": 12_000,
        "n_positive": 84,
        "n_effective": 11_800.0,
        "note": "",
        "bins": bins,
        "calibration": groups,
        "metrics": (
            QualityMetric("recall", "review", 0.81, 0.77, 0.84, "wilson"),
            QualityMetric("brier", value=0.0041),
        ),
    }
    return QualityReport(**{**usual, **members})


class ConsoleWorld:
    """A rollout, its control port and its console.

    Parameters
    ----------
    repository
        What it serves.
    monitors
        Version -> monitor; None: drift is not monitored.
    reports
        Of quality; None: outcomes are not taken.
    """

    def __init__(
        self,
        repository: Path,
        monitors: Mapping[str, Monitor] | None = None,
        reports: Sequence[Any] | None = None,
    ) -> None:
        self.monitors = monitors or {}
        self.world = ControlWorld(repository, models=(f"{MODEL}@2",))
        self.control = self.world.control
        self.events = EventLog("test")
        rollout = self.world.rollout
        rollout.listen(RolloutEvents(self.events, rollout.journal).take)
        self.console = Console(
            Sources(
                self.world.lifecycle,
                rollout,
                self.world.metrics,
                self.world._stores,
                self.events,
                None if monitors is None else watch_of(monitors),
                None if reports is None else lambda: reports,
                name="here:9464",
            ),
            "127.0.0.1",
            # Each look is a new one.
            clock=lambda: time.monotonic_ns() * 1e3,
        )
        self.routes = self.console.routes()

    def get(self, path: str, **headers: str) -> Answer:
        """Return what a path answers."""
        message = Message()
        for name, value in headers.items():
            message[name.replace("_", "-")] = value
        return self.routes[path](message)

    def page(self) -> str:
        """Return the page."""
        return self.get("/console").body.decode()

    def data(self, seen: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the data; `seen` are digests of parts that the asker has."""
        known = " ".join(f"{name}:{digest}" for name, digest in (seen or {}).items())
        found: dict[str, Any] = json.loads(
            self.get("/console/data", **{SEEN.replace("-", "_"): known}).body
        )
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.world.__exit__()
