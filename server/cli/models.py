"""`scoregate models`: versions on disk and in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from server.cli.arguments import model_and_version
from server.cli.changed import make_change
from server.cli.lines import NONE, percent, size, table
from server.cli.remote import (
    EXIT_CODES,
    Change,
    Remote,
    change_options,
    json_option,
    remote_options,
    to_json,
)

if TYPE_CHECKING:
    from server.pb.scoregate.v1 import control_pb2 as pb

names_argument = click.argument("names", nargs=-1, required=True, metavar="[MODEL] VERSION")


@click.group()
def models() -> None:
    """List versions, keep them in memory or not, and choose the default model."""


@models.command(name="list", epilog=EXIT_CODES, short_help="List the versions of models.")
@click.argument("model", default="")
@json_option
@remote_options
def list_(remote: Remote, model: str, as_json: bool) -> None:
    """List the versions of MODEL, or of all models: on disk, loaded, serving, broken.

    \b
    scoregate models list
    scoregate models list fraud --json
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    found = remote.call("ListModels", pb.ListModelsRequest(model=model), pb.ListModelsResponse)
    click.echo(to_json(found) if as_json else render(found))


@models.command(epilog=EXIT_CODES, short_help="Choose or say the default model.")
@click.argument("model", default="")
@change_options
def default(remote: Remote, change: Change, model: str) -> None:
    """Let MODEL answer requests that name none; without MODEL, say which one does.

    \b
    scoregate models default
    scoregate models default limits --why "callers that name none want limits"

    The model has to serve already. Requests that name their model stay with it.
    """  # noqa: D301 - as above
    from server.pb.scoregate.v1 import control_pb2 as pb

    if model:
        request = pb.SetDefaultModelRequest(model=model, options=change.options())
        make_change(remote, change, "SetDefaultModel", request)
        return
    if change.why or change.expect or change.dry_run:
        raise click.UsageError("give a MODEL: without one, nothing is changed")
    found = remote.call("GetStatus", pb.GetStatusRequest(), pb.GetStatusResponse)
    name = found.default_model
    click.echo(json.dumps({"default_model": name}) if change.as_json else name or NONE)


@models.command(epilog=EXIT_CODES, short_help="Load a version and keep it loaded.")
@names_argument
@json_option
@remote_options
def load(remote: Remote, names: tuple[str, ...], as_json: bool) -> None:
    """Load and prove VERSION (or a label) and keep it loaded, so that deploying it takes no time.

    \b
    scoregate models load 2.0
    """  # noqa: D301 - as above
    from server.pb.scoregate.v1 import control_pb2 as pb

    model, version = model_and_version(names)
    request = pb.LoadModelRequest(model=model, version=version)
    done = remote.call("LoadModel", request, pb.LoadModelResponse)
    if as_json:
        click.echo(to_json(done))
        return
    one = done.version
    click.echo(
        f"{one.version}: loaded in {done.load_ms:.0f} ms, {one.engine} engine, "
        f"{size(one.resident_bytes)}"
    )


@models.command(epilog=EXIT_CODES, short_help="Stop keeping a version in memory.")
@names_argument
@json_option
@remote_options
def unload(remote: Remote, names: tuple[str, ...], as_json: bool) -> None:
    """Stop keeping VERSION in memory; refused while it serves.

    \b
    scoregate models unload 1.0
    """  # noqa: D301 - as above
    from server.pb.scoregate.v1 import control_pb2 as pb

    model, version = model_and_version(names)
    request = pb.UnloadModelRequest(model=model, version=version)
    done = remote.call("UnloadModel", request, pb.UnloadModelResponse)
    if as_json:
        click.echo(to_json(done))
    else:
        click.echo(f"{version}: unloaded, {size(done.freed_bytes)} freed")


def render(found: pb.ListModelsResponse) -> str:
    """Return models and their versions as a table."""
    rows = [row for model in found.models for row in _rows(model)]
    if not rows:
        return "no versions; `scoregate export` writes <repository>/<model>/<version>"
    heads = ("model", "version", "state", "arm", "traffic", "engine", "memory", "labels", "created")
    text = table([heads, *rows], right=(4, 6))
    broken = [
        f"{model.model} {one.version}: {one.detail}"
        for model in found.models
        for one in model.versions
        if one.detail
    ]
    return "\n".join([text, *broken])


def _rows(model: pb.ModelVersions) -> Iterator[tuple[str, ...]]:
    from server.pb.scoregate.v1 import control_pb2 as pb

    for one in model.versions:
        state = pb.ModelVersionState.Name(one.state).removeprefix("MODEL_VERSION_STATE_").lower()
        yield (
            model.model + (" (default)" if model.is_default else ""),
            one.version,
            state,
            one.arm or NONE,
            percent(one.weight_basis_points) if one.arm else NONE,
            one.engine or NONE,
            size(one.resident_bytes) if one.resident_bytes else NONE,
            ", ".join(one.labels) or NONE,
            one.created or NONE,
        )
