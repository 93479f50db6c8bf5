"""`scoregate watch`: the plan, every change and the traffic of each arm, as they happen."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from server.cli.changed import describe_arms
from server.cli.history import summary, who
from server.cli.lines import NONE, percent, utc
from server.cli.remote import EXIT_CODES, Remote, remote_options, to_json

if TYPE_CHECKING:
    from rich.console import Group

    from server.pb.scoregate.v1 import control_pb2 as pb

N_CHANGES = 8  # shown on a terminal


@click.command(epilog=EXIT_CODES)
@click.option(
    "--interval-s",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0.1, max=3600),
    help="Between two reports of the traffic.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="End by itself after so long; else Ctrl-C ends.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@remote_options
def watch(remote: Remote, interval_s: float, seconds: float | None, as_json: bool) -> None:
    """Watch what serves: the plan, changes as they happen, and each arm's traffic.

    \b
    scoregate watch
    scoregate watch --seconds 60 --json > minute.jsonl

    A table that lives on a terminal, lines elsewhere. Latencies are the model's own time.
    """  # noqa: D301 - click looks for the backspace character itself
    import sys

    try:
        if as_json:
            _each(_events(remote, interval_s, seconds), lambda e: to_json(e, indent=None))
        elif sys.stdout.isatty():
            _live(_events(remote, interval_s, seconds))
        else:
            _each(_events(remote, interval_s, seconds), line)
    except KeyboardInterrupt:
        pass  # how one stops watching


def _events(remote: Remote, interval_s: float, seconds: float | None) -> Iterator[pb.WatchResponse]:
    from server.pb.scoregate.v1 import control_pb2 as pb

    request = pb.WatchRequest(interval_ms=round(interval_s * 1000))
    until = None if seconds is None else time.monotonic() + seconds
    for event in remote.stream("Watch", request, pb.WatchResponse):
        yield event
        if until is not None and time.monotonic() >= until:
            return


def _each(events: Iterator[pb.WatchResponse], words: Callable[[pb.WatchResponse], str]) -> None:
    for event in events:
        if text := words(event):
            click.echo(text)


def line(event: pb.WatchResponse) -> str:
    """Return an event as a line, or a line for each arm; empty where it says nothing."""
    now = f"{datetime.now(UTC):%H:%M:%S}Z"
    kind = event.WhichOneof("event")
    if kind == "plan":
        frozen = f"; frozen: {event.plan.frozen}" if event.plan.frozen else ""
        return f"{now} plan {event.plan.generation}: {describe_arms(event.plan)}{frozen}"
    if kind == "change":
        return f"{now} {_change(event.change)}\n{now}   {describe_arms(event.change.after)}"
    return "\n".join(f"{now} {_traffic(arm)}" for arm in event.traffic.arms)


def _change(change: pb.Change) -> str:
    why = f" ({change.why})" if change.why else ""
    return f"change {change.generation}: {summary(change)}, by {who(change)}{why}"


def _traffic(arm: pb.ArmTraffic) -> str:
    decisions = ", ".join(f"{name} {n:.1f}/s" for name, n in sorted(arm.decisions_per_s.items()))
    return (
        f"{arm.model} {arm.arm} {arm.version}: {arm.calls_per_s:.1f} calls/s, "
        f"p50 {_us(arm.p50_us)}, p99 {_us(arm.p99_us)}, degraded {arm.degraded_per_s:.1f}/s, "
        f"errors {arm.errors_per_s:.1f}/s{'; ' if decisions else ''}{decisions}"
    )


def _us(value: float) -> str:
    return f"{value:.1f} µs" if value > 0 else NONE


def _live(events: Iterator[pb.WatchResponse]) -> None:
    from rich.console import Console
    from rich.live import Live

    page = Page()
    with Live(console=Console(), auto_refresh=False) as live:
        for event in events:
            page.take(event)
            live.update(page.render(), refresh=True)


class Page:
    """What a terminal shows: the newest plan, its traffic, and the last changes."""

    def __init__(self) -> None:
        from server.pb.scoregate.v1 import control_pb2 as pb

        self._plan = pb.PlanDescription()
        self._traffic: dict[tuple[str, str], pb.ArmTraffic] = {}
        self._changes: deque[str] = deque(maxlen=N_CHANGES)

    def take(self, event: pb.WatchResponse) -> None:
        """Remember an event."""
        kind = event.WhichOneof("event")
        if kind == "plan":
            self._plan = event.plan
        elif kind == "change":
            self._plan = event.change.after
            self._changes.appendleft(f"{utc(event.change.time_ms)} {_change(event.change)}")
        elif kind == "traffic":
            self._traffic = {(arm.model, arm.version): arm for arm in event.traffic.arms}

    def render(self) -> Group:
        """Return the page."""
        from rich.console import Group
        from rich.text import Text

        from server.bundle.tables import make_table

        heads = ["model", "arm", "version", "traffic", "calls/s", "p50", "p99", "degraded/s"]
        rows = [self._row(model.model, arm) for model in self._plan.models for arm in model.arms]
        title = f"plan {self._plan.generation}"
        if self._plan.frozen:
            title += f", frozen: {self._plan.frozen}"
        return Group(
            make_table(title, [*heads, "errors/s", "decisions/s"], rows),
            *(Text(change) for change in self._changes),
            Text("Ctrl-C ends", style="dim"),
        )

    def _row(self, model: str, arm: pb.ArmPlan) -> list[str]:
        found = self._traffic.get((model, arm.version))
        row = [model, arm.arm, arm.version, percent(arm.weight_basis_points)]
        if found is None:
            return [*row, *[NONE] * 6]
        decisions = "  ".join(
            f"{name} {n:.1f}" for name, n in sorted(found.decisions_per_s.items())
        )
        return [
            *row,
            f"{found.calls_per_s:.1f}",
            _us(found.p50_us),
            _us(found.p99_us),
            f"{found.degraded_per_s:.1f}",
            f"{found.errors_per_s:.1f}",
            decisions or NONE,
        ]
