"""`python -m bench.profile`: where a call's instructions and time go.

Instruction counts (see `callgrind`) are written to bench/results/instructions.json and added to
bench/results/history.jsonl; flame graphs (see `flamegraph`) are written to
bench/results/flame-echo.svg and flame-score.svg. `make profile` runs both.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import callgrind, flamegraph, h2load, history, model
from bench.errors import BenchError
from bench.h2load import Load
from bench.processes import server
from bench.results import Spread, Target, document, save
from bench.targets import ALONE

RESULTS = Path("bench/results")
OFFERED_PER_S = 40_000
MAX_ECHO, MAX_EXTRA = 16_000, 8_000
METHOD = (
    "user instructions of the loop thread per call: callgrind on the serving process, h2load with "
    "8 connections x 4 calls in flight, difference of two loads divided by the difference in calls"
)


@dataclass(frozen=True)
class Subject:
    """A server, and what it is asked."""

    arguments: list[str]
    method: str
    message: bytes


def subjects() -> dict[str, Subject]:
    """Return the bare echo and Score, with the same message."""
    bench = model.prepare()
    message = bench.request()
    serve = ["server", "serve", "--repository", str(bench.repository), *ALONE]
    return {
        "echo": Subject(["server", "echo", "--port", "0"], "/scoregate.bench.Echo/Echo", message),
        "score": Subject(serve, "/scoregate.v1.Scoring/Score", message),
    }


def count(named: dict[str, Subject], n_calls: int, out: Path, keep: bool) -> list[Target]:
    """Count the instructions of each subject, print and write them."""
    counted = {}
    for name, subject in named.items():
        print(f"{name}: counting instructions", file=sys.stderr, flush=True)
        counted[name] = callgrind.count(subject.arguments, subject.method, subject.message, n_calls)
    spreads = {name: Spread.of(one.per_call) for name, one in counted.items()}
    echo, score = spreads["echo"].median, spreads["score"].median
    extra = round(score - echo, 1)
    targets = [
        Target("instructions_echo", echo, "<=", MAX_ECHO),
        Target("instructions_score_extra", extra, "<=", MAX_EXTRA),
    ]
    for name, one in counted.items():
        print(f"\n{name}: {spreads[name].median:.0f} user instructions a call")
        for room, cost in one.by_room.items():
            print(f"  {cost:9.1f}  {room}")
    print(f"\nScore beyond the echo: {extra:.0f}")
    for target in targets:
        word = "met" if target.met else "NOT MET"
        print(f"{target.name:28}{target.value:10.0f} {target.op} {target.target:.0f}  {word}")
    values = {
        "method": METHOD,
        "calls": n_calls,
        "echo": echo,
        "score": score,
        "extra": extra,
        "instructions_echo": spreads["echo"],
        "instructions_score": spreads["score"],
        "by_room": {name: one.by_room for name, one in counted.items()},
        "by_function": {name: one.by_function for name, one in counted.items()},
    }
    save(out / "instructions.json", document(values, targets, "make profile"))
    if keep:
        line = {"echo": echo, "score": score, "extra": extra, "score_to_echo": score / echo}
        history.append(
            "instructions",
            {name: round(value, 3) for name, value in line.items()},
            out / history.PATH.name,
        )
    return targets


def draw(named: dict[str, Subject], seconds: float, out: Path) -> None:
    """Draw a flame graph of each subject's loop thread at the offered rate."""
    for name, subject in named.items():
        print(f"{name}: sampling for {seconds:.0f} s", file=sys.stderr, flush=True)
        load = Load(int(OFFERED_PER_S * (seconds + 1)), calls_per_s=OFFERED_PER_S)
        with server(subject.arguments) as target:
            recording = flamegraph.Recording(target.pid, seconds)
            h2load.run(target.port("fast"), subject.method, subject.message, load)
            lines = recording.script()
        path = out / f"flame-{name}.svg"
        title = f"{name}: loop thread, {OFFERED_PER_S:,} calls/s on 8 x 4"
        stacks = flamegraph.read_script(lines, "scoregate-loop")
        picture = flamegraph.render(flamegraph.rooted(stacks, "reactor.loop_run"), title)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(picture)
        aside.rename(path)
        print(f"{name}: {path}")


def main(arguments: list[str] | None = None) -> int:
    """Profile; 0 when it ran, whether or not every target is met."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile", description="Where a call's instructions and time go."
    )
    parser.add_argument("--callgrind", action="store_true", help="count instructions only")
    parser.add_argument("--flamegraph", action="store_true", help="draw flame graphs only")
    parser.add_argument("--calls", type=int, default=20_000, help="of a count (default 20,000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of sampling (default 5)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (default bench/results)")
    parser.add_argument("--no-history", action="store_true", help="add no line to history.jsonl")
    options = parser.parse_args(arguments)
    if options.calls < 100:
        parser.error(f"--calls is {options.calls}: below 100 there is nothing to divide by")
    if not 0.1 <= options.seconds <= 600:
        parser.error(f"--seconds is {options.seconds}: it must be 0.1 to 600")
    both = options.callgrind == options.flamegraph
    try:
        # Before the minute that it takes, not after half of it.
        if both or options.callgrind:
            callgrind.tool("valgrind")
        if both or options.flamegraph:
            callgrind.tool("perf", flamegraph.DEBIAN_LINE)
        named = subjects()
        if both or options.callgrind:
            count(named, options.calls, options.out, not options.no_history)
        if both or options.flamegraph:
            draw(named, options.seconds, options.out)
    except BenchError as error:
        print(f"profile: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
