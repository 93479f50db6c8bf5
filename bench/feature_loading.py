"""How fast a million entities are loaded: `scoregate features load`, on one core.

Rules: what is timed is the command that anybody runs: reading the Parquet file, encoding, sorting,
writing and syncing, by its own clock; its start as a Python process is not in it. It runs on the
servers' core. The disk is the one that holds the temporary directory.

How it works: one file per group, made once. The online table is written into a new directory each
time; of the batch table a new generation is made. The last directory is what the servers read
afterwards, so it holds in both tables what `feature_store_data.chunks` makes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.feature_store_data import Sizes, chunks
from bench.processes import SERVER_CORE
from bench.progress import Display
from fastpath.spec import GroupSpec

AS_OF = "2018-07-19T11:00:00"  # not after any request's event time
ID_COLUMN = "entity_id"
TABLES = ("online", "batch")


def parquet_file(folder: Path, group: GroupSpec, n_entities: int) -> Path:
    """Write the records of a group as a file that can be loaded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = list(chunks(group, n_entities))
    values = np.concatenate([chunk.values for chunk in made])
    columns: dict[str, Any] = {ID_COLUMN: [x for chunk in made for x in chunk.entity_ids]}
    columns |= {name: values[:, j] for j, (name, _) in enumerate(group.columns)}
    path = folder / f"{group.name}.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def load(file: Path, group: GroupSpec, table: str, store: Path, bundle: Path) -> float:
    """Load a file into a table; return records per second.

    Raises
    ------
    BenchError
        The command failed, or did not load every row.
    """
    command = [
        *("taskset", "-c", SERVER_CORE, sys.executable, "-m", "server", "features", "load"),
        *(str(file), "--group", group.name, "--table", table, "--store", str(store)),
        *("--schema", str(bundle), "--id-column", ID_COLUMN, "--as-of", AS_OF),
        *("--restart", "--json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"loading {group.name}, {table}, failed: {done.stderr.strip()[-2000:]}")
    report = json.loads(done.stdout)
    if report["n_written"] != report["n_rows"] or report["n_missing"]:
        raise BenchError(f"loading {group.name}, {table}, left something out: {done.stdout}")
    return float(report["per_s"])


def measure(
    folder: Path, sizes: Sizes, bundle: Path, repetitions: int, display: Display
) -> tuple[Path, dict[str, list[float]]]:
    """Load everything, repeatedly.

    Parameters
    ----------
    folder
        For files and stores; whatever it holds there is the caller's to remove.
    sizes
    bundle
        Whose schema declares the groups.
    repetitions
        Of the customers; terminals are loaded once.

    Returns
    -------
    (Path, dict)
        A store directory with both tables of both groups, and the customers' records per second
        by table.
    """
    store = folder / "store"
    (customer, n_customers), (terminal, n_terminals) = sizes.groups()
    display.say(f"files of {n_customers:,} customers and {n_terminals:,} terminals")
    customers = parquet_file(folder, customer, n_customers)
    terminals = parquet_file(folder, terminal, n_terminals)
    rates: dict[str, list[float]] = {table: [] for table in TABLES}
    for i in range(repetitions):
        shutil.rmtree(store, ignore_errors=True)
        for table in TABLES:
            rates[table].append(load(customers, customer, table, store, bundle))
            text = f"{n_customers:,} customers, {table}: {rates[table][-1]:,.0f} a second"
            display.say(f"loading {i + 1}/{repetitions}: {text}")
    for table in TABLES:
        load(terminals, terminal, table, store, bundle)
    return store, rates
