"""`scoregate events`: what happened that somebody should know."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from server.cli.lines import NONE, table, utc
from server.cli.remote import EXIT_CODES, Remote, remote_options, to_json
from server.events.kinds import KINDS

if TYPE_CHECKING:
    from server.pb.scoregate.v1 import control_pb2 as pb

POLL_S = 1.0
PAGE_EVENTS = 1000
HEADINGS = ("time", "severity", "kind", "model", "version", "delivery", "summary")
# Of lines that come one by one: a table cannot know how wide the next is.
WIDTHS = (20, 8, max(map(len, KINDS)), 12, 8, 9, 0)


@click.command(epilog=EXIT_CODES)
@click.option(
    "-n",
    "--limit",
    "limit",
    default=20,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=1, max=PAGE_EVENTS),
    help="So many, the newest.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(list(KINDS)),
    metavar="KIND",
    help=f"Only these; may be given several times: {', '.join(KINDS)}.",
)
@click.option("--follow", is_flag=True, help="Go on with what happens next; Ctrl-C ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@remote_options
def events(
    remote: Remote, limit: int, kinds: tuple[str, ...], *, follow: bool, as_json: bool
) -> None:
    """Show what happened: drift, broken pipelines, rollbacks and other changes.

    \b
    scoregate events --kind drift.broken --kind drift.retrain
    scoregate events --follow --json

    The newest stand first; with --follow, last. The server keeps the newest 1,000; events.log_file
    has all. delivery is what became of an event at the webhook; docs/events.md says more.
    """  # noqa: D301 - click looks for the backspace character itself
    if not follow:
        found = fetch(remote, limit, kinds)
        if as_json:
            _each(found.events, _json)
        else:
            click.echo(render(found.events))
        return
    with suppress(KeyboardInterrupt):  # how one stops following
        _follow(remote, limit, kinds, _json if as_json else line)


def fetch(
    remote: Remote, limit: int, kinds: Sequence[str], after_id: int = 0
) -> pb.GetEventsResponse:
    """Return the newest events, or the next ones after one."""
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.GetEventsRequest(limit=limit, after_id=after_id, kinds=kinds)
    return remote.call("GetEvents", request, pb.GetEventsResponse)


def render(found: Sequence[pb.Event]) -> str:
    """Return events as a table."""
    if not found:
        return "no events"
    return table([HEADINGS, *(_cells(event) for event in found)])


def line(event: pb.Event) -> str:
    """Return an event as a line that lines up with others."""
    cells = zip(_cells(event), WIDTHS, strict=True)
    return "  ".join(text.ljust(width) for text, width in cells).rstrip()


def _cells(event: pb.Event) -> tuple[str, ...]:
    return (
        utc(event.time_ms),
        event.severity,
        event.kind,
        event.model or NONE,
        event.version or NONE,
        NONE if event.delivery == "none" else event.delivery,
        event.summary,
    )


def _json(event: pb.Event) -> str:
    return to_json(event, indent=None)


def _each(found: Sequence[pb.Event], words: Callable[[pb.Event], str]) -> None:
    for event in found:
        click.echo(words(event))


def _follow(
    remote: Remote, limit: int, kinds: Sequence[str], words: Callable[[pb.Event], str]
) -> None:
    newest = fetch(remote, limit, kinds)
    _each(list(reversed(newest.events)), words)
    last_id = newest.last_id
    while True:
        time.sleep(POLL_S)
        # Of none yet, everything is later.
        found = fetch(remote, PAGE_EVENTS, kinds, last_id or 1)
        _each(found.events, words)
        last_id = found.events[-1].id if len(found.events) == PAGE_EVENTS else found.last_id
