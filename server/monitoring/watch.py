"""The background work: drain the rings, feed the monitors, evaluate, keep what was counted.

Rules: it runs on one thread of low priority and can neither delay nor fail a call. A monitor that
raises is counted, logged and made anew, the others go on; one that fails again and again rests in
between, ever longer. A model whose bundle holds no usable reference is not watched, and its state
says so. What the windows have counted is written beside the journal now and then, when a version
leaves and at the end, and taken up again when it comes back, so that neither a restart nor a
rollback begins a day anew. A disk that takes nothing costs that, and is told once.

One monitor per (model, version) that takes part. It lives as long as its version does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fastpath.capture import Capture, CapturedRows
from fastpath.metrics import Metrics
from server.drift import DriftSettings, Evaluation, Monitor, load_reference, monitored_features
from server.errors import BundleError, ScoregateError
from server.monitoring.keeping import KeptWindows
from server.monitoring.sampling import Sampler
from server.priority import be_nice
from server.repository import Repository
from server.rollout.loaded import Key
from server.rollout.plans import ServedArm

KEEP_S = 300.0  # between two times that windows are written
MAX_REST_S = 300.0  # of a monitor that fails again and again

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
    is_proven: bool = False  # this monitor has compared full windows: it bears what it holds
    n_failed_in_a_row: int = 0  # without one that was proven in between
    rests_until_s: float = 0.0  # by the monotonic clock

    @property
    def evaluation(self) -> Evaluation | None:
        """The last evaluation."""
        monitor = self.monitor  # whole, or None: the thread that watches may replace it
        return None if monitor is None else monitor.evaluation


class Listener(Protocol):
    """Who is told what is found: on drift's thread, so it must not block."""

    def evaluated(self, model: str, version: str, found: Evaluation) -> None:
        """Take an evaluation."""

    def failed(self, model: str, version: str, error: Exception) -> None:
        """Take what a monitor raised."""


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
    listener
        Is told what is found; None: nobody is.
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
        listener: Listener | None = None,
    ) -> None:
        self._listener = listener
        self._capture = capture
        self._metrics = metrics
        self._repository = repository
        self._arms = arms
        self._settings = settings
        self._drain_s = drain_s
        self._kept = KeptWindows(directory)
        self._sampler = Sampler(rows_per_s)
        self._watched: dict[Key, Watched] = {}
        self._looked_s = 0.0
        self._kept_s = time.monotonic()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(
            1, thread_name_prefix="scoregate-drift", initializer=be_nice
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
        # In this order what a version that has left decided until then is its own, too.
        arms = self._arms()
        for rows in self._capture.drain():
            self._take(rows)
        for watched in self._watched.values():
            self._evaluate(watched)
        self._follow(arms)
        now_s = time.monotonic()
        if now_s - self._kept_s >= KEEP_S:
            self._kept_s = now_s
            self.keep()

    def keep(self) -> None:
        """Write the windows down."""
        for watched in self._watched.values():
            self._keep(watched)

    def _run(self) -> None:
        try:
            # Twice the slow window: rows that old have left it, even where clocks disagree.
            self._kept.sweep(2 * self._settings.slow_span_s)
        except OSError as error:
            log.warning("what is left of kept drift windows cannot be removed: %s", error)
        while True:
            try:
                self.look()
            except Exception:
                log.exception("drift could not be looked at; the next look may succeed")
            if self._stopping.wait(self._drain_s):
                break
        try:
            self.look()
            self.keep()
        except Exception:
            log.exception("drift windows could not be kept")

    def _follow(self, served: Sequence[ServedArm]) -> None:
        """Make monitors for new versions, let go of old ones, and set the rates."""
        arms = {arm.loaded.key: arm for arm in served}
        for key in [key for key in self._watched if key not in arms]:
            gone = self._watched.pop(key)
            self._capture.set_rate(gone.slot, 0.0)
            # It may come back: a rollback does not begin a day anew, either.
            self._keep(gone)
        now_s = time.monotonic()
        for key, arm in arms.items():
            watched = self._watched.get(key)
            if watched is None:
                watched = Watched(key, arm.loaded.slot, None)
                self._open(watched, with_windows=True)
                self._watched[key] = watched
            elif watched.rests_until_s and watched.rests_until_s <= now_s:
                self._open(watched, with_windows=False)
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

    def _open(self, watched: Watched, *, with_windows: bool) -> None:
        """Give it a monitor, with the windows that were kept, or the reason why it has none."""
        key = watched.key
        made: Monitor | None = None
        trouble = ""
        try:
            bundle = self._repository.read(key.model, key.version)
            if bundle.sha256.hex() != key.sha256:
                raise BundleError("its bundle was replaced since it was loaded")
            monitor = Monitor(
                load_reference(bundle),
                monitored_features(bundle.schema.features),
                self._settings,
            )
            if with_windows:
                self._restore(key, monitor)
            made = monitor
        except ScoregateError as error:
            log.warning("drift of %s %s is not watched: %s", key.model, key.version, error)
            trouble = str(error)
        except Exception as error:
            log.exception("drift of %s %s is not watched", key.model, key.version)
            trouble = f"{type(error).__name__}: {error}"
        # First: what is said to be watched is captured, whoever looks in between.
        rate = 0.0 if made is None else self._sampler.rate(watched.slot)
        self._capture.set_rate(watched.slot, rate)
        # At once: a scrape in between finds the monitor before or this one.
        watched.monitor, watched.trouble = made, trouble
        watched.is_proven, watched.rests_until_s = False, 0.0

    def _restore(self, key: Key, monitor: Monitor) -> None:
        try:
            data = self._kept.read(key)
            if data is not None:
                monitor.restore(data)
        except (ScoregateError, OSError) as error:
            log.info("drift of %s %s begins anew: %s", key.model, key.version, error)

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
            evaluation = watched.monitor.evaluate()
            if evaluation is not None:
                watched.n_ok += 1
                if evaluation.fast.is_ready:
                    watched.is_proven, watched.n_failed_in_a_row = True, 0
        except Exception as error:  # noqa: BLE001 - whatever it was, serving goes on
            self._fail(watched, error)
        else:
            self._tell(watched, evaluation)

    def _tell(self, watched: Watched, found: Evaluation | Exception | None) -> None:
        if self._listener is None or found is None:
            return
        try:
            if isinstance(found, Exception):
                self._listener.failed(watched.key.model, watched.key.version, found)
            else:
                self._listener.evaluated(watched.key.model, watched.key.version, found)
        except Exception:
            log.exception("whoever is told of drift failed")

    def _fail(self, watched: Watched, error: Exception) -> None:
        """Begin anew with another monitor, at once or after a rest; count the one that raised."""
        log.error(
            "the drift monitor of %s %s failed, and begins anew",
            watched.key.model,
            watched.key.version,
            exc_info=error,
        )
        self._tell(watched, error)
        watched.n_failed_in_a_row += 1
        if watched.n_failed_in_a_row == 1:
            # Kept windows that no monitor was proven with may be why: they are left alone.
            self._open(watched, with_windows=watched.is_proven)
        else:
            rest_s = min(2.0 ** (watched.n_failed_in_a_row - 2), MAX_REST_S)
            watched.trouble = (
                f"its monitor failed {watched.n_failed_in_a_row} times in a row "
                f"({type(error).__name__}: {error}) and rests for {rest_s:g} s"
            )
            watched.rests_until_s = time.monotonic() + rest_s
            watched.monitor = None
            self._capture.set_rate(watched.slot, 0.0)
        # Last: whoever sees it counted finds what came of it.
        watched.n_failed += 1

    def _keep(self, watched: Watched) -> None:
        # One that saw nothing has nothing to keep, and must not take the place of what is kept.
        if self._kept.is_off or watched.monitor is None or not watched.monitor.n_observed:
            return
        try:
            data = watched.monitor.to_bytes()
        except Exception as error:  # noqa: BLE001 - whatever it was, serving goes on
            self._fail(watched, error)
        else:
            self._kept.write(watched.key, data)
