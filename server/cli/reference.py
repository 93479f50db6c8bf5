"""`scoregate reference`: what drift is compared with."""

from __future__ import annotations

from pathlib import Path

import click

from server.cli.progress import Progress

EXISTING = click.Path(exists=True, path_type=Path)


@click.group()
def reference() -> None:
    """Make what drift is compared with."""


@reference.command(
    epilog="Exit codes: 0 done; 2 the bundle or the file cannot be used: nothing was written."
)
@click.argument("bundle", metavar="BUNDLE|MODEL_DIR", type=EXISTING)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--time-column",
    metavar="COLUMN",
    help="Event times. Rows are put in their order; timestamps or ISO 8601 texts (UTC where they "
    "name no zone) also tell the hours of the week, which calendar features need.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The new version: REPOSITORY/MODEL/VERSION.  [default: beside the bundle, VERSION-ref1]",
)
def build(bundle: Path, file: Path, time_column: str | None, out: Path | None) -> None:
    """Give a model another reference: a new version of it, made of a file's rows.

    \b
    scoregate reference build repository/fraud/2 last_month.parquet --time-column time
    scoregate deploy fraud 2-ref1 --traffic 10

    A bundle never changes: what serves is what was verified. So the result is a new version whose
    model, schema, thresholds and calibration are the old one's, byte for byte, and whose reference
    is of FILE (Parquet or CSV): a column per feature, by name, stored features too; other columns
    are not looked at. Rows are resolved as the server would (ranges, vocabularies, defaults) and
    scored by the bundle. Of a model's directory it takes the newest version.

    When? Where the validation rows are old, or few, and what is scored now is known to be well:
    otherwise a new reference hides the drift. Take rows as they were served, whole weeks of them,
    in the order of time, 5,000 or more. See docs/monitoring.md.
    """  # noqa: D301 - click looks for the backspace character itself
    from server.export.rebuild import rebuild_reference

    with Progress() as progress:
        made = rebuild_reference(bundle, file, time_column=time_column, out=out, step=progress.step)
    known = made.reference
    click.echo(f"{made.path}: written, SHA-256 {made.sha256.hex()}")
    click.echo(f"  model, schema, thresholds and calibration are those of {made.former}")
    click.echo(f"  reference: {known.n_rows:,} of the {made.n_rows:,} rows of {file}")
    for why, count in made.rows.refusals.items():
        click.echo(f"  left out, as the server would refuse them: {count:,} rows, {why}")
    for note in known.notes:
        click.echo(f"  {note}")
    click.echo(f"next: scoregate deploy {made.model} {made.version} --traffic 10")
