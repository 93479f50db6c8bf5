"""`bench/results/history.jsonl`: what each commit cost, one line per measurement.

Rules: lines are only ever appended, each in one write, so that two measurements never mix and a
version control system merges them by line. A line is a JSON object with `taken`, `commit`, `kind`
(what was measured: "instructions", "bench") and `values`, a flat object of numbers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.errors import ResultError
from bench.results import commit

PATH = Path("bench/results/history.jsonl")


@dataclass(frozen=True)
class Entry:
    """One measurement of one commit."""

    taken: str
    commit: str
    kind: str
    values: dict[str, float]


def append(kind: str, values: Mapping[str, float], path: Path = PATH) -> Entry:
    """Add a line for the commit that is checked out.

    Parameters
    ----------
    kind : str
        What was measured.
    values : mapping of str to float
        Instructions per call, ratios: numbers that can be compared between commits.
    path : Path, optional
        The history.
    """
    entry = Entry(datetime.now(UTC).isoformat(timespec="seconds"), commit(), kind, dict(values))
    line = json.dumps(asdict(entry)) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())
        os.fsync(file.fileno())
    return entry


def read(path: Path = PATH) -> list[Entry]:
    """Read a history, the oldest first; a file that is not there is an empty one.

    Raises
    ------
    ResultError
        A line is damaged; the message says which.
    """
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            fields = json.loads(line)
            values = {str(name): float(value) for name, value in fields["values"].items()}
            entries.append(Entry(fields["taken"], fields["commit"], fields["kind"], values))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ResultError(
                f"{path}, line {number}: not an entry of the history; remove the line"
            ) from None
    return entries


def latest(entries: list[Entry], kind: str) -> Entry | None:
    """Return the last measurement of a kind, or None."""
    return next((entry for entry in reversed(entries) if entry.kind == kind), None)
