"""One measured run: a load on a target, with the server's CPU and memory around it.

What a run is judged by is computed here, once, from the load's result and the watch: the names of
`quantities`. A quantity that cannot be known (the CPU of a server elsewhere) is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from bench import beside
from bench.generator import Generator, Limits, LoadResult, Progress, Schedule
from bench.message import Message
from bench.progress import Display
from bench.scenario import (
    Bursts,
    Closed,
    Constant,
    LoadKind,
    Poisson,
    Ramp,
    Rate,
    Shape,
    Sweep,
    rates_of,
)
from bench.sources import Cache
from bench.targets import Target
from bench.watch import Watch

BUSY = 0.97  # below, in closed loop, the client is the limit
ATTEMPTS, QUICK_ATTEMPTS = 3, 2  # at a run
# What a server may say because the machine is slow; anything else is about the calls themselves.
LATE_OR_BUSY = {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
SECOND_LOOKS = 2  # at a sweep's step in which the generator itself was late
PATIENT_MS = 5000.0  # a capacity is what is answered, however late
OnProgress = Callable[[Progress], object]


@dataclass(frozen=True)
class Work:
    """One run to make: everything that is the same for all its loads."""

    name: str
    target: Target
    messages: list[Message]
    load: LoadKind
    shape: Shape
    duration_s: float
    warmup_s: float
    limits: Limits
    check_share: float = 1.0
    beside: Any = None  # scenario.Beside
    n_calls: int | None = None  # closed loop: so many calls, instead of a duration
    core: int | None = None
    poll_us: float = 0.0
    seed: int = 0


@dataclass
class Measured:
    """What one run found."""

    run: str
    server: str
    repetition: int
    load: dict[str, Any]
    quantities: dict[str, float]
    result: LoadResult
    valid: bool
    reasons: list[str]
    client_bound: bool = False
    beside: dict[str, Any] = field(default_factory=dict)
    watch: dict[str, Any] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)  # of a sweep
    n_attempts: int = 1

    @property
    def is_refuted(self) -> bool:
        """Whether the server said something wrong: no second look makes that good."""
        return bool(self.result.n_wrong) or bool(set(self.result.status_counts) - LATE_OR_BUSY)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for `json`."""
        return {**vars(self), "result": self.result.to_json()}


def per_s(rate: Rate, capacities: Mapping[str, float]) -> float:
    """Return a rate in calls per second."""
    if rate.per_s is not None:
        return rate.per_s
    assert rate.capacity is not None
    return rate.capacity * capacities[rate.of]


def resolved(load: LoadKind, capacities: Mapping[str, float]) -> LoadKind:
    """Return the load with all rates in calls per second."""
    changes: dict[str, Any] = {}
    for key, rate in rates_of(load):
        absolute = Rate(per_s=per_s(rate, capacities))
        if key.startswith("steps["):
            changes.setdefault("steps", []).append(absolute)
        else:
            changes[key] = absolute
    return msgspec.structs.replace(load, **changes)


def schedule(load: LoadKind, duration_s: float) -> Any:
    """Return the intended send times of an open loop, in nanoseconds from the start."""
    none: dict[str, float] = {}
    match load:
        case Constant(rate):
            made = Schedule.constant(per_s(rate, none))
        case Poisson(rate, seed):
            made = Schedule.poisson(per_s(rate, none), seed)
        case Ramp(start, end):
            made = Schedule.ramp(per_s(start, none), per_s(end, none))
        case Bursts(base, peak, period_s, burst_s):
            made = Schedule.bursts(per_s(base, none), per_s(peak, none), period_s, burst_s)
        case _:
            raise AssertionError(f"{load} has no schedule")
    return made.times_ns(duration_s)


def once(work: Work, on_progress: OnProgress | None) -> LoadResult:
    """Make one load; nothing is measured around it."""
    generator = Generator(
        work.target.address,
        work.messages,
        n_connections=work.shape.connections,
        n_streams=work.shape.streams,
        timeout_s=work.shape.timeout_ms / 1e3,
        order=work.shape.order,
        seed=work.seed,
        check_share=work.check_share,
        limits=work.limits,
        core=work.core,
        poll_us=work.poll_us,
    )
    if isinstance(work.load, Closed):
        if work.n_calls is not None:
            return generator.run_closed(
                n_calls=work.n_calls, warmup_s=work.warmup_s, on_progress=on_progress
            )
        return generator.run_closed(
            duration_s=work.duration_s, warmup_s=work.warmup_s, on_progress=on_progress
        )
    times = schedule(work.load, work.duration_s + work.warmup_s)
    return generator.run_open(times, warmup_s=work.warmup_s, on_progress=on_progress)


