"""Tables of records, one group each, and the file that keeps them between runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from server.demo.files import load_arrays, save_arrays


@dataclass(frozen=True)
class Table:
    """One record for each entity of a group.

    Attributes
    ----------
    group : str
    ids : str [n]
    event_time_ms : int64 [n]
        As of when the values hold, in milliseconds since the Unix epoch.
    values : float32 [n, n_columns]
    """

    group: str
    ids: npt.NDArray[np.str_]
    event_time_ms: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]


def save_tables(path: Path, tables: Sequence[Table]) -> None:
    """Write tables to a .npz file, aside and renamed."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for table in tables:
        arrays[f"{table.group}.ids"] = table.ids
        arrays[f"{table.group}.event_time_ms"] = table.event_time_ms
        arrays[f"{table.group}.values"] = table.values
    save_arrays(path, arrays)


def load_tables(path: Path, groups: Sequence[str]) -> list[Table]:
    """Read the tables of these groups.

    Raises
    ------
    InputError
        The file cannot be read, or lacks one of them.
    """
    parts = ("ids", "event_time_ms", "values")
    arrays = load_arrays(path, [f"{group}.{part}" for group in groups for part in parts])
    return [Table(group, *(arrays[f"{group}.{part}"] for part in parts)) for group in groups]
