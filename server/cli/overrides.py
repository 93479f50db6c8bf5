"""`scoregate overrides`: named keys go to a named arm."""

from __future__ import annotations

import click

from server.cli.arguments import pairs
from server.cli.changed import make_change
from server.cli.remote import EXIT_CODES, Change, Remote, change_options, model_option


@click.group()
def overrides() -> None:
    """Pin routing keys to arms, whatever their bucket says.

    The journal keeps them: who may read it learns the keys.
    """


@overrides.command(name="set", epilog=EXIT_CODES)
@click.argument("values", nargs=-1, required=True, metavar="KEY=ARM...")
@model_option
@change_options
def set_(remote: Remote, change: Change, values: tuple[str, ...], model: str) -> None:
    """Pin each KEY to an ARM (or version).

    \b
    scoregate overrides set card-4711=canary --why "our own test card"

    A KEY may hold "=": the last one counts.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.SetOverridesRequest(
        model=model, set=pairs(values, "KEY=ARM"), options=change.options()
    )
    make_change(remote, change, "SetOverrides", request)


@overrides.command(epilog=EXIT_CODES)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@model_option
@change_options
def remove(remote: Remote, change: Change, keys: tuple[str, ...], model: str) -> None:
    """Let keys go where their bucket says again.

    \b
    scoregate overrides remove card-4711
    """  # noqa: D301 - as above
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.SetOverridesRequest(model=model, remove=keys, options=change.options())
    make_change(remote, change, "SetOverrides", request)


@overrides.command(epilog=EXIT_CODES)
@model_option
@change_options
def clear(remote: Remote, change: Change, model: str) -> None:
    """Remove all overrides of a model.

    \b
    scoregate overrides clear --model fraud
    """  # noqa: D301 - as above
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.SetOverridesRequest(model=model, clear=True, options=change.options())
    make_change(remote, change, "SetOverrides", request)