def latencies(result: LoadResult) -> dict[str, float]:
    """Return what the load itself says."""
    names = {"p50_us": 50.0, "p90_us": 90.0, "p99_us": 99.0, "p999_us": 99.9, "p9999_us": 99.99}
    found = {key: result.latency.percentile(p) / 1e3 for key, p in names.items()}
    n_ended = result.n_answered + sum(result.transport_errors.values())
    found |= {
        "max_us": result.latency.max / 1e3,
        "mean_us": result.latency.mean() / 1e3,
        "lag_p99_us": result.lag.percentile(99) / 1e3,
        "calls_per_s": result.calls_per_s,
        "n_errors": float(result.n_errors),
        "error_share": result.n_errors / max(n_ended, 1),
        "n_wrong": float(result.n_wrong),
        "generator_cpu_us_per_call": result.generator_cpu_s * 1e6 / max(result.n_answered, 1),
    }
    if result.mode == "open":
        found["offered_per_s"] = result.n_scheduled / max(result.seconds, 1e-9)
    return found


def run(
    work: Work, repetition: int, cache: Cache, on_progress: OnProgress | None = None
) -> Measured:
    """Make one run and judge it.

    Raises
    ------
    LoadError
        It could not begin: nobody there, or what was asked for cannot be done.
    """
    effects = beside.Effects()
    whole_s = work.duration_s + work.warmup_s
    with ExitStack() as stack:
        _disturb(stack, work, whole_s, cache, effects)
        with Watch(work.target, whole_s) as watch:
            if isinstance(work.load, Sweep):
                result, points, extra = _sweep(work, work.load, on_progress)
            else:
                result, points, extra = once(work, on_progress), [], {}
    found = latencies(result) | watch.quantities() | extra
    n_calls = result.n_answered + result.n_warmup
    if watch.cpu_ns is not None and not points and n_calls:
        cpu_us = watch.cpu_ns / 1e3 / n_calls
        answered_per_s = result.n_answered / max(result.seconds, 1e-9)
        found["cpu_us_per_call"] = cpu_us
        found["calls_per_cpu_s"] = 1e6 / cpu_us
        found["busy_share"] = cpu_us * answered_per_s / 1e6
    reasons = [*result.invalid_reasons, *effects.reasons]
    if watch.died:
        reasons.append(f"the server (process {work.target.pid}) ended during the run")
    return Measured(
        run=work.name,
        server=work.target.name,
        repetition=repetition,
        load={
            **msgspec.to_builtins(work.load),
            **msgspec.to_builtins(work.shape),
            "duration_s": work.duration_s,
            "message_bytes": round(sum(len(m.body) for m in work.messages) / len(work.messages)),
            "n_messages": len(work.messages),
        },
        quantities=found,
        result=result,
        valid=not reasons,
        reasons=reasons,
        client_bound=_is_client_bound(work, found, result),
        beside=effects.facts,
        watch=watch.to_json(),
        points=points,
    )


def open_capacity(work: Work, closed_per_s: float, cache: Cache, on_progress: OnProgress) -> float:
    """Return what a server takes of independent arrivals, in calls per second.

    In closed loop calls arrive in step with the answers, many to a wake-up, which is cheaper than
    what open callers make. So this is measured: the CPU of a call at half of the closed loop's
    rate, Poisson; a core's second divided by it. CPU per call hardly changes when the machine is
    not quiet. Without a known process it is half of the closed loop's rate.
    """
    load = Poisson(Rate(per_s=closed_per_s / 2))
    shape = msgspec.structs.replace(
        work.shape, streams=max(work.shape.streams, 32), timeout_ms=PATIENT_MS
    )
    found = run(replace(work, load=load, shape=shape, n_calls=None), 0, cache, on_progress)
    return found.quantities.get("calls_per_cpu_s", closed_per_s / 2)


