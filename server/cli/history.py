"""`scoregate history`: who changed what serves, when, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from server.cli.arguments import GENERATION
from server.cli.changed import describe_arms
from server.cli.lines import percent, table, utc
from server.cli.remote import EXIT_CODES, Remote, json_option, remote_options, to_json

if TYPE_CHECKING:
    from server.pb.scoregate.v1 import control_pb2 as pb

PAGE_CHANGES = 500
UNVERIFIED = "*"


@click.command(epilog=EXIT_CODES)
@click.option(
    "-n",
    "n_changes",
    default=20,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=1),
    help="So many, the newest.",
)
@click.option(
    "--before",
    default=0,
    metavar="GENERATION",
    type=GENERATION,
    help="Only older ones.",
)
@click.option("--model", default="", help="Only changes that touched this model.")
@json_option
@remote_options
def history(remote: Remote, n_changes: int, before: int, model: str, as_json: bool) -> None:
    """List the changes of what serves, the newest first, with the plan that each made.

    \b
    scoregate history -n 5
    scoregate rollback --to GENERATION

    It comes from the server's journal; `scoregate journal export` has it with the bucket tables.
    """  # noqa: D301 - click looks for the backspace character itself
    found = fetch(remote, n_changes, before, model)
    click.echo(to_json(found) if as_json else render(found))


def fetch(remote: Remote, n_changes: int, before: int, model: str) -> pb.GetHistoryResponse:
    """Return the newest changes, in as many calls as it takes."""
    from server.pb.scoregate.v1 import control_pb2 as pb

    found = pb.GetHistoryResponse()
    while True:
        request = pb.GetHistoryRequest(
            limit=min(PAGE_CHANGES, n_changes - len(found.changes)),
            before_generation=before,
            model=model,
        )
        page = remote.call("GetHistory", request, pb.GetHistoryResponse)
        found.changes.extend(page.changes)
        found.has_more = page.has_more
        if not (page.changes and page.has_more and len(found.changes) < n_changes):
            return found
        before = page.changes[-1].generation


def render(found: pb.GetHistoryResponse) -> str:
    """Return changes as lines: two each."""
    heads = [
        (str(change.generation), utc(change.time_ms), who(change), summary(change))
        for change in found.changes
    ]
    lines = []
    for head, change in zip(table(heads).splitlines(), found.changes, strict=True):
        lines.append(head + (f"  ({change.why})" if change.why else ""))
        frozen = f"; frozen: {change.after.frozen}" if change.after.frozen else ""
        lines.append(f"    {describe_arms(change.after)}{frozen}")
    if not lines:
        return "no changes"
    if any(not change.is_verified for change in found.changes):
        lines.append(f"{UNVERIFIED} said by the caller, not proven by a token")
    if found.has_more:
        lines.append(f"older ones: --before {found.changes[-1].generation}")
    return "\n".join(lines)


def who(change: pb.Change) -> str:
    """Return who made a change, marked where nothing proves it."""
    return change.who + ("" if change.is_verified else UNVERIFIED)


def summary(change: pb.Change) -> str:
    """Return what a change was, in a few words: "deploy fraud 2.0 at 10 %"."""
    try:
        given = json.loads(change.arguments or "{}")
    except ValueError:
        given = {}
    words = _words(change.verb, given) if isinstance(given, dict) else []
    return " ".join(word for word in [change.verb, *words] if word)


def _words(verb: str, given: Mapping[str, Any]) -> list[str]:
    model = str(given.get("model", ""))
    if verb == "deploy":
        share = percent(int(given.get("traffic_basis_points", 0)))
        return [model, str(given.get("version", "")), f"at {share}"]
    if verb == "traffic":
        shares = given.get("basis_points", {}).items()
        return [model, *(f"{arm}={percent(share)}" for arm, share in shares)]
    if verb in ("promote", "retire", "default"):
        return [model, str(given.get("arm", ""))]
    if verb in ("rollback", "recover"):
        return [f"to {given['generation']}"] if given.get("generation") else []
    if verb == "thresholds":
        values = [f"{name}={value:g}" for name, value in given.get("scores", {}).items()]
        return [model, str(given.get("arm", "")), *(values or ["reset"])]
    if verb in ("overrides", "labels"):
        # Of overrides only numbers: keys are somebody's.
        n_set, n_removed = len(given.get("set", {})), len(given.get("remove", []))
        parts = [f"{n_set} set" if n_set else "", f"{n_removed} removed" if n_removed else ""]
        return [model, "cleared" if given.get("clear") else "", *parts]
    return []
