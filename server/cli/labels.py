"""`scoregate labels`: names for versions."""

from __future__ import annotations

import click

from server.cli.arguments import pairs
from server.cli.changed import make_change
from server.cli.remote import EXIT_CODES, Change, Remote, change_options, model_option


@click.group()
def labels() -> None:
    """Name versions ("stable"), to deploy and load them by."""


@labels.command(name="set", epilog=EXIT_CODES)
@click.argument("values", nargs=-1, required=True, metavar="LABEL=VERSION...")
@model_option
@change_options
def set_(remote: Remote, change: Change, values: tuple[str, ...], model: str) -> None:
    """Let each LABEL name a VERSION. What serves stays.

    \b
    scoregate labels set stable=1.0 next=2.0
    scoregate deploy next --traffic 5
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.SetLabelsRequest(
        model=model, set=pairs(values, "LABEL=VERSION"), options=change.options()
    )
    make_change(remote, change, "SetLabels", request)


@labels.command(epilog=EXIT_CODES)
@click.argument("names", nargs=-1, required=True, metavar="LABEL...")
@model_option
@change_options
def remove(remote: Remote, change: Change, names: tuple[str, ...], model: str) -> None:
    """Drop labels.

    \b
    scoregate labels remove next
    """  # noqa: D301 - as above
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.SetLabelsRequest(model=model, remove=names, options=change.options())
    make_change(remote, change, "SetLabels", request)
