"""`scoregate bench`: load any gRPC server, run scenarios, compare results, make the report.

Exit codes: 0 the run is valid (and with --check every promise is met); 1 it is not; 2 the input
cannot be used: a malformed scenario, an impossible rate, an unreadable file, a wrong address.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from server.errors import CallError, InputError

Command = TypeVar("Command", bound=Callable[..., object])
FILE = click.Path(dir_okay=False, path_type=Path)
SERVERS = click.Choice(["echo", "score", "heavy", "grpc_aio"])


@click.group()
def bench() -> None:
    """Load any gRPC server, and say what can be believed of it.

    \b
    scoregate bench list
    scoregate bench run steady --quick
    scoregate bench run --address 127.0.0.1:50051 --method /pkg.Service/Method \\
        --message request.bin --rate 5000 --poisson --duration 10
    scoregate bench compare before.json after.json
    scoregate bench report bench/results/*.json --out report.html
    """  # noqa: D301 - click looks for the backspace character itself


@contextmanager
def explained() -> Iterator[None]:
    """Turn what `bench` raises into the command line's errors."""
    from bench.errors import BenchError, LoadError

    try:
        yield
    except BenchError as error:
        # A server that is not there is a wrong address: input, as far as a user is concerned.
        kind = InputError if isinstance(error, ValueError | LoadError) else CallError
        raise kind(f"bench: {error}") from None


OPTIONS = [
    click.option("--address", metavar="HOST:PORT", help="A server that runs; unix:PATH for a "
                 "Unix socket. In a scenario it takes the place of the server --replaces names."),
    click.option("--server", type=SERVERS, help="Without a scenario: a server to start instead."),
    click.option("--replaces", default="score", show_default=True, metavar="NAME",
                 help="The scenario's server that --address stands for."),
    click.option("--method", metavar="/PKG.SERVICE/METHOD", help="Where messages are sent."),
    click.option("--message", type=FILE, help="One serialized message, without gRPC's prefix."),
    click.option("--recording", type=FILE, help="Recorded messages (bench/recording.py)."),
    click.option("--parquet", type=FILE, help="Rows to make score requests of."),
    click.option("--form", type=click.Choice(["dense", "named"]), help="Form of --parquet's."),
    click.option("--pid", type=click.IntRange(1), help="The server's process: CPU and memory."),
    click.option("--sidecar", metavar="HOST:PORT", help="The server's /metrics, to be scraped."),
    click.option("--connections", type=click.IntRange(1, 4096), help="[default: 8]"),
    click.option("--streams", type=click.IntRange(1, 1000),
                 help="Calls in flight on each connection.  [default: 4]"),
    click.option("--closed", is_flag=True, help="As fast as answers come (the default)."),
    click.option("--rate", metavar="PER_S|PERCENT", help="Open loop: calls per second, or a "
                 "share of the measured capacity such as 50%."),
    click.option("--poisson", is_flag=True, help="Space the calls of --rate at random."),
    click.option("--ramp", metavar="START:END", help="Open loop: a rate that grows."),
    click.option("--bursts", metavar="BASE:PEAK:PERIOD_S:BURST_S", help="Open loop: bursts."),
    click.option("--duration", "duration_s", type=click.FloatRange(0.1, 86_400),
                 metavar="SECONDS", help="[default: 5]"),
    click.option("--warmup", "warmup_s", type=click.FloatRange(0, 600), metavar="SECONDS",
                 help="Not measured.  [default: 0.5]"),
    click.option("--timeout-ms", type=click.FloatRange(min=0, min_open=True),
                 help="Deadline of a call.  [default: 1000]"),
    click.option("--order", type=click.Choice(["cycle", "random"]),
                 help="Of the messages.  [default: random]"),
    click.option("--repetitions", type=click.IntRange(1, 1000)),
    click.option("--max-error-share", type=click.FloatRange(0, 1),
                 help="Beyond, a run is not valid.  [default: 0]"),
    click.option("--max-lag-ms", type=click.FloatRange(0.01, 60_000),
                 help="How late the generator itself may be: 99 % of its sends, and its loop.  "
                 "[default: 1, and 50]"),
    click.option("--check-share", type=click.FloatRange(0, 1),
                 help="Share of the answers that are checked.  [default: 1]"),
    click.option("--time-scale", type=click.FloatRange(0.0001, 100), default=1.0,
                 show_default=True, help="Makes all durations shorter or longer."),
    click.option("--quick", is_flag=True, help="Two short repetitions: a first look."),
    click.option("--core", type=click.IntRange(0), help="The generator's.  [default: 1 where the "
                 "servers are started here, else any]"),
    click.option("--check", is_flag=True, help="Exit 1 where a promise is not met."),
    click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON."),
    click.option("--out", type=FILE, help="Write the result file there."),
]  # fmt: skip


def options(command: Command) -> Command:
    """Add the options of `run`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@bench.command()
@click.argument("scenario", required=False, metavar="[SCENARIO.toml|NAME]")
@options
def run(scenario: str | None, **given: Any) -> None:
    """Run a scenario, or one load made of the options.

    Without a scenario give --address (with --method and --message, --recording or --parquet), or
    a --server to start. Ctrl-C ends a run without a result.
    """
    if scenario is None and not given["address"] and not given["server"]:
        raise click.UsageError("give a SCENARIO, an --address or a --server to start")
    if given["address"] and given["server"]:
        raise click.UsageError("give either --address or --server")
    with explained():
        from bench import __main__ as shown
        from bench import adhoc, results
        from bench import scenario as scenarios
        from bench.progress import Display
        from bench.runner import Options, Runner, free_core

        base = scenarios.load(scenarios.find(scenario)) if scenario else None
        made = adhoc.scenario(given, base)
        outside = _outside(given, base is None)
        core = given["core"]
        if core is None and (outside is None or base is not None):
            core = free_core()
        choices = Options(
            time_scale=given["time_scale"],
            quick=given["quick"],
            core=core,
            repetitions=given["repetitions"],
            max_lag_ms=given["max_lag_ms"],
        )
        replaces = given["replaces"] if base is not None else "target"
        report = Runner(made, choices, Display(), outside, replaces).run()
        document = shown.document(report, shlex.join(["scoregate", *sys.argv[1:]]))
        if given["out"] is not None:
            results.save(given["out"], document)
        text = json.dumps(document) if given["as_json"] else shown.scenario_table(report)
    click.echo(text)
    for reason in report.reasons if given["as_json"] else ():
        click.echo(f"scoregate: bench: not valid: {reason}", err=True)
    missed = [target["name"] for target in document["targets"] if not target["met"]]
    if given["check"] and (missed or document["unjudged"]):
        names = ", ".join(missed + [x.partition(":")[0] for x in document["unjudged"]])
        click.echo(f"scoregate: bench: promises missed: {names}", err=True)
        sys.exit(1)
    sys.exit(0 if report.valid else 1)


def _outside(given: dict[str, Any], needs_messages: bool) -> Any:
    """Return the server that --address names."""
    from bench import address
    from bench.sources import SCORE
    from bench.targets import Target

    if not given["address"]:
        return None
    address.parse(given["address"])
    sent = [given[key] for key in ("message", "recording", "parquet")]
    if needs_messages and not any(sent):
        raise click.UsageError("say what to send: --message, --recording or --parquet")
    if given["message"] and not given["method"]:
        raise click.UsageError("--message needs a --method: /package.Service/Method")
    method = given["method"] or SCORE
    return Target("target", given["address"], method, given["pid"], given["sidecar"])


@bench.command(name="list")
@click.option("--json", "as_json", is_flag=True)
def list_(as_json: bool) -> None:
    """List the scenarios of the house, with what each promises."""
    with explained():
        from bench import scenario as scenarios

        found = {name: scenarios.load(path) for name, path in scenarios.available().items()}
    if as_json:
        import msgspec

        click.echo(json.dumps([msgspec.to_builtins(made) for made in found.values()]))
        return
    for name, made in found.items():
        click.echo(f"{name:18}{made.title}")
        for promise in made.acceptance:
            below = f" / {promise.denominator}" if promise.denominator else ""
            text = f"{promise.numerator}{below} {promise.op} {promise.target:g}"
            click.echo(f"{'':18}  {promise.name}: {text}")


@bench.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--min-effect", default=0.03, show_default=True, type=click.FloatRange(0, 10),
              help="The smallest change that is worth a word.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Circumstances too.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--fail-on-regression", is_flag=True, help="Exit 1 if any figure got worse.")
def compare(
    a: Path, b: Path, min_effect: float, everything: bool, as_json: bool, fail_on_regression: bool
) -> None:
    """Say what changed from result file A to B, and what may be noise.

    A figure is faster or slower only where the 99 % interval of the ratio of medians lies beyond
    the smallest change worth a word. No difference shown does not mean that there is none.
    """
    with explained():
        from dataclasses import asdict

        from bench import compare as comparing
        from bench import results

        first, second = results.read(a), results.read(b)
        verdicts = comparing.compare(first, second, min_effect=min_effect)
        if as_json:
            text = json.dumps(results.plain([asdict(verdict) for verdict in verdicts]))
        else:
            text = comparing.table(verdicts, everything=everything)
    for path, document in ((a, first), (b, second)):
        if document.get("valid") is False:
            click.echo(f"scoregate: bench: {path} has runs that are not valid", err=True)
    click.echo(text)
    worse = [verdict.name for verdict in verdicts if verdict.verdict == comparing.SLOWER]
    sys.exit(1 if fail_on_regression and worse else 0)


@bench.command()
@click.argument("results", nargs=-1, type=FILE)
@click.option("--out", type=FILE, default=Path("report.html"), show_default=True,
              help="The page: one file, no network.")  # fmt: skip
@click.option("--markdown", type=FILE, help="Write the tables there as Markdown too.")
def report(results: tuple[Path, ...], out: Path, markdown: Path | None) -> None:
    """Make one HTML page of result files; without files, of bench/results/*.json."""
    with explained():
        from bench import report as reporting

        paths = list(results) or [
            path
            for path in sorted(Path("bench/results").glob("*.json"))
            if path.name != "instructions.json"
        ]
        found = reporting.collect(paths)
        reporting.write(out, reporting.page(found))
        if markdown is not None:
            reporting.write(markdown, reporting.markdown(found))
    click.echo(f"{out}: {len(found)} results" + (f"; {markdown}" if markdown else ""))
