"""`scoregate schema`: check or show what features a model takes, and from where."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.errors import BundleError

if TYPE_CHECKING:
    from fastpath.schema import Schema
    from server.bundle.compatibility import Comparison

PATH = click.Path(path_type=Path)


@click.group()
def schema() -> None:
    """Check or show the features of a schema.json or of a bundle."""


@schema.command()
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="FILE_OR_BUNDLE...")
@click.option(
    "--against",
    type=PATH,
    metavar="OTHER",
    help="A schema.json or bundle whose clients and stored records exist: say what of them is "
    "still read, and how the two differ.",
)
def check(paths: tuple[Path, ...], against: Path | None) -> None:
    """Check schemas as the server would.

    Each is read and compiled; of a bundle all files are verified too.

    Exit code 0: they can be served, and with --against everything made for OTHER is read. 2: one
    line per problem says what, where and what to do.
    """
    other = load(against) if against is not None else None
    failed = False
    for path in paths:
        try:
            compiled = load(path, verify=True)
        except BundleError as error:
            click.echo(f"scoregate: {error}", err=True)
            failed = True
            continue
        click.echo(f"{path}: ok: {summary(compiled)}")
        if other is not None:
            from server.bundle.compatibility import compare

            comparison = compare(compiled, other)
            say(comparison, str(against))
            failed = failed or not comparison.compatible
    if failed:
        sys.exit(2)


@schema.command()
@click.argument("path", type=PATH, metavar="FILE_OR_BUNDLE")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def show(path: Path, as_json: bool) -> None:
    """Show a schema in tables.

    Features and where they come from; groups, with the keys and bytes of their records; layouts
    and their fingerprints; limits on falling back.
    """
    from server.bundle.manifest import encode
    from server.bundle.schema_tables import plain_schema, schema_tables
    from server.bundle.tables import stdout_console

    compiled = load(path)
    if as_json:
        click.echo(encode(plain_schema(compiled)), nl=False)
        return
    console = stdout_console()
    for table in schema_tables(compiled):
        console.print(table)


def load(path: Path, *, verify: bool = False) -> Schema:
    """Compile a schema.json, or that of a bundle; verify: the bundle's other files too."""
    from fastpath.errors import SchemaError
    from server.bundle import read_bundle
    from server.bundle.manifest import SCHEMA
    from server.bundle.schema import compile_schema, decode_schema

    try:
        if path.is_dir() and verify:
            return compile_schema(read_bundle(path).schema)
        file = path / SCHEMA if path.is_dir() else path
        return compile_schema(decode_schema(file.read_bytes(), str(file)))
    except SchemaError as error:
        raise BundleError(f"{path}: {error}") from error
    except OSError as error:
        raise BundleError(f"{error.filename or path}: cannot be read: {error.strerror}") from error


def summary(compiled: Schema) -> str:
    """Return what a schema holds, in one line."""
    n_stored = sum(spec.is_stored for spec in compiled.specs)
    text = f"{compiled.n_features} features"
    if n_stored:
        groups = ", ".join(group.name for group in compiled.groups)
        text += f", {n_stored} of them stored (groups {groups})"
    return f"{text}, layout {compiled.fingerprint:#018x}"


def say(comparison: Comparison, other: str) -> None:
    """Print a comparison, a line per finding."""
    for reading in comparison.readings:
        state = "readable" if reading.readable else "NOT readable"
        words = reading.refusal or reading.difference or "equal"
        click.echo(f"  {reading.what} of {other} ({reading.fingerprint:#018x}): {state}: {words}")
    for conflict in comparison.conflicts:
        click.echo(f"  conflict: {conflict}")
    for difference in comparison.differences:
        click.echo(f"  difference: {difference}")
