"""The background work: drain the rings, feed the monitors, evaluate, keep what was counted.

Rules: it runs on one thread of low priority and can neither delay nor fail a call. A monitor that
raises is counted, logged and made anew, the others go on; a model whose bundle holds no usable
reference is not watched, and its state says so. What the windows have counted is written beside
the journal now and then and at the end, and taken up again at the start, so that a restart does
not begin a day anew.

One monitor per (model, version) that takes part. It lives as long as its version does.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fastpath.capture import Capture, CapturedRows
from fastpath.metrics import Metrics
from server.drift import DriftSettings, Evaluation, Monitor, load_reference, monitored_features
from server.errors import ScoregateError
from server.files import write_whole
from server.monitoring.sampling import Sampler
from server.repository import Repository
from server.rollout.loaded import Key
from server.rollout.plans import ServedArm

NICENESS = 10
KEEP_S = 300.0  # between two times that windows are written

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Watched:
    """One (model, version) and its monitor."""

    key: Key
    slot: int
    monitor: Monitor | None  # None: it cannot be watched
    trouble: str = ""  # why not
    n_ok: int = 0
    n_failed: int = 0

    @property
    def evaluation(self) -> Evaluation | None:
        """The last evaluation."""
        return None if self.monitor is None else self.monitor.evaluation


class DriftWatch:
    """Monitors of everything that serves.

    Parameters
    ----------
    capture
        The loops' rings.
    metrics
        Counts the traffic that rates follow.
    repository
        Where references are read.
    arms
        Returns the arms in force.
    settings
        Of every monitor.
    rows_per_s
        Rows a second to capture of each version.
    drain_s
        Seconds between two looks at the rings.
    directory
        Where windows are kept across restarts; None: nowhere.
    """

    def __init__(
        self,
        capture: Capture,
        metrics: Metrics,
        repository: Repository,
        arms: Callable[[], Sequence[ServedArm]],
        settings: DriftSettings,
        *,
        rows_per_s: float,
        drain_s: float,
        directory: Path | None,
    ) -> None:
        self._capture = capture
        self._metrics = metrics
        self._repository = repository
        self._arms = arms
        self._settings = settings
        self._drain_s = drain_s
        self._directory = directory
        self._sampler = Sampler(rows_per_s)
        self._watched: dict[Key, Watched] = {}
        self._looked_s = 0.0
        self._kept_s = time.monotonic()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(
            1, thread_name_prefix="scoregate-drift", initializer=_be_nice
        )

    @property
    def watched(self) -> list[Watched]:
        """What is watched, by model and version."""
        return [watched for _, watched in sorted(self._watched.items())]

    def start(self) -> None:
        """Begin."""
        self._pool.submit(self._run)

    def stop(self) -> None:
        """End, after what is captured was taken in and kept."""
        self._stopping.set()
        self._pool.shutdown()

    def look(self) -> None:
        """Take in what was captured, evaluate what is due, and follow the plan and its traffic."""
        self._follow()
        for rows in self._capture.drain():
            self._take(rows)
        for watched in self._watched.values():
            self._evaluate(watched)
        now_s = time.monotonic()
        if now_s - self._kept_s >= KEEP_S:
            self._keep()
            self._kept_s = now_s

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                log.exception("drift could not be looked at; the next look may succeed")
            if self._stopping.wait(self._drain_s):
                break
        try:
            self.look()
            self._keep()
        except Exception:
            log.exception("drift windows could not be kept")

    def _follow(self) -> None:
        """Make monitors for new versions, let go of old ones, and set the rates."""
        arms = {arm.loaded.key: arm for arm in self._arms()}
        for key in [key for key in self._watched if key not in arms]:
            gone = self._watched.pop(key)
            self._capture.set_rate(gone.slot, 0.0)
            # It may come back: a rollback does not begin a day anew, either.
            self._keep_one(gone)
        for key, arm in arms.items():
            if key not in self._watched:
                self._watched[key] = self._open(key, arm.loaded.slot)
        now_s = time.monotonic()
        elapsed_s = now_s - self._looked_s if self._looked_s else 0.0
        self._looked_s = now_s
        counted = {(slot.model, slot.version): slot for slot in self._metrics.snapshot().slots}
        wanted = {
            watched.slot: counted[watched.key[:2]].predictions
            for watched in self._watched.values()
            if watched.monitor is not None
        }
        for slot, rate in self._sampler.rates(wanted, elapsed_s).items():
            self._capture.set_rate(slot, rate)

    def _open(self, key: Key, slot: int) -> Watched:
        try:
            bundle = self._repository.read(key.model, key.version)
            if bundle.sha256.hex() != key.sha256:
                return Watched(key, slot, None, "its bundle was replaced since it was loaded")
            monitor = Monitor(
                load_reference(bundle),
                monitored_features(bundle.schema.features),
                self._settings,
            )
        except ScoregateError as error:
            log.warning("drift of %s %s is not watched: %s", key.model, key.version, error)
            return Watched(key, slot, None, str(error))
        path = self._path(key)
        if path is not None and path.exists():
            try:
                monitor.restore(path.read_bytes())
            except (ScoregateError, OSError) as error:
                log.info("drift of %s %s begins anew: %s", key.model, key.version, error)
        return Watched(key, slot, monitor)

    def _take(self, rows: CapturedRows) -> None:
        for watched in self._watched.values():
            if watched.slot == rows.slot and watched.monitor is not None:
                try:
                    watched.monitor.observe(rows.rows, rows.raw, rows.sources, rows.event_time_ms)
                except Exception as error:  # noqa: BLE001 - whatever it was, serving goes on
                    self._fail(watched, error)

    def _evaluate(self, watched: Watched) -> None:
        if watched.monitor is None:
            return
        try:
            if watched.monitor.evaluate() is not None:
                watched.n_ok += 1
        except Exception as error:  # noqa: BLE001 - whatever it was, serving goes on
            self._fail(watched, error)

    def _fail(self, watched: Watched, error: Exception) -> None:
        """Count a monitor that raised, and begin anew with another."""
        watched.n_failed += 1
        log.error(
            "the drift monitor of %s %s failed, and begins anew",
            watched.key.model,
            watched.key.version,
            exc_info=error,
        )
        fresh = self._open(watched.key, watched.slot)
        watched.monitor, watched.trouble = fresh.monitor, fresh.trouble

    def _keep(self) -> None:
        for watched in self._watched.values():
            self._keep_one(watched)

    def _keep_one(self, watched: Watched) -> None:
        path = self._path(watched.key)
        # One that saw nothing has nothing to keep, and must not take the place of what is kept.
        if watched.monitor is None or path is None or not watched.monitor.n_observed:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, watched.monitor.to_bytes())
        except OSError as error:
            log.warning("drift windows cannot be kept in %s: %s", path, error.strerror)

    def _path(self, key: Key) -> Path | None:
        if self._directory is None:
            return None
        return self._directory / key.model / f"{key.version}-{key.sha256[:16]}.drift"


def _be_nice() -> None:
    # Of this thread alone: on Linux a thread id is what the call takes.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
