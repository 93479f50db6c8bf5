"""`scoregate traffic`: split a model's traffic between its arms."""

from __future__ import annotations

import click

from server.cli.arguments import weights
from server.cli.changed import make_change
from server.cli.remote import EXIT_CODES, Change, Remote, change_options, model_option


@click.group()
def traffic() -> None:
    """Split the traffic of a model between its arms."""


@traffic.command(name="set", epilog=EXIT_CODES)
@click.argument("shares", nargs=-1, required=True, metavar="ARM=PERCENT...")
@model_option
@change_options
def set_(remote: Remote, change: Change, shares: tuple[str, ...], model: str) -> None:
    """Set shares, each ARM (or version) its PERCENT; arms that are not named keep theirs.

    \b
    scoregate traffic set champion=70 canary=30
    scoregate traffic set 1.0=70 2.0=30 --expect 1795472135123

    In the end they have to add up to 100. As few callers as possible move: from 10 to 20 % nobody
    moves back.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.SetTrafficRequest(
        model=model, basis_points=weights(shares), options=change.options()
    )
    make_change(remote, change, "SetTraffic", request)
