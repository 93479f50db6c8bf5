"""`scoregate overrides`: named keys go to a named arm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from server.cli.arguments import pairs
from server.cli.changed import make_change
from server.cli.lines import plain, table
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

if TYPE_CHECKING:
    from server.pb.scoregate.v1 import control_pb2 as pb


@click.group()
def overrides() -> None:
    """Pin routing keys to arms, whatever their bucket says.

    The journal keeps them: who may read it learns the keys.
    """


@overrides.command(name="list", epilog=EXIT_CODES, short_help="List the keys that are pinned.")
@click.argument("model", default="")
@json_option
@remote_options
def list_(remote: Remote, model: str, as_json: bool) -> None:
    """List the keys that MODEL, or any model, pins, by key, with the versions that they go to.

    \b
    scoregate overrides list
    scoregate overrides list fraud --json
    """  # noqa: D301 - click looks for the backspace character itself
    plan = fetch(remote, model)
    click.echo(part_json(plan, ("overrides",)) if as_json else render(plan))


@overrides.command(name="set", epilog=EXIT_CODES)
@click.argument("values", nargs=-1, required=True, metavar="KEY=ARM...")
@model_option
@change_options
def set_(remote: Remote, change: Change, values: tuple[str, ...], model: str) -> None:
    """Pin each KEY to an ARM (or version).

    \b
    scoregate overrides set card-4711=canary --why "our own test card"

    A KEY may hold "=": the last one counts.
    """  # noqa: D301 - as above
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


def render(plan: pb.PlanDescription) -> str:
    """Return the pinned keys of a plan as a table."""
    rows = []
    for model in plan.models:
        versions = {arm.arm: arm.version for arm in model.arms}
        rows += [
            (model.model, plain(key), arm, versions[arm])
            for key, arm in sorted(model.overrides.items())
        ]
    if not rows:
        return "no overrides: every key goes where its bucket says"
    return table([("model", "key", "arm", "version"), *rows])
