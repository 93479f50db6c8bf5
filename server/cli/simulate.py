"""`scoregate simulate`: make card transactions to try things on."""

from __future__ import annotations

import os
from pathlib import Path

import click

from server.errors import InputError


@click.command()
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write, .parquet or .csv.",
)
@click.option("--days", default=183, show_default=True, type=click.IntRange(min=2))
@click.option("--customers", default=5_000, show_default=True, type=click.IntRange(min=1))
@click.option("--terminals", default=10_000, show_default=True, type=click.IntRange(min=1))
@click.option("--start-date", default="2018-04-01", show_default=True, metavar="YYYY-MM-DD")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--features/--raw",
    default=True,
    show_default=True,
    help="Add the 15 model inputs, as of before each transaction; or write the raw columns only.",
)
def simulate(
    out: Path,
    days: int,
    customers: int,
    terminals: int,
    start_date: str,
    seed: int,
    features: bool,
) -> None:
    """Simulate card transactions with three kinds of fraud.

    The rules are those of the Fraud Detection Handbook of the Université Libre de Bruxelles; the
    defaults are its own: 1.75 million transactions of half a year, 0.84 % of them frauds. The
    first 37 days have shorter windows than later ones: leave them out of training.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise InputError(f"--out {out}: the name must end in .parquet or .csv")
    # Imported here: `simulate --help` must not wait for pandas.
    from server.demo.features import compute_features
    from server.demo.simulator import simulate as run
    from server.demo.sizes import Size

    frame = run(Size(customers, terminals, days, start_date), seed=seed)
    if features:
        computed = compute_features(frame, as_published=False)
        frame = frame.join(computed.drop(columns=["TX_AMOUNT"]))
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            if out.suffix == ".csv":
                frame.to_csv(file, index=False)
            else:
                frame.to_parquet(file, index=False)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(out)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from None
    frauds = int(frame["TX_FRAUD"].sum())
    click.echo(
        f"{out}: {len(frame):,} transactions of {days} days, {frauds:,} frauds "
        f"({frauds / max(len(frame), 1):.2%}), {len(frame.columns)} columns"
    )
