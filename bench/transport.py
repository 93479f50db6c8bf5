"""The echo, Score and grpc.aio, in one run, alternating.

The echo is served by the same `loop` and `http2` rooms with no engine behind it. Both servers live
through the whole run on the same core; a repetition measures one, then the other, so that
what the machine does meanwhile hits both.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from bench import h2load
from bench.h2load import Load
from bench.model import BenchModel
from bench.processes import Server, server
from bench.results import Spread, Target, ratios

ECHO = "/scoregate.bench.Echo/Echo"
SCORE = "/scoregate.v1.Scoring/Score"


@dataclass(frozen=True)
class Sizes:
    """How long a run is."""

    repetitions: int
    n_offered: int  # calls per CPU measurement
    offered_per_s: int
    n_closed: int  # calls per throughput measurement
    n_single: int  # calls with one in flight
    n_aio: int
    n_starts: int


FULL = Sizes(5, 500_000, 40_000, 300_000, 20_000, 20_000, 5)
QUICK = Sizes(2, 80_000, 40_000, 60_000, 4_000, 4_000, 2)


@dataclass
class Series:
    """Repetitions of one server."""

    cpu_us_offered: list[float] = field(default_factory=list)
    cpu_us_closed: list[float] = field(default_factory=list)
    calls_per_s: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)


def measure(target: Server, method: str, message: bytes, load: Load) -> tuple[float, float, float]:
    """Run one load; return CPU microseconds per call, calls/s and the server's busy share."""
    before_ns = target.cpu_ns()
    outcome = h2load.run(target.port("fast"), method, message, load)
    spent_ns = target.cpu_ns() - before_ns
    return (
        spent_ns / 1e3 / outcome.n_calls,
        outcome.calls_per_s,
        spent_ns / 1e9 / outcome.seconds,
    )


def single(target: Server, method: str, message: bytes, n_calls: int) -> tuple[float, float]:
    """Return p50 and p99 in microseconds with one call in flight."""
    load = Load(n_calls, n_connections=1, n_streams=1)
    outcome = h2load.run(target.port("fast"), method, message, load, latencies=True)
    assert outcome.latencies_us is not None
    p50, p99 = np.percentile(outcome.latencies_us, [50, 99])
    return float(p50), float(p99)


def counters(target: Server) -> dict[str, float]:
    """Read the server's own counters from its sidecar."""
    url = f"http://127.0.0.1:{target.port('sidecar')}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def check_no_errors(target: Server, n_sent: int) -> None:
    """Fail the run unless the server counted every call as a prediction and no error.

    h2load sees only :status 200, which gRPC errors have too.
    """
    seen = counters(target)
    errors = {k: v for k, v in seen.items() if k.startswith("ml_prediction_errors_total") and v > 0}
    predictions = sum(v for k, v in seen.items() if k.startswith("ml_predictions_total"))
    if errors or predictions != n_sent:
        raise h2load.LoadError(f"{n_sent} calls sent, {predictions:.0f} scored, errors: {errors}")


def _offered(series: Series, target: Server, method: str, message: bytes, sizes: Sizes) -> int:
    load = Load(sizes.n_offered, calls_per_s=sizes.offered_per_s)
    series.cpu_us_offered.append(measure(target, method, message, load)[0])
    return load.n_calls


def _closed(series: Series, target: Server, method: str, message: bytes, sizes: Sizes) -> int:
    load = Load(sizes.n_closed)
    cpu_us, calls_per_s, busy = measure(target, method, message, load)
    series.cpu_us_closed.append(cpu_us)
    series.calls_per_s.append(calls_per_s)
    series.busy.append(busy)
    return load.n_calls


def _single(series: Series, target: Server, method: str, message: bytes, sizes: Sizes) -> int:
    p50, p99 = single(target, method, message, sizes.n_single)
    series.p50_us.append(p50)
    series.p99_us.append(p99)
    return sizes.n_single


