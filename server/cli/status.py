"""`scoregate status`: what serves now, on one page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from server.cli.history import summary, who
from server.cli.lines import NONE, percent, size, span, table, utc
from server.cli.remote import EXIT_CODES, Remote, json_option, remote_options, to_json

if TYPE_CHECKING:
    from server.pb.scoregate.v1 import control_pb2 as pb


@click.command(epilog=EXIT_CODES)
@json_option
@remote_options
def status(remote: Remote, as_json: bool) -> None:
    """Show what serves: the plan, its arms with their weights and calls, ports, stores, loops.

    \b
    scoregate status
    scoregate status --json | jq .plan_generation

    Calls are those since the server started, of every arm that a version had.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.pb.scoregate.v1 import control_pb2 as pb

    found = remote.call("GetStatus", pb.GetStatusRequest(), pb.GetStatusResponse)
    if as_json:
        click.echo(to_json(found))
        return
    newest = remote.call("GetHistory", pb.GetHistoryRequest(limit=1), pb.GetHistoryResponse)
    click.echo(render(found, next(iter(newest.changes), None), time.time_ns() // 1_000_000))


def render(found: pb.GetStatusResponse, newest: pb.Change | None, now_ms: int) -> str:
    """Return the page.

    Parameters
    ----------
    found
        What the server says.
    newest
        The newest change in the journal; None: it has none.
    now_ms
        The time, in milliseconds since the epoch.
    """
    blocks = ["\n".join(_head(found, newest, now_ms))]
    if found.models:
        blocks.append(table(_arm_rows(found), right=(3, 4, 6)))
    doors = [("door", "address"), *((one.door, one.address) for one in found.addresses)]
    blocks.append(table(doors))
    if found.stores:
        blocks.append(table(_store_rows(found), right=(4,)))
    if found.loops:
        blocks.append(table(_loop_rows(found), right=(0, 1, 2)))
    return "\n\n".join(blocks)


def state_name(found: pb.GetStatusResponse) -> str:
    """Return the serving state in words: "serving", "not ready"."""
    from server.pb.scoregate.v1 import control_pb2 as pb

    name = pb.ServingState.Name(found.state)
    return name.removeprefix("SERVING_STATE_").lower().replace("_", " ")


def _head(found: pb.GetStatusResponse, newest: pb.Change | None, now_ms: int) -> Iterator[str]:
    since = span((now_ms - found.started_time_ms) / 1000)
    yield (
        f"Scoregate {found.server_version}: {state_name(found)}, up for {since}, "
        f"{size(found.resident_bytes)} resident"
    )
    if found.state_reason:
        yield found.state_reason
    made = ""
    if newest is not None and newest.generation == found.plan_generation:
        made = f": {summary(newest)}, by {who(newest)}, {utc(newest.time_ms)}"
        made += f" ({newest.why})" if newest.why else ""
    yield f"plan {found.plan_generation or NONE}{made}"
    if found.frozen:
        yield f"changes are frozen: {found.frozen}"


def _arm_rows(found: pb.GetStatusResponse) -> Iterator[tuple[str, ...]]:
    yield ("model", "arm", "version", "traffic", "calls", "engine", "memory")
    for one in found.models:
        yield (
            one.model + (" (default)" if one.model == found.default_model else ""),
            one.arm,
            one.version,
            percent(one.weight_basis_points),
            f"{one.predictions:,}",
            one.engine,
            size(one.resident_bytes),
        )


def _store_rows(found: pb.GetStatusResponse) -> Iterator[tuple[str, ...]]:
    from server.pb.scoregate.v1 import control_pb2 as pb

    yield ("store", "group", "kind", "state", "records", "")
    for one in found.stores:
        state = pb.StoreState.Name(one.state).removeprefix("STORE_STATE_").lower()
        records = f"{one.n_records:,}" if one.table == "batch" else NONE
        reads = ", ".join(f"{name} {n:,}" for name, n in sorted(one.reads.items()) if n)
        more = one.detail or (f"generation {one.generation}" if one.generation else reads)
        yield (one.table, one.group or NONE, one.kind, state, records, more)


def _loop_rows(found: pb.GetStatusResponse) -> Iterator[tuple[str, ...]]:
    yield ("loop", "connections", "calls")
    for one in found.loops:
        yield (str(one.index), f"{one.open_connections:,}", f"{one.calls:,}")
