"""`scoregate thresholds`: decide at other scores than the bundle's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from server.cli.arguments import scores
from server.cli.changed import make_change
from server.cli.lines import NONE, table
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

arm_option = click.option(
    "--arm", default="", metavar="ARM|VERSION", help="Of one arm only.  [default: every arm]"
)


@click.group()
def thresholds() -> None:
    """Decide at other scores than those of the bundle, and see at which."""


@thresholds.command(epilog=EXIT_CODES, short_help="Show the thresholds in force.")
@click.argument("model", default="")
@json_option
@remote_options
def show(remote: Remote, model: str, as_json: bool) -> None:
    """Show at which scores MODEL, or every model, decides: of each arm, ascending.

    \b
    scoregate thresholds show
    scoregate thresholds show fraud --json

    A score that reaches a threshold gets the decision of its name; the highest one counts.
    """  # noqa: D301 - click looks for the backspace character itself
    plan = fetch(remote, model)
    click.echo(part_json(plan, ("arms",)) if as_json else render(plan))


@thresholds.command(name="set", epilog=EXIT_CODES)
@click.argument("values", nargs=-1, required=True, metavar="NAME=SCORE...")
@model_option
@arm_option
@change_options
def set_(remote: Remote, change: Change, values: tuple[str, ...], model: str, arm: str) -> None:
    """Set thresholds, each NAME its SCORE; those that are not named stay.

    \b
    scoregate thresholds set review=0.4 --why "reviewers are overrun"
    scoregate thresholds set review=0.4 block=0.9 --arm canary

    They have to ascend in the bundle's order. `thresholds reset` takes it back.
    """  # noqa: D301 - as above
    _call(remote, change, model, arm, scores(values))


@thresholds.command(epilog=EXIT_CODES)
@model_option
@arm_option
@change_options
def reset(remote: Remote, change: Change, model: str, arm: str) -> None:
    """Decide at the bundle's own thresholds again.

    \b
    scoregate thresholds reset --arm canary
    """  # noqa: D301 - as above
    _call(remote, change, model, arm, {})


def _call(
    remote: Remote, change: Change, model: str, arm: str, values: Mapping[str, float]
) -> None:
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.SetThresholdsRequest(model=model, arm=arm, scores=values, options=change.options())
    make_change(remote, change, "SetThresholds", request)


def render(plan: pb.PlanDescription) -> str:
    """Return the thresholds of a plan as a table."""
    heads = ("model", "arm", "version", "threshold", "score", "raw score", "set by")
    return table([heads, *_rows(plan)], right=(4, 5))


def _rows(plan: pb.PlanDescription) -> Iterator[tuple[str, ...]]:
    for model in plan.models:
        for arm in model.arms:
            who = (model.model, arm.arm, arm.version)
            for one in arm.thresholds:
                by = "operator" if one.is_override else "bundle"
                yield (*who, one.name, f"{one.score:.6g}", f"{one.raw_score:.6g}", by)
            if not arm.thresholds:
                yield (*who, NONE, NONE, NONE, NONE)