def _is_client_bound(work: Work, found: dict[str, float], result: LoadResult) -> bool:
    """Tell whether the run says more about the client than about the server."""
    if isinstance(work.load, Sweep):
        return bool(found.get("generator_bound"))
    if isinstance(work.load, Closed) and "busy_share" in found:
        return found["busy_share"] < BUSY
    return result.client_bound


def repeat(
    work: Work, repetition: int, cache: Cache, display: Display, attempts: int = ATTEMPTS
) -> Measured:
    """Make one run; again, where it was not valid and the server gave no wrong answer.

    On a machine that others use too, the generator's core may be taken away for a while. How often
    a run was made stands in the result.
    """
    for attempt in range(1, attempts + 1):
        measured = run(work, repetition, cache, display.show)
        measured.n_attempts = attempt
        if measured.valid or measured.is_refuted or attempt == attempts:
            break
        display.say(f"  once more: {measured.reasons[0]}")
    return measured


def _disturb(
    stack: ExitStack, work: Work, whole_s: float, cache: Cache, effects: beside.Effects
) -> None:
    wanted = work.beside
    if wanted is None:
        return
    if wanted.idle_connections:
        stack.enter_context(beside.idle_connections(work.target, wanted.idle_connections, effects))
    if wanted.scrape_every_ms is not None:
        stack.enter_context(beside.scrapes(work.target, wanted.scrape_every_ms / 1e3, effects))
    if wanted.load is not None:
        stack.enter_context(
            beside.background(
                work.target,
                cache.get(wanted.load.messages, work.target.method),
                per_s(wanted.load.rate, {}),
                wanted.load.connections,
                wanted.load.streams,
                whole_s,
                work.core,
                effects,
            )
        )


def _sweep(
    work: Work, sweep: Sweep, on_progress: OnProgress | None
) -> tuple[LoadResult, list[dict[str, Any]], dict[str, float]]:
    """Make the steps up to the first that is not kept; return the knee's result."""
    # A step may fail in any way: that is what ends the sweep.
    patient = replace(
        work.limits,
        max_error_share=1.0,
        max_lag_p99_ms=1e6,
        max_late_share=1.0,
        max_busy_share=1.0,
        max_stall_ms=1e6,
    )
    points: list[dict[str, Any]] = []
    knee: LoadResult | None = None
    knee_per_s, generator_bound = 0.0, False

    def attempt(rate: Rate) -> tuple[LoadResult, dict[str, Any]]:
        offered = per_s(rate, {})
        step = replace(work, load=Poisson(rate, sweep.seed), limits=patient)
        before = work.target.cpu_ns()
        result = once(step, on_progress)
        after = work.target.cpu_ns()
        found = latencies(result)
        n_calls = result.n_answered + result.n_warmup
        if before is not None and after is not None and n_calls:
            found["cpu_us_per_call"] = (after - before) / 1e3 / n_calls
            found["busy_share"] = found["cpu_us_per_call"] * result.calls_per_s / 1e6
        late = (
            result.lag.percentile(99) / 1e6 > work.limits.max_lag_p99_ms
            or result.generator_busy_share > work.limits.max_busy_share
        )
        kept = (
            result.calls_per_s >= sweep.kept * found["offered_per_s"]
            and found["p99_us"] <= sweep.limit_us
            and not result.n_errors
        )
        return result, {"offered_per_s": offered, "kept": kept, "generator_late": late, **found}

    for rate in sweep.steps:
        result, point = attempt(rate)
        for _ in range(SECOND_LOOKS):
            # Whose fault a failed step is, is not known where the generator was late too.
            if point["kept"] or not point["generator_late"]:
                break
            result, point = attempt(rate)
        points.append(point)
        if result.n_wrong or knee is None:
            knee = result
        if not point["kept"]:
            generator_bound = point["generator_late"]
            break
        knee, knee_per_s = result, result.calls_per_s
    else:
        generator_bound = True  # never saturated: the steps end below the knee
    assert knee is not None
    return knee, points, {"knee_per_s": knee_per_s, "generator_bound": float(generator_bound)}
