"""`scoregate explore`: let a share of what would be stopped pass, to learn what it was."""

from __future__ import annotations

import click

from server.cli.changed import make_change
from server.cli.lines import table
from server.cli.plan import fetch, part_json
from server.cli.remote import (
    EXIT_CODES,
    Change,
    Remote,
    change_options,
    json_option,
    model_option,
    remote_options,
)


@click.group()
def explore() -> None:
    """Let a share of what would be stopped pass, to learn what it was.

    A transaction that is blocked has no outcome. So quality can only be measured on what was let
    through, which says nothing of what is stopped wrongly, or what the next model would miss. With
    a share explored, chosen by the request id, quality is that of all the traffic.
    """


@explore.command(epilog=EXIT_CODES, short_help="Show the share of each model.")
@click.argument("model", default="")
@json_option
@remote_options
def show(remote: Remote, model: str, as_json: bool) -> None:
    """Show the share of MODEL, or of every model.

    \b
    scoregate explore show
    """  # noqa: D301 - click looks for the backspace character itself
    plan = fetch(remote, model)
    if as_json:
        click.echo(part_json(plan, ("explore_share",)))
        return
    rows = [(one.model, f"{one.explore_share:.4g}") for one in plan.models]
    click.echo(table([("model", "explored share"), *rows], right=(1,)))


@explore.command(name="set", epilog=EXIT_CODES)
@click.argument("share", type=float)
@model_option
@change_options
def set_(remote: Remote, change: Change, share: float, model: str) -> None:
    """Explore SHARE (0 to 0.5) of a model's strictest decisions; 0 ends it.

    \b
    scoregate explore set 0.01 --why "labels for the next training"
    scoregate explore set 0 --model fraud

    Rows that reach the highest threshold are then answered with the default decision, one in 1 /
    SHARE; the answer says `explored` and with which probability it was decided so.
    """  # noqa: D301 - as above
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.SetExplorationRequest(model=model, share=share, options=change.options())
    make_change(remote, change, "SetExploration", request)
