"""`scoregate demo`: train, export, fill a store, serve and replay, in one command."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.demo.faults import KINDS

if TYPE_CHECKING:
    from server.demo.faults import FaultKind
    from server.demo.stores import StoreKind

MAX_EXPLORE_SHARE = 0.5  # as fastpath.ledger has it, which `demo --help` need not load


def _is_a_number(
    context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    """Refuse NaN, which no range does."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no share.", context, parameter)
    return value


@click.command()
@click.option(
    "--data",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Transactions to use instead of simulated ones (.parquet or .csv): raw columns, or the "
    "handbook's 15 features with TX_DATETIME, CUSTOMER_ID and TX_FRAUD.",
)
@click.option(
    "--seconds",
    envvar="DEMO_SECONDS",
    show_envvar=True,
    type=click.FloatRange(min=0, min_open=True),
    help="End by itself after so many seconds of replaying; else Ctrl-C ends.",
)
@click.option(
    "--rate",
    default=500.0,
    show_default=True,
    metavar="CALLS_PER_S",
    type=click.FloatRange(min=0.1, max=100_000),
    help="Calls a second. The client is Python: beyond some thousands it is the limit.",
)
@click.option(
    "--directory",
    default="var/demo",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the model, the bundle and the logs are kept.",
)
@click.option(
    "--store",
    envvar="DEMO_STORE",
    show_envvar=True,
    default="lmdb",
    show_default=True,
    type=click.Choice(["lmdb", "redis", "none"]),
    help="Where the server finds the features of customers and terminals: in LMDB, in a Redis that "
    "the demo starts (and that you may kill), or nowhere: requests then carry them.",
)
@click.option(
    "--drift",
    envvar="DEMO_DRIFT",
    show_envvar=True,
    type=click.Choice(KINDS),
    help="After a while, let something go wrong with the stream, and watch drift monitoring find "
    "it: amounts in cents, a feature that is no longer sent, an upstream that repeats one value, "
    "or nothing at all. Windows are scaled to the speed of the replay.",
)
@click.option(
    "--drift-after",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="When; by default after five windows, 15 s at the default rate.",
)
@click.option(
    "--explore",
    envvar="DEMO_EXPLORE",
    show_envvar=True,
    metavar="SHARE",
    type=click.FloatRange(min=0, max=MAX_EXPLORE_SHARE),
    callback=_is_a_number,
    help="Let nothing be heard of blocked payments, as in the world, and let this share of them "
    "pass all the same, so that quality can be measured: 0.05, 0.5 at most; 0 shows what is known "
    "without. The summary says what that cost and bought.",
)
@click.option(
    "--prometheus",
    is_flag=True,
    help="Start a Prometheus with the rules of deploy/prometheus, and say where.",
)
@click.option("--fresh", is_flag=True, help="Make everything anew.")
@click.option(
    "--customers",
    default=5_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many to simulate.",
)
@click.option(
    "--terminals",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many to simulate.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--free-ports",
    is_flag=True,
    help="Take any free ports, instead of 50051, 50052 and 9464 where those are free.",
)
def demo(
    data: Path | None,
    seconds: float | None,
    rate: float,
    directory: Path,
    store: StoreKind,
    drift: FaultKind | None,
    drift_after: float | None,
    explore: float | None,
    prometheus: bool,
    fresh: bool,
    customers: int,
    terminals: int,
    seed: int,
    free_ports: bool,
) -> None:
    """Walk the whole road on card transactions.

    Simulates (or reads) transactions, trains two models on one week of them (a gradient boosting,
    version 1.0, and a logistic regression, 2.0), exports them as quantized bundles, fills a feature
    store, serves 1.0, and replays a later week through the fast door with an ordinary gRPC client,
    while a pipeline keeps the store up to date and a summary shows calls, latency, decisions,
    fraud, and where features came from. From another terminal, `scoregate deploy 2.0 --traffic 10`
    begins a rollout. With --drift, drift monitoring has something to find; with --explore, blocking
    hides what it stops, and a share passes. A second run starts in seconds, and serves what the
    first served last.
    """
    # Imported here: `demo --help` must not wait for rich and numpy.
    from dataclasses import replace

    from rich.console import Console

    from server.demo.run import DemoOptions, run
    from server.demo.sizes import DEMO_SIZE

    size = replace(DEMO_SIZE, n_customers=customers, n_terminals=terminals)
    options = DemoOptions(
        data=data,
        size=size,
        seed=seed,
        directory=directory,
        seconds=seconds,
        rate=rate,
        store=store,
        fresh=fresh,
        free_ports=free_ports,
        drift=drift,
        drift_after_s=drift_after,
        explore=explore,
        prometheus=prometheus,
    )
    # A pipe has no width: lines there are as long as they need to be.
    console = Console()
    run(options, console if console.is_terminal else Console(width=120))
