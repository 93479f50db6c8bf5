"""`scoregate rollback`: an earlier plan serves again."""

from __future__ import annotations

import click

from server.cli.arguments import GENERATION
from server.cli.changed import make_change
from server.cli.remote import EXIT_CODES, Change, Remote, change_options


@click.command(epilog=EXIT_CODES)
@click.option(
    "--to",
    "generation",
    metavar="GENERATION",
    type=GENERATION,
    help="Whose plan.  [default: the one before the plan in force]",
)
@change_options
def rollback(remote: Remote, change: Change, generation: int | None) -> None:
    """Put a whole earlier plan in force again: models, weights, thresholds, overrides, labels.

    \b
    scoregate rollback --why "conversions down 4 %"
    scoregate rollback --to 1795472135123

    One step, from memory: when the command returns, no answer of the plan before is on its way any
    more. Without --to it goes back one plan; typed again, one plan farther. To return to a plan
    that was left so, name its generation (`scoregate history`). Allowed while changes are frozen.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.RollbackRequest(generation=generation or 0, options=change.options())
    make_change(remote, change, "Rollback", request)
