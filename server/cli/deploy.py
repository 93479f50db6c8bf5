"""`scoregate deploy`: let a version take part."""

from __future__ import annotations

import click

from server.cli.arguments import PERCENT, model_and_version
from server.cli.changed import make_change
from server.cli.remote import EXIT_CODES, Change, Remote, change_options


@click.command(epilog=EXIT_CODES)
@click.argument("names", nargs=-1, required=True, metavar="[MODEL] VERSION")
@click.option(
    "--traffic",
    type=PERCENT,
    required=True,
    metavar="PERCENT",
    help="The newcomer's share, to two decimals. 0: loaded, and only overrides reach it.",
)
@click.option("--arm", default="", help="The newcomer's name.  [default: canary, canary-2, ...]")
@change_options
def deploy(remote: Remote, change: Change, names: tuple[str, ...], traffic: int, arm: str) -> None:
    """Let VERSION (or a label) of MODEL take part, with a share of the traffic.

    \b
    scoregate deploy 2.0 --traffic 10 --why "fewer false alarms in the tests"
    scoregate deploy fraud 2.0 --traffic 0.5 --dry-run

    The version is loaded and proven before anything changes. It gets exactly its share; the others
    give it up in proportion, and nobody moves but those who move to it. Then: `traffic set`,
    `promote` or `rollback`.

    Where nothing is in force (`status`: not ready), 100 lets MODEL begin again with VERSION.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    model, version = model_and_version(names)
    request = pb.DeployRequest(
        model=model,
        version=version,
        traffic_basis_points=traffic,
        arm=arm,
        options=change.options(),
    )
    make_change(remote, change, "Deploy", request)
