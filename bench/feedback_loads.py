"""The loads of the feedback benchmark, and the servers that they go to.

    recording   closed loop, in turn: a server that records nothing; one that records as by
                default; one that records everything, into a ring that holds all of it
    sustained   20,000 calls a second, every one recorded; then their outcomes, over the wire
    capacity    as many calls as are taken, recorded as by default: a sample, and everything over
                the lowest threshold
    console     half of what a server takes, while somebody reads the console's data

The cost is told of the loop's thread alone, which is what callers wait for, and of the process,
whose threads in background write what the loop has left for them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.errors import LoadError
from bench.feedback_console import Console, console
from bench.feedback_plan import Plan
from bench.feedback_requests import Reported, Requests, report
from bench.measure import PATIENT_MS, Measured
from bench.message import Message
from bench.model import FOLDER
from bench.monitoring_loads import stopped
from bench.rollout_loads import Loads, Serving, serving
from bench.scenario import Closed, Constant, Rate, Shape
from bench.targets import Target

STORES = FOLDER / "feedback"  # on a disk, as servers have it; /tmp may be memory
SUSTAINED_PER_S = 20_000.0
EVERYTHING = ("--feedback-records-per-s", "1000000")
# As many decisions as a run has.
LARGE_RING = ("--feedback-ring-records", str(1 << 20))
# Quality is measured every second, as an impatient operator would have it.
IMPATIENT = (
    *("--feedback-interval-s", "1"),
    *("--feedback-maturity-s", "2", "--feedback-window-s", "600"),
)
KINDS: dict[str, tuple[str, ...]] = {
    "off": ("--no-feedback-enabled",),
    "default": (),
    "all": (*EVERYTHING, *LARGE_RING),
}
TICKS_PER_S = 100  # of /proc, USER_HZ
PAUSE_S = 0.8  # more than a round of the server's, which writes every half second
SETTLE_S = 1.5  # of a load while the share follows the traffic
SETTLED_S = 40.0  # at most
DRAINED_S = 60.0  # at most, until what is in the rings is on disk
# Every request once, before any is sent again.
IN_TURN = Shape(order="cycle")
OPEN_IN_TURN = Shape(streams=32, timeout_ms=PATIENT_MS, order="cycle")


@dataclass
class Recording:
    """What recording costs, one value per repetition.

    Attributes
    ----------
    loop_us
        CPU microseconds of the loop's thread, per call, by kind.
    dropped_share
        Of all calls, by kind.
    """

    loop_us: dict[str, list[float]] = field(default_factory=dict)
    dropped_share: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Counted:
    """Of a server's own counters, what is about recording."""

    calls: float
    recorded: float
    dropped: float

    @classmethod
    def of(cls, target: Target) -> Counted:
        """Read them."""
        found = target.counters()
        names = ("ml_predictions_total", "ml_feedback_records_total")
        calls, recorded = (total(found, name) for name in names)
        return cls(calls, recorded, total(found, "ml_feedback_records_dropped_total"))

    def since(self, before: Counted) -> Counted:
        """Return what was added."""
        return Counted(
            self.calls - before.calls,
            self.recorded - before.recorded,
            self.dropped - before.dropped,
        )


@dataclass(frozen=True)
class Sustained:
    """What became of a rate that is recorded in full, and of its outcomes."""

    counted: Counted
    reported: Reported
    resident_bytes: int


@dataclass(frozen=True)
class AtCapacity:
    """What became of more than can be recorded."""

    counted: Counted  # once the share fitted the traffic
    before: Counted  # until then
    settling_s: float
    sampling_ratio: float
    over: Reported  # of what scored over the lowest threshold
    under: Reported


def total(counters: dict[str, float], name: str) -> float:
    """Return the sum over all labels of a counter."""
    return sum(value for key, value in counters.items() if key.partition("{")[0] == name)


@contextmanager
def recorder(name: str, repository: Path, *options: str) -> Iterator[Serving]:
    """Serve with a store of decisions of its own, which is gone afterwards."""
    folder = (STORES / name).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        where = ("--feedback-directory", str(folder))
        with serving(name, repository, *where, *options) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def loop_ticks(pid: int) -> int:
    """Return the CPU time of a server's loops so far, in ticks of /proc."""
    ticks = 0
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        if name.startswith(("scoregate-loop", "scoregate-lp")):
            fields = rest.split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks


def drained(target: Target) -> Counted:
    """Wait until what the rings hold is on disk; return the counters then.

    Raises
    ------
    LoadError
        It takes too long.
    """
    limit = time.monotonic() + DRAINED_S
    before = Counted.of(target)
    while time.monotonic() < limit:
        time.sleep(PAUSE_S)
        now = Counted.of(target)
        if now == before:
            return now
        before = now
    raise LoadError(f"{target.name}: decisions are still being written after {DRAINED_S:g} s")


