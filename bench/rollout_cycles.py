"""Versions swapped under load, again and again: what callers see of it, and what memory does.

A cycle deploys the version that is not in memory (read, verified, proven against onnxruntime by the
loader), gives it all the traffic and drops the other, which is freed: two calls at the control
port, two synced journal entries, two plans. Cycles follow one another without a pause, so the
loader takes whatever the loop leaves of the core. Three loads take turns at one offered rate:

    still     nothing beside it
    busy      what the loop leaves of the core is burnt by an idle-class process that has nothing to
              do with the server: what a machine does to calls when none of its cores rests
    swapping  cycles

A thousand cycles are spread over as many loads as they need. Then the same, shorter, with loops
that go first (fast.realtime), where this process may give them that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import grpc

from bench.errors import LoadError
from bench.message import Message
from bench.model import MODEL_NAME
from bench.processes import SERVER_CORE
from bench.rollout_loads import OPEN_SHAPE, Loads, Serving, serving
from bench.rollout_models import Versions
from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import control_pb2_grpc
from server.priority import stand_back

REALTIME = "_realtime"  # behind the names of loads
KINDS = ("still", "busy", "swapping")
REALTIME_SHARE = 4  # so many times fewer cycles with them
MAX_LEGS = 60  # a machine on which a thousand cycles need more is not measured
TIMEOUT_S = 60.0


@dataclass
class Cycles:
    """What the cycles found, one value per cycle."""

    load_ms: list[float] = field(default_factory=list)  # the call that deploys
    switch_ms: list[float] = field(default_factory=list)  # the call that promotes
    resident_bytes: list[int] = field(default_factory=list)  # after it

    @property
    def n(self) -> int:
        """Cycles so far."""
        return len(self.load_ms)


class Cycler:
    """Swaps the two versions, from a thread of its own.

    Parameters
    ----------
    served
        A server whose model has the versions "1" and "2", and serves one of them.
    """

    def __init__(self, served: Serving) -> None:
        self.found = Cycles()
        self._served = served
        self._channel = grpc.insecure_channel(served.control)
        # Generated stubs have no types.
        self._control = control_pb2_grpc.ControlStub(self._channel)  # type: ignore[no-untyped-call]
        self._error: BaseException | None = None
        self._serving = self._versions(pb.MODEL_VERSION_STATE_SERVING)[0]

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Make cycles until the block ends; the last one ends after it.

        Raises
        ------
        LoadError
            A change was refused, or a version that should have been freed is still in memory.
        """
        done = threading.Event()

        def run() -> None:
            # The generator has this core; what the operator does must not show in what it measures.
            stand_back()
            try:
                while not done.is_set():
                    self.cycle()
            except BaseException as error:  # noqa: BLE001 - raised again, where it is heard
                self._error = error

        thread = threading.Thread(target=run, name="bench-cycles")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        if self._error is not None:
            raise LoadError(f"a swap failed: {self._error}") from self._error
        self._check_freed()

    def cycle(self) -> None:
        """Swap the versions once."""
        other = {"1": "2", "2": "1"}[self._serving]
        deployed_ns = time.monotonic_ns()
        self._control.Deploy(
            pb.DeployRequest(model=MODEL_NAME, version=other, traffic_basis_points=0),
            timeout=TIMEOUT_S,
        )
        promoted_ns = time.monotonic_ns()
        self._control.Promote(pb.PromoteRequest(model=MODEL_NAME, arm=other), timeout=TIMEOUT_S)
        ended_ns = time.monotonic_ns()
        self._serving = other
        self.found.load_ms.append((promoted_ns - deployed_ns) / 1e6)
        self.found.switch_ms.append((ended_ns - promoted_ns) / 1e6)
        self.found.resident_bytes.append(self._served.target.resident_bytes() or 0)

    def _versions(self, state: int) -> list[str]:
        answer = self._control.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S)
        return [v.version for model in answer.models for v in model.versions if v.state == state]

    def _check_freed(self) -> None:
        if len(self._versions(pb.MODEL_VERSION_STATE_AVAILABLE)) != 1:
            raise LoadError("a version that was swapped out is still in memory: no cycle was whole")


@contextmanager
def burnt() -> Iterator[None]:
    """Burn what others leave of the servers' core, in another process, until the block ends."""
    program = "while True: pass"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            os.sched_setaffinity(process.pid, {int(SERVER_CORE)})
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
            yield
        finally:
            process.kill()


def measure(loads: Loads, versions: Versions, messages: list[Message]) -> Cycles:
    """Make the loads and the cycles.

    Raises
    ------
    BenchError
        The server does not start, a swap failed, or the cycles take too long.
    """
    plan = loads.plan
    found = _measure(loads, versions, messages, plan.n_cycles, "")
    if may_be_realtime():
        n_cycles = plan.n_cycles // REALTIME_SHARE
        _measure(loads, versions, messages, n_cycles, REALTIME, "--fast-realtime")
    return found


def may_be_realtime() -> bool:
    """Return whether this process may give threads real-time priority."""
    tried = [sys.executable, "-c", "import os; os.sched_setscheduler(0, 2, os.sched_param(1))"]
    return subprocess.run(tried, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _measure(
    loads: Loads,
    versions: Versions,
    messages: list[Message],
    n_cycles: int,
    suffix: str,
    *options: str,
) -> Cycles:
    plan = loads.plan
    options = ("--rollout-keep-plans", "0", *options)
    with serving("swapped", versions.repository, *options) as served:
        offered = loads.half_of_capacity(served.target, messages)
        cycler = Cycler(served)
        beside: dict[str, Callable[[], AbstractContextManager[None]]]
        beside = {"still": nullcontext, "busy": burnt, "swapping": cycler.beside}
        try:
            for leg in range(MAX_LEGS):
                for kind in KINDS[leg % 3 :] + KINDS[: leg % 3]:
                    seconds = plan.leg_s if kind == "swapping" else plan.still_s
                    with beside[kind]():
                        loads.one(
                            kind + suffix,
                            served.target,
                            messages,
                            offered,
                            leg,
                            shape=OPEN_SHAPE,
                            duration_s=seconds,
                        )
                loads.display.say(f"  {cycler.found.n:,} cycles")
                if cycler.found.n >= n_cycles:
                    return cycler.found
        finally:
            cycler.close()
    raise LoadError(f"{cycler.found.n} cycles in {MAX_LEGS} loads: {n_cycles} were wanted")
