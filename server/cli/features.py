"""`scoregate features`: load, list, get and roll back stored features."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.errors import InputError

if TYPE_CHECKING:
    from server.features.groups import Definition
    from server.features.load import LoadReport

PATH = click.Path(path_type=Path)

store_option = click.option(
    "--store",
    required=True,
    envvar="SCOREGATE_FEATURES_DIRECTORY",
    show_envvar=True,
    metavar="DIR|URL",
    help="A store directory, or for online tables also redis://HOST:PORT/0, rediss://... or "
    "unix:///PATH.",
)
directory_option = click.option(
    "--store",
    required=True,
    envvar="SCOREGATE_FEATURES_DIRECTORY",
    show_envvar=True,
    type=PATH,
    metavar="DIR",
    help="The store directory.",
)
schema_option = click.option(
    "--schema",
    type=PATH,
    metavar="FILE|BUNDLE",
    help="A schema.json or a bundle that declares the group.",
)
repository_option = click.option(
    "--repository",
    type=PATH,
    metavar="DIR",
    help="A model repository: its newest versions declare the group.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def features() -> None:
    """Load, list and look up stored features.

    A group (customer, terminal, ...) has an online table, written at any time, and a batch table,
    written whole and switched. A model's schema declares the groups; see `scoregate schema show`.
    """


@features.command()
@click.argument("file", type=PATH)
@click.option("--group", required=True, help="The group of features, as the schema names it.")
@click.option(
    "--table",
    required=True,
    type=click.Choice(["online", "batch"]),
    help="online: insert or replace records. batch: write a whole new generation and switch.",
)
@store_option
@schema_option
@repository_option
@click.option("--id-column", help="Column with the entity ids.  [default: ENTITY_id, any case]")
@click.option(
    "--time-column", help="Column with the time as of which a row holds.  [default: see --as-of]"
)
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="That time for all rows, UTC.  [default: now]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 10_000_000),
    default=100_000,
    show_default=True,
    help="Rows per transaction.",
)
@click.option(
    "--resume/--restart",
    default=True,
    show_default=True,
    help="Go on where the same load was cut off, or begin again.",
)
@click.option("--only-newer", is_flag=True, help="Online: leave records with a later time.")
@click.option(
    "--map-bytes",
    type=click.IntRange(1 << 20),
    help="LMDB: let the online table grow to this size.  [default: as it is; 16 GiB when made]",
)
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Batch: generations to keep, the new one included.",
)
@click.option("--dry-run", is_flag=True, help="Read and check the whole file; write nothing.")
@json_option
def load(
    file: Path,
    group: str,
    table: str,
    store: str,
    schema: Path | None,
    repository: Path | None,
    as_of: datetime | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Load a Parquet or CSV FILE into a table of a group.

    The file has one row per entity: a column with its id, and one for each column of the group,
    by name. An empty cell is "no value".

    \b
    Example:
      scoregate features load customers.parquet --group customer --table batch \\
        --store features --repository models --id-column CUSTOMER_ID

    Servers see an online load batch by batch and a batch load at once, at its end. A load that was
    cut off goes on where it was when it is started again.

    Exit code 0: loaded. 2: the file or an argument cannot be used. 1: the store failed.
    """  # noqa: D301 - click's mark for a paragraph that is not wrapped
    from server.features.load import LoadOptions, load_batch, load_online

    options = LoadOptions(
        definition=_definition(group, schema, repository),
        store=store,
        as_of_ms=None if as_of is None else round(as_of.replace(tzinfo=UTC).timestamp() * 1000),
        **given,
    )
    run = load_online if table == "online" else load_batch
    if as_json:
        report = run(file, options, lambda done, total: None)
        click.echo(json.dumps(asdict(report), indent=2))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        Remaining(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{group}, {table}", total=None)
        report = run(
            file, options, lambda done, total: progress.update(task, completed=done, total=total)
        )
    _say(report, options.dry_run)


def _definition(group: str, schema: Path | None, repository: Path | None) -> Definition:
    from server.features.groups import find_group

    return find_group(group, schema=schema, repository=repository)


def _say(report: LoadReport, dry_run: bool) -> None:
    n_new = report.n_rows - report.n_skipped
    if dry_run:
        click.echo(f"{report.n_rows:,} rows can be loaded into {report.group}, {report.table}")
    elif report.generation:
        click.echo(
            f"{report.group}: generation {report.generation} with {report.n_records:,} records is "
            f"current ({n_new:,} rows in {report.seconds:.1f} s, {report.per_s:,.0f}/s)"
        )
    else:
        click.echo(
            f"{report.group}: {report.n_written:,} records of {n_new:,} rows written online "
            f"({report.seconds:.1f} s, {report.per_s:,.0f}/s)"
        )
    if report.n_skipped:
        click.echo(f"  resumed: {report.n_skipped:,} rows had been loaded before")
    if report.n_missing:
        click.echo(f"  {report.n_missing:,} values are missing")
    if report.n_unseen:
        click.echo(f"  {report.n_unseen:,} texts are in no vocabulary: stored as missing")


@features.command(name="list")
@directory_option
@json_option
def list_(store: Path, as_json: bool) -> None:
    """List the tables of a store directory: generations, records, sizes, ages."""
    from server.features.look import describe_store

    answer = describe_store(store)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    from server.bundle.render import format_bytes
    from server.bundle.tables import NONE, make_table, stdout_console

    console = stdout_console()
    online = answer["online"]
    if online is None:
        console.print("online: no table")
    elif online["error"]:
        console.print(f"online: {online['error']}", markup=False)
    else:
        console.print(
            f"online: {online['records']:,} records of all groups, "
            f"{format_bytes(online['bytes'])} of {format_bytes(online['map_bytes'])}, "
            f"last written {online['written']}"
        )
    rows = [
        (
            group,
            one["generation"],
            "current" if one["current"] else "",
            NONE if one["records"] is None else f"{one['records']:,}",
            format_bytes(one["bytes"]),
            one["error"] or _age(one["age_s"]),
        )
        for group, entries in answer["groups"].items()
        for one in entries
    ]
    if rows:
        heads = ["group", "generation", "", "records", "size", "age"]
        console.print(make_table("batch tables", heads, rows))
    else:
        console.print("batch: no tables")


@features.command()
@click.argument("group")
@click.argument("entity_id", metavar="ID")
@store_option
@click.option("--batch-store", type=PATH, metavar="DIR", help="Batch tables beside a Redis store.")
@schema_option
@repository_option
@json_option
def get(
    group: str,
    entity_id: str,
    store: str,
    batch_store: Path | None,
    schema: Path | None,
    repository: Path | None,
    as_json: bool,
) -> None:
    """Look the records of one entity up, as the server does.

    With --schema or --repository the values have names.

    \b
    Example:
      scoregate features get customer 4711 --store features --repository models
    """  # noqa: D301 - as above
    from server.features.look import read_records

    layout = None
    if schema is not None or repository is not None:
        layout = _definition(group, schema, repository).group
    answer = read_records(store, group, entity_id, batch_store=batch_store, layout=layout)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    for table, one in answer.items():
        line = f"{table}: {'no table' if one['outcome'] == 'none' else one['outcome']}"
        if one["outcome"] == "hit":
            line += f", as of {one['event_time']}, age {_age(one['age_s'])}"
            if layout is not None and not one["known"]:
                line += f"; its layout {one['fingerprint']} is not the schema's"
        if one["error"]:
            line += f": {one['error']}"
        click.echo(line)
        for name, value in one.get("values", {}).items():
            click.echo(f"  {name} = {'no value' if value is None else value}")


@features.command()
@click.argument("group")
@directory_option
@click.option("--to", metavar="GENERATION", help="Which.  [default: the one before the current]")
def rollback(group: str, store: Path, to: str | None) -> None:
    """Switch a group's batch table to an earlier generation.

    Servers follow within their polling interval. `scoregate features list` names the generations.
    """
    from server.features.generations import rollback as switch

    if not store.is_dir():
        raise InputError(f"{store} is not a directory: name the store's with --store")
    before, after = switch(store, group, to)
    click.echo(f"{group}: {after} is current" + (f"; it was {before}" if before else ""))


def _age(seconds: float) -> str:
    """Return a span in its largest fitting unit."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
