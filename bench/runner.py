"""Runs scenarios: repetitions, alternating; capacities first; ratios and promises last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bench import measure
from bench.beside import file_limit
from bench.errors import LoadError, LoadInputError
from bench.generator import Limits
from bench.measure import Measured, Work
from bench.model import prepare, prepare_heavy
from bench.processes import LOAD_CORE
from bench.progress import Display
from bench.results import Spread, Target
from bench.scenario import Closed, Rate, Run, Scenario, Sweep, capacities
from bench.sources import Cache
from bench.targets import Target as Server
from bench.targets import Targets

CAPACITY_S, QUICK_CAPACITY_S = 1.5, 0.6


@dataclass(frozen=True)
class Options:
    """How long and how often, whatever the scenario says."""

    repetitions: int | None = None
    time_scale: float = 1.0
    quick: bool = False
    core: int | None = None  # of the generator; None: wherever this process may run
    max_lag_ms: float | None = None  # how late the generator may be; None: as `Limits` says

    @property
    def attempts(self) -> int:
        """How often a run may be made where the machine spoiled it."""
        return measure.QUICK_ATTEMPTS if self.quick else measure.ATTEMPTS

    def limits(self, max_error_share: float) -> Limits:
        """Return beyond what a run is not valid."""
        if self.max_lag_ms is None:
            return Limits(max_error_share=max_error_share)
        lag_ms = self.max_lag_ms
        return Limits(max_error_share, lag_ms, late_ms=lag_ms, max_stall_ms=max(lag_ms, 50.0))


@dataclass
class Report:
    """What a scenario found."""

    scenario: Scenario
    options: Options
    capacities: dict[str, float]
    runs: list[Measured] = field(default_factory=list)

    @property
    def reasons(self) -> list[str]:
        """Everything that speaks against it, with the run that shows it."""
        return [
            f"{run.run}, repetition {run.repetition + 1}: {reason}"
            for run in self.runs
            for reason in run.reasons
        ]

    @property
    def valid(self) -> bool:
        """Whether every run can be believed."""
        return all(run.valid for run in self.runs)

    def series(self, reference: str) -> list[float]:
        """Return "run.quantity" of every repetition, in order; [] where it is not known."""
        name, _, quantity = reference.partition(".")
        runs = [run for run in self.runs if run.run == name]
        return [run.quantities[quantity] for run in runs if quantity in run.quantities]

    def metrics(self) -> dict[str, Spread]:
        """Return every quantity of every run."""
        names = {f"{run.run}.{q}": None for run in self.runs for q in run.quantities}
        return {name: Spread.of(self.series(name)) for name in names}

    def promises(self) -> tuple[dict[str, Spread], list[Target], list[str]]:
        """Return the ratios, the targets, and the promises that could not be judged."""
        found: dict[str, Spread] = {}
        targets, open_ = [], []
        for promise in self.scenario.acceptance:
            above = self.series(promise.numerator)
            below = [1.0] * len(above)
            if promise.denominator is not None:
                below = self.series(promise.denominator)
            if not above or len(above) != len(below) or not all(below):
                lacking = promise.numerator if not above else promise.denominator
                open_.append(f"{promise.name}: {lacking} is not known (whose CPU? give --pid)")
                continue
            spread = Spread.of([a / b for a, b in zip(above, below, strict=True)])
            found[promise.name] = spread
            targets.append(Target(promise.name, spread.median, promise.op, promise.target))
        return found, targets, open_

    def document(self) -> dict[str, Any]:
        """Return what a result file holds of it, beside machine and versions."""
        ratios, targets, unjudged = self.promises()
        return {
            "scenario": msgspec.to_builtins(self.scenario),
            "options": {**vars(self.options)},
            "capacities_per_s": self.capacities,
            "valid": self.valid,
            "invalid_reasons": self.reasons,
            "unjudged": unjudged,
            "metrics": self.metrics(),
            "ratios": ratios,
            "targets": targets,
            "runs": [run.to_json() for run in self.runs],
        }


@contextmanager
def load_core(core: int | None) -> Iterator[None]:
    """Keep this process (its scrapers, its watch, its generator) away from the servers' core.

    Raises
    ------
    LoadInputError
        There is no such core, or this process may not run there.
    """
    before = os.sched_getaffinity(0)
    if core is not None and core not in before:
        raise LoadInputError(f"core {core} is not among {sorted(before)}, where this may run")
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_core() -> int | None:
    """Return the core that is the load's, where there are two; servers that we start take 0."""
    core = int(LOAD_CORE)
    return core if core in os.sched_getaffinity(0) else None


