"""The loads of the rollout benchmark, and the servers that they go to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import measure
from bench.errors import LoadError
from bench.generator import Limits
from bench.measure import Measured, Work
from bench.message import Message
from bench.model import prepare
from bench.processes import server
from bench.progress import Display
from bench.rollout_plan import Plan
from bench.scenario import Closed, LoadKind, Poisson, Rate, Shape
from bench.sources import SCORE, Cache
from bench.targets import ALONE, Target

WARMUP_S = 0.3
# Callers that do not know of one another: few have to queue. They are patient: a call that a busy
# machine made late is late, not failed.
OPEN_SHAPE = Shape(streams=32, timeout_ms=measure.PATIENT_MS)


@dataclass(frozen=True)
class Serving:
    """A server that is up."""

    target: Target
    control: str  # "host:port" of the control port


@contextmanager
def serving(name: str, repository: Path, *options: str) -> Iterator[Serving]:
    """Serve a repository on the servers' core until the block ends."""
    where = ["--repository", str(repository)]
    with server(["server", "serve", *ALONE, *where, *options]) as running:
        addresses = running.ready["addresses"]
        assert isinstance(addresses, dict)
        fast, sidecar = str(addresses["fast"]), str(addresses["sidecar"])
        target = Target(name, fast, SCORE, running.pid, sidecar, running.seconds_to_ready)
        yield Serving(target, str(addresses["control"]))


@dataclass
class Loads:
    """Makes loads and keeps what they found.

    Attributes
    ----------
    n_failed
        Calls that were not answered, or not with OK, or wrongly: of every attempt at a run.
    """

    plan: Plan
    display: Display
    core: int | None
    runs: dict[str, list[Measured]] = field(default_factory=dict)
    n_failed: dict[str, int] = field(default_factory=dict)

    def one(
        self,
        name: str,
        target: Target,
        messages: list[Message],
        load: LoadKind,
        repetition: int,
        *,
        shape: Shape | None = None,
        duration_s: float = 1.0,
        n_calls: int | None = None,
        limits: Limits | None = None,
        attempts: int = 0,
    ) -> Measured:
        """Make a load; again, where the machine spoiled it. A failed call is never made good.

        Raises
        ------
        LoadError
            An answer was wrong, or the load could not begin.
        """
        self.display.begin(f"{name} {repetition + 1}")
        work = self._work(name, target, messages, load, shape, duration_s, n_calls)
        for attempt in range(1, (attempts or self.plan.attempts) + 1):
            seeded = replace(work, seed=repetition, limits=limits or Limits())
            measured = measure.run(seeded, repetition, self._nothing, self.display.show)
            measured.n_attempts = attempt
            n_failed = measured.result.n_errors + measured.result.n_wrong
            self.n_failed[name] = self.n_failed.get(name, 0) + n_failed
            if measured.valid or n_failed:
                break
            self.display.say(f"  spoiled: {measured.reasons[0]}")
        if measured.result.n_wrong:
            raise LoadError(f"{name}: {'; '.join(measured.reasons)}")
        self.runs.setdefault(name, []).append(measured)
        return measured

    def half_of_capacity(self, target: Target, messages: list[Message]) -> Poisson:
        """Return independent arrivals at half of what a server takes of them."""
        self.display.begin("capacity")
        work = self._work("capacity", target, messages, Closed(), None, 1.0, None)
        closed = measure.run(work, 0, self._nothing, self.display.show).quantities["calls_per_s"]
        capacity = measure.open_capacity(work, closed, self._nothing, self.display.show)
        return Poisson(Rate(per_s=round(capacity / 2)))

    def values(self, name: str, quantity: str) -> list[float]:
        """Return one quantity of every run of a name."""
        return [run.quantities[quantity] for run in self.runs[name]]

    @property
    def reasons(self) -> list[str]:
        """What speaks against the runs."""
        return [
            f"{run.run}, repetition {run.repetition + 1}: {reason}"
            for runs in self.runs.values()
            for run in runs
            for reason in run.reasons
        ]

    @property
    def _nothing(self) -> Cache:
        return Cache(prepare)  # of `measure.run`: nothing of the harness runs beside our loads

    def _work(
        self,
        name: str,
        target: Target,
        messages: list[Message],
        load: LoadKind,
        shape: Shape | None,
        duration_s: float,
        n_calls: int | None,
    ) -> Work:
        return Work(
            name=name,
            target=target,
            messages=messages,
            load=load,
            shape=shape or Shape(),
            duration_s=duration_s,
            warmup_s=WARMUP_S,
            limits=Limits(),
            n_calls=n_calls,
            core=self.core,
        )
