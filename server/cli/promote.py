"""`scoregate promote` and `scoregate retire`: an arm takes all the traffic, or none any more."""

from __future__ import annotations

import click

from server.cli.changed import make_change
from server.cli.remote import EXIT_CODES, Change, Remote, change_options, model_option


@click.command(epilog=EXIT_CODES)
@click.argument("arm", default="", metavar="[ARM|VERSION]")
@model_option
@change_options
def promote(remote: Remote, change: Change, arm: str, model: str) -> None:
    """Give an arm all the traffic: it becomes the champion, and the others leave.

    \b
    scoregate promote
    scoregate promote canary-2 --model fraud

    Without an arm, the only one beside the champion. The versions that left stay in memory for a
    while, so that `scoregate rollback` takes no time.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.PromoteRequest(model=model, arm=arm, options=change.options())
    make_change(remote, change, "Promote", request)


@click.command(epilog=EXIT_CODES)
@click.argument("arm", default="", metavar="[ARM|VERSION]")
@model_option
@click.option("--whole-model", is_flag=True, help="Retire --model with all of its arms.")
@change_options
def retire(remote: Remote, change: Change, arm: str, model: str, whole_model: bool) -> None:
    """Take an arm, or a whole model, out of service.

    \b
    scoregate retire canary
    scoregate retire --model chargeback --whole-model

    The arm's share goes to the others in proportion. The only arm of a model, and the default
    model, cannot leave.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    if bool(arm) == whole_model:
        raise click.UsageError("give an ARM, or --model MODEL --whole-model")
    if whole_model and not model:
        raise click.UsageError("--whole-model: say which with --model")
    request = pb.RetireRequest(model=model, arm=arm, options=change.options())
    make_change(remote, change, "Retire", request)