class Runner:
    """Runs one scenario.

    Parameters
    ----------
    scenario
        Checked by `scenario.load`.
    outside
        A server that runs already (see `Targets`).
    """

    def __init__(
        self,
        scenario: Scenario,
        options: Options,
        display: Display,
        outside: Server | None = None,
        replaces: str = "target",
    ) -> None:
        self.scenario = scenario
        self.options = options
        self.display = display
        self._outside = outside
        self._replaces = replaces
        self._caches = {
            "heavy": Cache(prepare_heavy),
            "": Cache(prepare),
        }

    def run(self) -> Report:
        """Run everything.

        Raises
        ------
        BenchError
            Something could not even begin. What began ends up in the report, valid or not.
        """
        scenario, options = self.scenario, self.options
        file_limit()  # before a server is started: it inherits the limit
        repetitions = options.repetitions or (2 if options.quick else scenario.repetitions)
        with load_core(options.core), Targets(self._outside, self._replaces) as targets:
            report = Report(scenario, options, {})
            for server in capacities(scenario):
                report.capacities[server] = self._capacity(server, targets)
            for i in range(repetitions):
                # Every other repetition the other way round: nobody always goes first.
                for run in scenario.runs if i % 2 == 0 else scenario.runs[::-1]:
                    work = self._work(run, targets, report.capacities, seed=i)
                    label = f"{scenario.name} {i + 1}/{repetitions} {run.name}"
                    self.display.begin(label)
                    cache = self._cache(run.server)
                    found = measure.repeat(work, i, cache, self.display, options.attempts)
                    if run.server in report.capacities:
                        found.quantities["capacity_per_s"] = report.capacities[run.server]
                    report.runs.append(found)
            self.display.end()
        return report

    def _cache(self, server: str) -> Cache:
        return self._caches.get(server, self._caches[""])

    def _capacity(self, server: str, targets: Targets) -> float:
        """Measure what a server takes, at the scenario's shape."""
        self.display.begin(f"{self.scenario.name}: capacity of {server}")
        first = next((run for run in self.scenario.runs if run.server == server), None)
        run = msgspec.structs.replace(
            first or Run("capacity", server),
            load=Closed(),
            shape=msgspec.structs.replace(self.scenario.shape, timeout_ms=measure.PATIENT_MS),
            duration_s=QUICK_CAPACITY_S if self.options.quick else CAPACITY_S,
            beside=None,
        )
        work = self._work(run, targets, {}, seed=0, scaled=False)
        found = measure.repeat(work, 0, self._cache(server), self.display)
        if not found.valid:
            raise LoadError(f"the capacity of {server} is not known: {'; '.join(found.reasons)}")
        closed_per_s = found.quantities["calls_per_s"]
        cache = self._cache(server)
        return measure.open_capacity(work, closed_per_s, cache, self.display.show)

    def _work(
        self,
        run: Run,
        targets: Targets,
        known: dict[str, float],
        seed: int,
        *,
        scaled: bool = True,
    ) -> Work:
        scenario, options = self.scenario, self.options
        duration_s = run.duration_s or scenario.duration_s
        warmup_s = scenario.warmup_s
        if scaled and options.quick:
            duration_s = scenario.quick_s
            warmup_s = min(warmup_s, 0.3)
        elif scaled:
            duration_s *= options.time_scale
        load = run.load or scenario.load
        if isinstance(load, Sweep):
            duration_s /= len(load.steps)
        share = run.max_error_share
        beside = run.beside
        if beside is not None and beside.load is not None:
            rate = Rate(per_s=measure.per_s(beside.load.rate, known))
            background = msgspec.structs.replace(beside.load, rate=rate)
            beside = msgspec.structs.replace(beside, load=background)
        target = targets.get(run.server, run.spin_us)
        return Work(
            name=run.name,
            target=target,
            messages=self._cache(run.server).get(run.messages or scenario.messages, target.method),
            load=measure.resolved(load, known),
            shape=run.shape or scenario.shape,
            duration_s=max(duration_s, 0.2),
            warmup_s=warmup_s,
            limits=options.limits(scenario.max_error_share if share is None else share),
            check_share=scenario.check_share,
            beside=beside,
            core=options.core,
            seed=seed,
        )
