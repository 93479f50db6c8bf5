"""`python -m bench.drift_tables`: the tables of docs/monitoring.md, measured.

False alarms over window size, number of features and correlation; power; detection delay; rows in
clusters; the handbook's weeks, untouched and with faults; the cost. Each section goes into
bench/results/drift_tables.json as soon as it is done, and all of them as Markdown between the
marks of docs/monitoring.md. The whole takes some minutes of one core; `--only` and
`--repetitions` take less. A section that is not run keeps its earlier figures, which carry their
own number of repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.drift_markdown import markdown
from bench.drift_null import cluster_row, delay_row, null_cell, power_row
from bench.results import machine

RESULTS = Path(__file__).parent / "results" / "drift_tables.json"
DOCS = Path(__file__).parents[1] / "docs" / "monitoring.md"
BEGIN, END = "<!-- tables begin: python -m bench.drift_tables -->", "<!-- tables end -->"
SIZES = (200, 500, 1000, 5000)
SEED = 6

Say = Callable[[str], None]
Section = Callable[[int, Say], Any]


def _null(n_repetitions: int, say: Say) -> list[dict[str, Any]]:
    cells = [(n, d, c) for n in SIZES for d in (1, 10, 30) for c in (0.0, 0.8)]
    rows = []
    for i, (n, d, c) in enumerate(cells):
        say(f"{i + 1}/{len(cells)}: n {n}, {d} features, correlation {c}")
        rows.append(null_cell(n, d, c, n_repetitions, SEED))
    return rows


def _power(n_repetitions: int, say: Say) -> list[dict[str, Any]]:
    rows = []
    for n in (1000, 2000):
        for shift in (0.1, 0.2, 0.25, 0.3, 0.35, 0.5, 1.0):
            say(f"n {n}, shift {shift}")
            rows.append(power_row(shift, n, 30, n_repetitions, SEED))
    return rows


def _delay(n_repetitions: int, say: Say) -> list[dict[str, Any]]:
    rows = []
    for n in (1000, 2000):
        for shift in (0.3, 0.5, 1.0, 3.0):
            say(f"n {n}, shift {shift}")
            rows.append(delay_row(shift, n, max(1, n_repetitions // 5), SEED))
    return rows


def _clusters(n_repetitions: int, say: Say) -> list[dict[str, Any]]:
    rows = []
    for size, within in ((1, 0.0), (5, 0.3), (20, 0.3), (20, 0.8)):
        say(f"clusters of {size} rows, correlation {within} within")
        rows.append(cluster_row(size, within, max(1, n_repetitions // 2), SEED))
    return rows


def _handbook(n_repetitions: int, say: Say) -> dict[str, Any] | None:
    from bench import drift_handbook as handbook

    path = handbook.handbook_file()
    if not path.is_file():
        say(f"skipped: the handbook's transactions are not at {path}: set SCOREGATE_HANDBOOK")
        return None
    rows = handbook.read_rows(path)
    weeks = []
    variants: tuple[tuple[int, handbook.Watch, bool], ...] = (
        (1000, "auto", True),
        (1000, "off", True),
        (1000, "calendar", False),
        (1000, "calendar", True),
        (2000, "calendar", True),
    )
    for n, calendar, with_times in variants:
        say(f"untouched weeks: windows of {n}, night and weekend {calendar}")
        weeks.append(handbook.untouched(rows, n, calendar, with_times=with_times))
    faults = []
    for name in handbook.FAULTS:
        say(f"fault: {name}")
        faults.append(handbook.fault_row(rows, name))
    say("windows of some customers' whole week")
    few = handbook.customers(rows, 70, max(1, n_repetitions // 10), SEED)
    return {"weeks": weeks, "faults": faults, "customers": few}


def _cost(_n_repetitions: int, say: Say) -> dict[str, Any]:
    from bench.drift_cost import cost

    say("30 features, windows of 2,000 and 5,000 rows")
    return cost()


SECTIONS: dict[str, Section] = {
    "null": _null,
    "power": _power,
    "delay": _delay,
    "clusters": _clusters,
    "handbook": _handbook,
    "cost": _cost,
}


def main(arguments: list[str] | None = None) -> None:
    """Run sections, keep their figures, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift_tables", description=__doc__)
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(SECTIONS)}")
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    chosen = parser.parse_args(arguments)
    names = chosen.only.split(",") if chosen.only else list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown or chosen.repetitions < 1:
        parser.error(f"no section {', '.join(unknown)}" if unknown else "--repetitions: at least 1")
    started = time.monotonic()
    found: dict[str, Any] = json.loads(chosen.out.read_text()) if chosen.out.is_file() else {}
    for name in names:

        def say(text: str, name: str = name) -> None:
            print(f"[{time.monotonic() - started:6.1f} s] {name}: {text}", file=sys.stderr)

        figures = SECTIONS[name](chosen.repetitions, say)
        if figures is None:
            continue
        found[name] = figures
        found["machine"] = machine()
        _write(chosen.out, json.dumps(found, indent=1) + "\n")
    text = markdown(found)
    print(text)
    if chosen.docs.is_file():
        _put_in(chosen.docs, text)


def _put_in(docs: Path, text: str) -> None:
    """Replace what stands between the marks."""
    whole = docs.read_text(encoding="utf-8")
    if BEGIN not in whole or END not in whole:
        print(f"{docs}: no marks {BEGIN!r} and {END!r}: left as it is", file=sys.stderr)
        return
    head, rest = whole.split(BEGIN, 1)
    _write(docs, f"{head}{BEGIN}\n\n{text}\n{END}{rest.split(END, 1)[1]}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


if __name__ == "__main__":
    main()
