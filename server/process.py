"""The serving process: what starts in which order, and how it ends.

Order of start: settings (before this module), signals, native library, feature stores, models
(verified, proven, published), fast door, control port, sidecar, and only then ready. A step that
fails ends the process with one line; what was started before is stopped.

End: the first SIGTERM or SIGINT makes every port say "not ready", sends GOAWAY at the fast door,
lets calls in flight finish within the grace and ends with exit code 0. A second signal ends the
process at once, with 128 + its number.

What it does not do: daemonise, fork, or restart itself. That is the service manager's.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType

from fastpath import onnx
from fastpath.loop import LoopGroup
from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from fastpath.scoring import ScoringService
from server import __version__, logs
from server.collector import ScoregateCollector, make_registry
from server.config import Settings
from server.console.console import Console
from server.console.sources import Sources
from server.control.access import open_access
from server.control.describe import describe_model
from server.control.server import ControlPort
from server.control.servicer import ControlServicer
from server.control.tls import server_credentials
from server.errors import StartError
from server.events.drift import DriftEvents
from server.events.metrics import event_families
from server.events.opening import open_events
from server.events.rollout import RolloutEvents
from server.feedback.opening import open_feedback
from server.files import write_whole
from server.health_metrics import Health
from server.lifecycle import Lifecycle, State
from server.memory import limit_arenas, resident_bytes
from server.monitoring.opening import open_drift
from server.priority import come_first
from server.rollout.arms import percent
from server.rollout.keeper import Keeper
from server.rollout.opening import open_rollout
from server.rollout.plans import ServedArm
from server.rollout.rollout import NothingServableError
from server.rollout.split import ALL_BASIS_POINTS
from server.sidecar import Sidecar, routes
from server.stores import FeatureStores

# Calls at the control port are quick; what remains after the drain are health watches, which
# would never end by themselves.
CONTROL_GRACE_S = 0.5
SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Serve until a signal; return after a clean end.

    Raises
    ------
    StartError, BundleError, FastpathError
        The server cannot start.
    """
    limit_arenas()
    logs.configure(settings.log)
    stop = _catch_signals()
    ready_file = Path(settings.ready_file) if settings.ready_file else None
    if ready_file is not None:
        _remove(ready_file)
    with ExitStack() as ending:
        server = Server(settings)
        ending.callback(server.stop)
        server.start()
        if ready_file is not None:
            ending.callback(_remove, ready_file)
            _write_ready_file(ready_file, server.addresses)
        # Unbuffered, and nobody has to listen: a closed pipe must not end the server.
        with suppress(OSError):
            os.write(sys.stdout.fileno(), server.banner().encode())
        stop.wait()
        log.info("draining: calls in flight have %g s", settings.drain.grace_s)


