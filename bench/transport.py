"""The echo, Score and grpc.aio, in one run, alternating; the figures of `latest.json`.

The echo is served by the same `loop` and `http2` rooms with no engine behind it. All servers live
through the whole run on the same core; a repetition measures one, then the other, so that what the
machine does meanwhile hits both. The load is our own generator, on a core of its own: requests
differ, and every answer is checked (the echo's against the request, a score's bits against stock
onnxruntime).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import h2load, measure
from bench.errors import LoadError
from bench.generator import Limits
from bench.measure import BUSY, Measured, Work
from bench.model import BenchModel
from bench.progress import Display
from bench.results import Spread, Target, ratios
from bench.runner import load_core
from bench.scenario import Closed, LoadKind, Poisson, Rate, Rows, Shape
from bench.sources import Cache
from bench.targets import Target as Server
from bench.targets import Targets

INSTRUCTIONS = Path("bench/results/instructions.json")
SINGLE = Shape(connections=1, streams=1)
OPEN = Shape(streams=32)  # callers that do not know of one another: few of them have to queue
SPIN_US = 200
POLL_US = 1000.0


@dataclass(frozen=True)
class Sizes:
    """How long a run is."""

    repetitions: int
    n_offered: int  # calls per CPU measurement
    offered_per_s: int
    n_closed: int  # calls per throughput measurement
    n_single: int  # calls with one in flight
    half_s: float  # at half of capacity
    n_aio: int
    n_starts: int
    attempts: int  # at a run that the machine spoiled


FULL = Sizes(5, 500_000, 40_000, 400_000, 20_000, 6.0, 20_000, 5, measure.ATTEMPTS)
QUICK = Sizes(2, 60_000, 40_000, 80_000, 4_000, 1.5, 4_000, 2, measure.QUICK_ATTEMPTS)
WARMUP_S = 0.3

Order = list[tuple[str, Server]]


@dataclass
class Bench:
    """The servers, and what was found so far."""

    sizes: Sizes
    targets: Targets
    cache: Cache
    display: Display
    core: int | None
    found: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)

    def one(
        self,
        step: str,
        server: str,
        load: LoadKind,
        *,
        shape: Shape | None = None,
        duration_s: float = 1.0,
        n_calls: int | None = None,
        spin_us: int = 0,
        poll_us: float = 0.0,
        repetition: int = 0,
    ) -> Measured:
        """Measure one run and keep it.

        Raises
        ------
        LoadError
            An answer was wrong, or a call was answered with an error.
        """
        self.display.begin(f"{step} {server} {repetition + 1}/{self.sizes.repetitions}")
        work = self._work(step, server, load, shape, duration_s, n_calls, spin_us, poll_us)
        work = replace(work, seed=repetition)
        measured = measure.repeat(work, repetition, self.cache, self.display, self.sizes.attempts)
        if measured.is_refuted:
            raise LoadError(f"{work.name}: {'; '.join(measured.reasons)}")
        self.found.setdefault((step, server), []).append(measured)
        return measured

    def _work(
        self,
        step: str,
        server: str,
        load: LoadKind,
        shape: Shape | None = None,
        duration_s: float = 1.0,
        n_calls: int | None = None,
        spin_us: int = 0,
        poll_us: float = 0.0,
    ) -> Work:
        target = self.targets.get(server, spin_us)
        return Work(
            name=f"{step}_{server}",
            target=target,
            messages=self.cache.get(Rows(), target.method),
            load=load,
            shape=shape or Shape(),
            duration_s=duration_s,
            warmup_s=WARMUP_S,
            limits=Limits(),
            n_calls=n_calls,
            core=self.core,
            poll_us=poll_us,
        )

    def capacity(self, server: str) -> float:
        """Return what a server takes of independent arrivals (see `measure.open_capacity`)."""
        self.display.begin(f"capacity {server}")
        closed = Spread.of(self.values("closed", server, "calls_per_s")).median
        work = self._work("capacity", server, Closed(), duration_s=1.5)
        return measure.open_capacity(work, closed, self.cache, self.display.show)

    def values(self, step: str, server: str, quantity: str) -> list[float]:
        """Return one quantity of every repetition."""
        return [m.quantities[quantity] for m in self.found[step, server]]

    def pair(self, step: str, servers: list[str], **settings: Any) -> None:
        """Measure servers next to one another, every other repetition in reverse."""
        for i in range(self.sizes.repetitions):
            for server in servers if i % 2 == 0 else servers[::-1]:
                self.one(step, server, repetition=i, **settings)


def offered(calls_per_s: float) -> Poisson:
    """Return independent arrivals at a rate."""
    return Poisson(Rate(per_s=calls_per_s))


def run(
    model: BenchModel, sizes: Sizes, display: Display, core: int | None
) -> tuple[dict[str, object], list[Target]]:
    """Measure everything that goes over a socket; return values and targets.

    Raises
    ------
    BenchError
        A server does not start, or a run is no result: failed calls, wrong answers.
    """
    pair = ["echo", "score"]
    starts, resident_at_ready = _starts(sizes, display)
    with load_core(core), Targets() as targets:
        bench = Bench(sizes, targets, Cache(lambda: model), display, core)
        bench.pair("closed", pair, load=Closed(), n_calls=sizes.n_closed)
        seconds = sizes.n_offered / sizes.offered_per_s
        bench.pair("offered", pair, load=offered(sizes.offered_per_s), duration_s=seconds)
        bench.pair("single", pair, load=Closed(), shape=SINGLE, n_calls=sizes.n_single)
        half = bench.capacity("score") / 2
        bench.pair("half", pair, load=offered(half), shape=OPEN, duration_s=sizes.half_s)
        _spin(bench)
        generator = _against_h2load(bench)
        bench.pair("aio", ["grpc_aio"], load=Closed(), n_calls=sizes.n_aio)
        resident = max(m.quantities["rss_after_bytes"] for m in bench.found["half", "score"])
        display.end()
    values, promises = summary(bench, generator)
    values |= {
        "server_rss_bytes": resident,
        "server_rss_bytes_at_ready": resident_at_ready,
        "seconds_to_ready": Spread.of(starts),
    }
    promises += [
        Target("server_rss_bytes", float(max(resident, resident_at_ready)), "<=", 120e6),
        Target("seconds_to_ready", Spread.of(starts).median, "<=", 1.5),
    ]
    counted, counted_promises = instructions()
    values |= counted
    values["valid"] = all(m.valid for runs in bench.found.values() for m in runs)
    values["invalid_reasons"] = [
        f"{m.run}, repetition {m.repetition + 1}: {reason}"
        for runs in bench.found.values()
        for m in runs
        for reason in m.reasons
    ]
    values["runs"] = [m.to_json() for runs in bench.found.values() for m in runs]
    return values, promises + counted_promises


def _starts(sizes: Sizes, display: Display) -> tuple[list[float], int]:
    """Start the server several times; return seconds to ready, and its memory then."""
    starts, resident = [], 0
    for i in range(sizes.n_starts):
        display.say(f"start {i + 1}/{sizes.n_starts}")
        with Targets() as targets:
            fresh = targets.get("score")
            assert fresh.seconds_to_ready is not None
            starts.append(fresh.seconds_to_ready)
            resident = max(resident, fresh.resident_bytes() or 0)
    return starts, resident


def _spin(bench: Bench) -> None:
    """One call in flight, with and without a server that polls.

    The generator polls in both, or its own wake-up would be half of what is measured.
    """
    for i in range(bench.sizes.repetitions):
        for server in ("echo", "score"):
            for spin_us in (0, SPIN_US) if i % 2 == 0 else (SPIN_US, 0):
                step = "spin" if spin_us else "block"
                bench.one(
                    step,
                    server,
                    Closed(),
                    shape=SINGLE,
                    n_calls=bench.sizes.n_single,
                    spin_us=spin_us,
                    poll_us=POLL_US,
                    repetition=i,
                )


def _against_h2load(bench: Bench) -> tuple[list[float], list[float]]:
    """Return calls/s of the generator and of h2load on the echo, alternating."""
    if shutil.which("h2load") is None:
        bench.display.say("h2load is missing: the generator is compared with nothing")
        return [], []
    ours: list[float] = []
    theirs: list[float] = []
    echo = bench.targets.get("echo")
    message = bench.cache.get(Rows(), echo.method)[0].body
    port = int(echo.address.rsplit(":", 1)[1])

    def h2() -> None:
        load = h2load.Load(bench.sizes.n_closed)
        theirs.append(h2load.run(port, echo.method, message, load).calls_per_s)

    def own(i: int) -> None:
        n_calls = bench.sizes.n_closed
        found = bench.one("generator", "echo", Closed(), n_calls=n_calls, repetition=i)
        ours.append(found.quantities["calls_per_s"])

    for i in range(bench.sizes.repetitions):
        if i % 2 == 0:
            own(i)
        h2()
        if i % 2:
            own(i)
    return ours, theirs


def summary(
    bench: Bench, generator: tuple[list[float], list[float]]
) -> tuple[dict[str, object], list[Target]]:
    """Turn the runs into figures and promises."""
    get = bench.values

    def pairwise(step: str, quantity: str) -> Spread:
        return ratios(get(step, "score", quantity), get(step, "echo", quantity))

    cpu = pairwise("offered", "cpu_us_per_call")
    closed = pairwise("closed", "cpu_us_per_call")
    # Calls per server-CPU-second: what a core could do if the client could keep it busy.
    throughput = pairwise("closed", "calls_per_cpu_s")
    p50 = pairwise("single", "p50_us")
    tail = pairwise("half", "p999_us")
    echo_us = Spread.of(get("closed", "echo", "cpu_us_per_call"))
    aio_us = Spread.of(get("aio", "grpc_aio", "cpu_us_per_call"))
    aio = ratios(echo_us.repetitions, aio_us.repetitions)
    spin = ratios(get("spin", "score", "p50_us"), get("block", "score", "p50_us"))
    spin_echo = ratios(get("spin", "echo", "p50_us"), get("block", "echo", "p50_us"))
    busy = Spread.of(get("closed", "score", "busy_share"))
    half = bench.found["half", "score"][0].load
    values: dict[str, object] = {
        "shape": {
            "message_bytes": bench.found["closed", "score"][0].load["message_bytes"],
            "different_messages": bench.found["closed", "score"][0].load["n_messages"],
            "connections": 8,
            "streams": 4,
            "offered_calls_per_s": bench.sizes.offered_per_s,
            "calls_per_cpu_measurement": bench.sizes.n_offered,
            # Of independent arrivals: in closed loop calls come in step, and are cheaper.
            "half_of_capacity_calls_per_s": half["rate"]["per_s"],
            "spin_us": SPIN_US,
            "loops": 1,
        },
        "cpu_us_per_call_echo": Spread.of(get("offered", "echo", "cpu_us_per_call")),
        "cpu_us_per_call_score": Spread.of(get("offered", "score", "cpu_us_per_call")),
        "cpu_ratio_score_to_echo": cpu,
        "closed_loop_cpu_us_per_call_echo": echo_us,
        "closed_loop_cpu_us_per_call_score": Spread.of(get("closed", "score", "cpu_us_per_call")),
        "closed_loop_cpu_ratio_score_to_echo": closed,
        "throughput_ratio_score_to_echo": throughput,
        "echoes_per_second": Spread.of(get("closed", "echo", "calls_per_s")),
        "scores_per_second": Spread.of(get("closed", "score", "calls_per_s")),
        "scores_per_server_cpu_second": Spread.of(get("closed", "score", "calls_per_cpu_s")),
        "loop_busy_share_echo": Spread.of(get("closed", "echo", "busy_share")),
        "loop_busy_share_score": busy,
        "client_bound": busy.median < BUSY,
        "latency_p50_ratio_score_to_echo": p50,
        "latency_p999_ratio_score_to_echo_at_half": tail,
        "grpc_aio_cpu_us_per_call": aio_us,
        "grpc_aio_calls_per_second": Spread.of(get("aio", "grpc_aio", "calls_per_s")),
        "cpu_ratio_echo_to_grpc_aio": aio,
        "spin_p50_ratio_score": spin,
        "spin_p50_ratio_echo": spin_echo,
        "generator_cpu_us_per_call": Spread.of(get("closed", "echo", "generator_cpu_us_per_call")),
    }
    for server in ("echo", "score"):
        for name in ("p50", "p99"):
            values[f"latency_{name}_us_{server}"] = Spread.of(get("single", server, f"{name}_us"))
        for name in ("p50", "p99", "p999", "p9999"):
            at_half = Spread.of(get("half", server, f"{name}_us"))
            values[f"latency_{name}_us_{server}_at_half"] = at_half
        for step in ("block", "spin"):
            polled = Spread.of(get(step, server, "p50_us"))
            values[f"latency_p50_us_{server}_{step}_polling_client"] = polled
    promises = [
        Target("cpu_ratio_score_to_echo", cpu.median, "<=", 1.45),
        Target("cpu_ratio_score_to_echo", cpu.median, "<=", 1.7),
        Target("throughput_ratio_score_to_echo", throughput.median, ">=", 1 / 1.7),
        Target("latency_p50_ratio_score_to_echo", p50.median, "<=", 1.12),
        Target("latency_p50_ratio_score_to_echo", p50.median, "<=", 1.15),
        Target("latency_p999_ratio_score_to_echo_at_half", tail.median, "<=", 2.0),
        Target("cpu_ratio_echo_to_grpc_aio", aio.median, "<=", 1 / 40),
        Target("cpu_ratio_echo_to_grpc_aio", aio.median, "<=", 1 / 30),
        Target("spin_p50_ratio_score", spin.median, "<=", 0.6),
    ]
    if generator[1]:
        share = ratios(*generator)
        values["generator_calls_per_s"] = Spread.of(generator[0])
        values["h2load_calls_per_s"] = Spread.of(generator[1])
        values["generator_share_of_h2load"] = share
        promises.append(Target("generator_share_of_h2load", share.median, ">=", 0.9))
    return values, promises


def instructions() -> tuple[dict[str, object], list[Target]]:
    """Return user instructions per call, where `make profile` has counted them."""
    try:
        counted = json.loads(INSTRUCTIONS.read_text(encoding="utf-8"))
        echo, score = float(counted["echo"]), float(counted["score"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, []
    more = score - echo
    return {
        "instructions_per_call_echo": echo,
        "instructions_per_call_score": score,
        "instructions_per_call_score_minus_echo": more,
    }, [
        Target("instructions_per_call_echo", echo, "<=", 16_000),
        Target("instructions_per_call_score_minus_echo", more, "<=", 8_000),
    ]
