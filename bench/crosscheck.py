"""Our load generator against h2load where the server is the limit: both must see one throughput.

Against the echo the generator is faster than h2load, so their figures differ by what the clients
can do. A heavy model makes the server the limit; then two honest clients agree. Closed loop,
8 connections × 4 calls in flight, one message, alternating.
"""

from __future__ import annotations

from typing import Any

from bench import h2load
from bench.generator import Generator, Message
from bench.model import prepare_heavy
from bench.processes import server
from bench.progress import Display
from bench.results import Spread, Target, ratios
from bench.runner import free_core
from bench.targets import ALONE

METHOD = "/scoregate.v1.Scoring/Score"
WITHIN = 0.15


def run(n_calls: int, repetitions: int, display: Display) -> tuple[dict[str, Any], list[Target]]:
    """Measure both clients on one server; return values and targets."""
    bench = prepare_heavy()
    message = bench.request()
    load = h2load.Load(n_calls)
    ours: list[float] = []
    theirs: list[float] = []
    arguments = ["server", "serve", "--repository", str(bench.repository), *ALONE]
    with server(arguments) as heavy:
        port = heavy.port("fast")
        generator = Generator(
            f"127.0.0.1:{port}",
            [Message(METHOD, message)],
            n_connections=load.n_connections,
            n_streams=load.n_streams,
            core=free_core(),
        )
        for i in range(repetitions):
            display.say(f"crosscheck {i + 1}/{repetitions}")
            ours.append(generator.run_closed(n_calls=n_calls).calls_per_s)
            theirs.append(h2load.run(port, METHOD, message, load).calls_per_s)
    share = ratios(ours, theirs)
    values: dict[str, Any] = {
        "generator_calls_per_s": Spread.of(ours),
        "h2load_calls_per_s": Spread.of(theirs),
        "generator_to_h2load_server_bound": share,
    }
    targets = [
        Target("generator_to_h2load_server_bound", share.median, ">=", 1 - WITHIN),
        Target("generator_to_h2load_server_bound", share.median, "<=", 1 + WITHIN),
    ]
    return values, targets