def run(
    model: BenchModel, sizes: Sizes, say: Callable[[str], None]
) -> tuple[dict[str, object], list[Target]]:
    """Measure everything that goes over a socket; return values and targets."""
    message = model.request()
    echo, score, aio = Series(), Series(), Series()
    n_sent = 0
    serve = ["server", "serve", "--repository", str(model.repository)]
    serve += ["--fast-port", "0", "--control-port", "0", "--sidecar-port", "0"]
    starts = []
    for i in range(sizes.n_starts):
        say(f"start {i + 1} of {sizes.n_starts}")
        with server(serve) as fresh:
            starts.append(fresh.seconds_to_ready)
            resident_at_ready = fresh.resident_bytes()
    with ExitStack() as stack:
        echo_server = stack.enter_context(server(["server", "echo", "--port", "0"]))
        score_server = stack.enter_context(server(serve))
        for step in (_closed, _offered, _single):
            for i in range(sizes.repetitions):
                say(f"{step.__name__[1:]}, repetition {i + 1} of {sizes.repetitions}")
                pair = [(echo, echo_server, ECHO), (score, score_server, SCORE)]
                # Every other repetition the other way round: neither always goes first.
                for series, target, method in pair if i % 2 == 0 else pair[::-1]:
                    n_calls = step(series, target, method, message, sizes)
                    n_sent += n_calls if series is score else 0
        check_no_errors(score_server, n_sent)
        resident = score_server.resident_bytes()
    with server(["bench.grpc_aio_echo"]) as aio_server:
        for i in range(sizes.repetitions):
            say(f"grpc.aio echo, repetition {i + 1} of {sizes.repetitions}")
            cpu_us, calls_per_s, busy = measure(aio_server, ECHO, message, Load(sizes.n_aio))
            aio.cpu_us_closed.append(cpu_us)
            aio.calls_per_s.append(calls_per_s)
            aio.busy.append(busy)
    return _summary(echo, score, aio, sizes, message, starts, resident, resident_at_ready)


def _summary(
    echo: Series,
    score: Series,
    aio: Series,
    sizes: Sizes,
    message: bytes,
    starts: list[float],
    resident: int,
    resident_at_ready: int,
) -> tuple[dict[str, object], list[Target]]:
    cpu_ratio = ratios(score.cpu_us_offered, echo.cpu_us_offered)
    # Calls per server-CPU-second: what a core could do if the client could keep it busy.
    throughput = ratios(echo.cpu_us_closed, score.cpu_us_closed)
    p50_ratio = ratios(score.p50_us, echo.p50_us)
    aio_ratio = ratios(echo.cpu_us_closed, aio.cpu_us_closed)
    busy = Spread.of(score.busy)
    values: dict[str, object] = {
        "shape": {
            "message_bytes": len(message),
            "connections": 8,
            "streams": 4,
            "offered_calls_per_s": sizes.offered_per_s,
            "calls_per_cpu_measurement": sizes.n_offered,
            "loops": 1,
        },
        "cpu_us_per_call_echo": Spread.of(echo.cpu_us_offered),
        "cpu_us_per_call_score": Spread.of(score.cpu_us_offered),
        "cpu_ratio_score_to_echo": cpu_ratio,
        "throughput_ratio_score_to_echo": throughput,
        "latency_p50_ratio_score_to_echo": p50_ratio,
        "latency_p50_us_echo": Spread.of(echo.p50_us),
        "latency_p50_us_score": Spread.of(score.p50_us),
        "latency_p99_us_echo": Spread.of(echo.p99_us),
        "latency_p99_us_score": Spread.of(score.p99_us),
        "closed_loop_cpu_us_per_call_echo": Spread.of(echo.cpu_us_closed),
        "closed_loop_cpu_us_per_call_score": Spread.of(score.cpu_us_closed),
        "echoes_per_second": Spread.of(echo.calls_per_s),
        "scores_per_second": Spread.of(score.calls_per_s),
        "scores_per_server_cpu_second": Spread.of([1e6 / us for us in score.cpu_us_closed]),
        "loop_busy_share_score": busy,
        "client_bound": busy.median < 0.97,
        "grpc_aio_cpu_us_per_call": Spread.of(aio.cpu_us_closed),
        "grpc_aio_calls_per_second": Spread.of(aio.calls_per_s),
        "cpu_ratio_echo_to_grpc_aio": aio_ratio,
        "server_rss_bytes": resident,
        "server_rss_bytes_at_ready": resident_at_ready,
        "seconds_to_ready": Spread.of(starts),
    }
    targets = [
        Target("cpu_ratio_score_to_echo", cpu_ratio.median, "<=", 1.7),
        Target("throughput_ratio_score_to_echo", throughput.median, ">=", 1 / 1.7),
        Target("latency_p50_ratio_score_to_echo", p50_ratio.median, "<=", 1.15),
        Target("cpu_ratio_echo_to_grpc_aio", aio_ratio.median, "<=", 1 / 30),
        Target("server_rss_bytes", float(max(resident, resident_at_ready)), "<=", 120e6),
        Target("seconds_to_ready", Spread.of(starts).median, "<=", 1.5),
    ]
    return values, targets