def recording(loads: Loads, plan: Plan, repository: Path, requests: Requests) -> Recording:
    """Make the loads called "closed_" and a name of KINDS, in turn."""
    found = Recording()
    with ExitStack() as stack:
        targets = {
            name: stack.enter_context(recorder(name, repository, *options)).target
            for name, options in KINDS.items()
        }
        for repetition in range(-1, plan.closed_repetitions):  # the first one settles the shares
            messages = requests.batch().messages
            names = list(KINDS) if repetition % 2 == 0 else list(KINDS)[::-1]
            for name in names:
                others = [target for other, target in targets.items() if other != name]
                with ExitStack() as still:
                    for other in others:
                        still.enter_context(stopped(other))
                    _record(loads, plan, targets[name], name, messages, repetition, found)
    for name in KINDS:
        loads.runs.pop(f"settling_{name}", None)
    return found


def _record(
    loads: Loads,
    plan: Plan,
    target: Target,
    name: str,
    messages: list[Message],
    repetition: int,
    found: Recording,
) -> None:
    assert target.pid is not None
    before, ticks = Counted.of(target), loop_ticks(target.pid)
    loads.one(
        f"closed_{name}" if repetition >= 0 else f"settling_{name}",
        target,
        messages,
        Closed(),
        max(repetition, 0),
        shape=IN_TURN,
        duration_s=plan.closed_s if repetition >= 0 else plan.settle_s,
    )
    ticks = loop_ticks(target.pid) - ticks
    after = Counted.of(target) if name == "off" else drained(target)
    counted = after.since(before)
    if repetition < 0:
        return
    found.loop_us.setdefault(name, []).append(ticks / TICKS_PER_S * 1e6 / counted.calls)
    found.dropped_share.setdefault(name, []).append(counted.dropped / counted.calls)


def sustained(loads: Loads, plan: Plan, repository: Path, requests: Requests) -> Sustained:
    """Make the load called "sustained", and report the outcomes of all its calls."""
    load = Constant(Rate(per_s=SUSTAINED_PER_S))
    for attempt in range(1, plan.loads.attempts + 1):
        batch = requests.batch()
        with recorder("sustained", repository, *EVERYTHING) as running:
            target = running.target
            run = loads.one(
                "sustained", target, batch.messages, load, 0,
                shape=OPEN_IN_TURN, duration_s=plan.sustained_s, attempts=1,
            )  # fmt: skip
            if not run.valid and attempt < plan.loads.attempts:
                loads.runs.pop("sustained")
                continue
            counted = drained(target)
            said = report(running.control, batch.ids[: round(counted.calls)])
            return Sustained(counted, said, target.resident_bytes() or 0)
    raise AssertionError("the last attempt returns")


def capacity(
    loads: Loads, plan: Plan, repository: Path, requests: Requests
) -> tuple[AtCapacity, Console]:
    """Make the loads called "capacity" and "console"."""
    with recorder("capacity", repository, *IMPATIENT) as running:
        target = running.target
        closed = partial(loads.one, target=target, load=Closed(), shape=IN_TURN, repetition=0)
        settling_s = _settle(closed, target, requests)
        loads.runs.pop("settling")
        settled, batch = Counted.of(target), requests.batch()
        closed("capacity", messages=batch.messages, duration_s=plan.capacity_s)
        ratio = min(_each(target.counters(), "ml_feedback_sampling_ratio"))
        counted = drained(target)
        over = report(running.control, batch.chosen(flagged=True))
        under = report(running.control, batch.chosen(flagged=False))
        found = AtCapacity(counted.since(settled), settled, settling_s, ratio, over, under)
        return found, console(loads, plan, target, requests.batch().messages)


def _settle(closed: Callable[..., Measured], target: Target, requests: Requests) -> float:
    """Send all that is taken, until the share that is recorded fits; return how long it took."""
    messages, started = requests.batch().messages, time.monotonic()
    while True:
        before = Counted.of(target)
        closed("settling", messages=messages, duration_s=SETTLE_S)
        if not Counted.of(target).since(before).dropped:
            return time.monotonic() - started
        if time.monotonic() - started > SETTLED_S:
            raise LoadError(f"{target.name}: decisions are dropped even after {SETTLED_S:g} s")


def _each(counters: dict[str, float], name: str) -> list[float]:
    found = [value for key, value in counters.items() if key.partition("{")[0] == name]
    if not found:
        raise LoadError(f"the server does not say {name}")
    return found