class Server:
    """The rooms of one process, wired together.

    Parameters
    ----------
    settings
        Checked settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Before anything is opened: files that cannot be used end the start at once.
        self._access = open_access(settings.control)
        self._credentials = server_credentials(settings.control)
        self.lifecycle = Lifecycle()
        self.events = open_events(settings, self.lifecycle)
        self.addresses: dict[str, str] = {}
        self.board = PlanBoard()
        self.metrics = Metrics(settings.fast.loops)
        self.stores = FeatureStores(settings.features, settings.redis, settings.fast.loops)
        self.rollout = open_rollout(
            settings, self.board, self.metrics, describe_model, lambda: self.stores.batch
        )
        self._keeper = Keeper(self.rollout, settings.rollout.versions, settings.rollout.poll_s)
        self.drift = open_drift(settings, self.metrics, self.rollout, DriftEvents(self.events))
        self.feedback = open_feedback(settings, self.metrics, self.rollout)
        self.rollout.listen(RolloutEvents(self.events, self.rollout.journal).take)
        self._loops: LoopGroup | None = None
        self._control: ControlPort | None = None
        self._sidecar: Sidecar | None = None

    def start(self) -> None:
        """Load what is to be served and open the ports, in order; return when ready."""
        log.debug("onnxruntime %s", onnx.library_version())
        self.events.start()
        reason = self._start_rollout()
        if self.feedback is not None:
            self.feedback.start()
        loops = self._open_fast_door()
        self._open_control_port(loops)
        self._open_sidecar(loops)
        self.stores.start(self.rollout.renew_tables)
        self._keeper.start()
        if self.drift is not None:
            self.drift.start()
        self.lifecycle.listen(lambda state: self.board.set_serving(state is State.SERVING))
        if reason:
            self.lifecycle.move(State.NOT_READY, reason)
            self.rollout.listen(lambda _: self.lifecycle.move(State.SERVING))
        else:
            self.lifecycle.move(State.SERVING)
        # What lives now lives until the end: later collections need not look at it.
        gc.collect()
        gc.freeze()

    def _start_rollout(self) -> str:
        """Put the first plan in force; return why there is none, where one is remembered."""
        settings = self.settings
        try:
            self.rollout.start(
                settings.models, settings.default_model, resume=settings.rollout.resume
            )
        except NothingServableError as error:
            # Operators need the control port to mend it.
            log.error("not ready: %s", error)
            return str(error)
        return ""

    def stop(self) -> None:
        """Drain and end what was started."""
        grace_s = self.settings.drain.grace_s
        # First of all: load balancers look elsewhere as soon as the ports say so.
        self.lifecycle.move(State.DRAINING, "draining")
        if self._loops is not None and not self._loops.drain(grace_s):
            log.warning("the grace of %g s is over: calls in flight are cut off", grace_s)
        if self._control is not None:
            self._control.stop(CONTROL_GRACE_S)
        if self._sidecar is not None:
            self._sidecar.stop()
        if self._loops is not None:
            self._loops.stop()
        self.stores.stop()
        if self.drift is not None:
            self.drift.stop()
        if self.feedback is not None:
            self.feedback.stop()
        self._keeper.stop()
        self.rollout.close()
        self.events.stop()

    def _open_fast_door(self) -> LoopGroup:
        fast = self.settings.fast
        loops = LoopGroup(
            [
                ScoringService(
                    self.board,
                    self.metrics,
                    thread,
                    store,
                    None if self.drift is None else self.drift.capture,
                    None if self.feedback is None else self.feedback.ledger,
                )
                for thread, store in enumerate(self.stores.online)
            ],
            max_message_bytes=fast.max_message_bytes,
            spin_us=fast.spin_us,
            max_connections=fast.max_connections,
        )
        port = loops.listen(fast.address, fast.port)
        self.addresses["fast"] = join_address(fast.address, port)
        if fast.unix_socket:
            loops.listen_unix(fast.unix_socket)
            self.addresses["fast_unix"] = f"unix:{fast.unix_socket}"
        loops.start()
        self._loops = loops
        if fast.realtime:
            come_first(loops.thread_ids)
        return loops

    def _open_control_port(self, loops: LoopGroup) -> None:
        settings = self.settings
        servicer = ControlServicer(
            self.rollout,
            self.metrics,
            self.lifecycle,
            loops.stats,
            self.addresses,
            self.stores,
            self._access,
            None if self.drift is None else self.drift.watch,
            self.events,
        )
        self._control = ControlPort(
            settings.control,
            settings.fast.max_message_bytes,
            loops,
            servicer,
            self.lifecycle,
            self._access,
            self._credentials,
            self.feedback,
        )
        port = self._control.port
        self.addresses["control"] = join_address(settings.control.address, port)
        self._control.start()

    def _open_sidecar(self, loops: LoopGroup) -> None:
        settings = self.settings.sidecar
        console = Console(
            Sources(
                self.lifecycle,
                self.rollout,
                self.metrics,
                self.stores,
                self.events,
                None if self.drift is None else self.drift.watch,
                None if self.feedback is None else self.feedback.reports,
                name=f"{socket.gethostname()}:{settings.port}",
            ),
            settings.address,
        )
        collector = ScoregateCollector(
            self.metrics,
            loops.stats,
            lambda: self.rollout.arms,
            lambda: self.rollout.generation,
            self.stores,
            Health(loops, self.lifecycle).families,
            lambda: event_families(self.events),
            console.families,
            *([] if self.drift is None else [self.drift.families]),
            *([] if self.feedback is None else [self.feedback.families]),
        )
        table = routes(self.lifecycle, make_registry(collector))
        if settings.console:
            table |= console.routes()
        self._sidecar = Sidecar(settings.address, settings.port, table)
        self.addresses["sidecar"] = join_address(settings.address, self._sidecar.port)
        self._sidecar.start()

    def banner(self) -> str:
        """Return the lines that say what serves where."""
        models = ", ".join(_describe(model) for model in self.rollout.arms) or "nothing yet"
        how = "ready" if self.lifecycle.is_serving else "up but not ready"
        ports = "".join(f"  {door:<10} {where}\n" for door, where in self.addresses.items())
        return (
            f"scoregate {__version__} {how} in {process_age_s():.2f} s, "
            f"{resident_bytes() / 1e6:.0f} MB resident: {models}\n{ports}"
        )


def join_address(address: str, port: int) -> str:
    """Return host and port as clients write them."""
    is_bare_ipv6 = ":" in address and not address.startswith("[")
    return f"[{address}]:{port}" if is_bare_ipv6 else f"{address}:{port}"


def process_age_s() -> float:
    """Return the seconds since this process was started, to a hundredth."""
    # Field 22, counted after the parenthesised command, which may hold spaces.
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s


def _describe(arm: ServedArm) -> str:
    n_features = arm.loaded.content.schema.n_features
    share = (
        ""
        if arm.weight_basis_points == ALL_BASIS_POINTS
        else (f", {arm.name} {percent(arm.weight_basis_points)}")
    )
    return f"{arm.model} {arm.version} ({arm.engine} engine, {n_features} features{share})"


def _catch_signals() -> threading.Event:
    """Return an event that the first signal sets; the second ends the process."""
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in SIGNALS:
        signal.signal(number, on_signal)
    return stop


def _write_ready_file(path: Path, addresses: dict[str, str]) -> None:
    """Write the addresses and the process id, aside and renamed: readers see all or nothing."""
    document = {
        "pid": os.getpid(),
        "addresses": addresses,
        "ready_s": round(process_age_s(), 2),
        "resident_bytes": resident_bytes(),
    }
    try:
        write_whole(path, json.dumps(document).encode())
    except OSError as error:
        raise StartError(f"ready file {path}: cannot be written: {error.strerror}") from None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StartError(f"ready file {path}: cannot be removed: {error.strerror}") from None
