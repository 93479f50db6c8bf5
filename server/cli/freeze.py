"""`scoregate freeze` and `scoregate unfreeze`: refuse changes for a while."""

from __future__ import annotations

import click

from server.cli.changed import make_change
from server.cli.remote import EXIT_CODES, Change, Remote, change_options


@click.command(epilog=EXIT_CODES)
@change_options
def freeze(remote: Remote, change: Change) -> None:
    """Refuse every change but a rollback, until `scoregate unfreeze`.

    \b
    scoregate freeze --why "2.0 under investigation, ask ana"

    --why has to be given: it is what everybody else is told.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    if not change.why.strip():
        raise click.UsageError("say --why: whoever wants to change something is told")
    request = pb.FreezeRequest(frozen=True, options=change.options())
    make_change(remote, change, "Freeze", request)


@click.command(epilog=EXIT_CODES)
@change_options
def unfreeze(remote: Remote, change: Change) -> None:
    """Allow changes again.

    \b
    scoregate unfreeze --why "2.0 was not it"
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.FreezeRequest(frozen=False, options=change.options())
    make_change(remote, change, "Freeze", request)
