"""`scoregate features` as a user runs it: files in, tables out, cut off and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

SCHEMA = {
    "features": [
        {"name": "MEAN", "type": "numeric", "source": "customer"},
        {"name": "NIGHT", "type": "boolean", "source": "customer"},
        {
            "name": "KIND",
            "type": "categorical",
            "vocabulary": ["old", "new"],
            "source": "customer",
        },
    ],
    "groups": [{"name": "customer", "entity": "customer"}],
}


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "server", "features", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def as_json(*arguments: str | Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return answer


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


def table(n: int) -> pa.Table:
    return pa.table(
        {
            "CUSTOMER_ID": list(range(n)),
            "MEAN": [None if i == 3 else i / 2 for i in range(n)],
            "NIGHT": [i % 2 == 0 for i in range(n)],
            "KIND": ["new" if i % 3 else "odd" for i in range(n)],
            "AT": pa.array([1_700_000_000_000 + i for i in range(n)], pa.timestamp("ms")),
        }
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_file_is_loaded_listed_read_and_rolled_back(
    tmp_path: Path, schema: Path, suffix: str
) -> None:
    file, store = tmp_path / f"customers.{suffix}", tmp_path / "store"
    write = pa.parquet.write_table if suffix == "parquet" else pa.csv.write_csv
    write(table(100), file)
    common: tuple[str | Path, ...] = (
        file,
        "--group",
        "customer",
        "--store",
        store,
        "--schema",
        schema,
    )
    common = (*common, "--time-column", "AT")
    dry = run("load", *common, "--table", "online", "--dry-run")
    assert "100 rows can be loaded" in dry.stdout
    assert not store.exists()
    online = as_json("load", *common, "--table", "online", "--batch-size", "30")
    assert (online["n_written"], online["n_missing"], online["n_unseen"]) == (100, 35, 34)
    first = as_json("load", *common, "--table", "batch")["generation"]
    second = as_json("load", *common, "--table", "batch")["generation"]

    for name, expected in (
        ("4", {"MEAN": 2.0, "NIGHT": 1.0, "KIND": 1.0}),
        ("3", {"MEAN": None, "NIGHT": 0.0, "KIND": None}),
    ):
        got = as_json("get", "customer", name, "--store", store, "--schema", schema)
        for one in (got["online"], got["batch"]):
            assert (one["outcome"], one["known"], one["values"]) == ("hit", True, expected)
            assert one["event_time"] == f"2023-11-14T22:13:20.00{name}+00:00"
    got = as_json("get", "customer", "nobody", "--store", store)
    assert got["online"]["outcome"] == got["batch"]["outcome"] == "absent"

    listed = as_json("list", "--store", store)
    assert listed["online"]["records"] == 100
    assert [(g["generation"], g["current"]) for g in listed["groups"]["customer"]] == [
        (first, False),
        (second, True),
    ]
    assert (
        f"{first} is current; it was {second}"
        in run("rollback", "customer", "--store", store).stdout
    )
    assert str(second) in run("list", "--store", store).stdout
    assert "no generation is older" in run("rollback", "customer", "--store", store, code=2).stderr


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("CUSTOMER_ID", [1, None, 3], "column 'CUSTOMER_ID', row 1: None is no entity id"),
        ("CUSTOMER_ID", ["a", "b", ""], "column 'CUSTOMER_ID', row 2: '' has 0 bytes"),
        ("CUSTOMER_ID", [1.0, 2.0, 3.0], "ids are text or whole numbers"),
        ("MEAN", ["1", "2", "x"], "column 'MEAN', row 2: 'x' is not numeric"),
        ("NIGHT", [0, 1, 2], "column 'NIGHT', row 2: 2.0 is not 0 or 1"),
        ("AT", [1, None, 2], "column 'AT', row 1: None is no time"),
        ("AT", ["a", "b", "c"], "times are timestamps"),
    ],
)
def test_a_cell_that_cannot_be_used_is_named(
    tmp_path: Path, schema: Path, column: str, value: list[object], message: str
) -> None:
    file = tmp_path / "f.parquet"
    columns = {**table(3).to_pydict(), column: value}
    pa.parquet.write_table(pa.table(columns), file)
    for kind in ("online", "batch"):
        done = run(
            *("load", file, "--group", "customer", "--table", kind, "--time-column", "AT"),
            *("--store", tmp_path / "s", "--schema", schema),
            code=2,
        )
        assert f"{file}: " in done.stderr
        assert message in done.stderr
    assert not list(tmp_path.glob("s/batch/customer/2*"))


def test_arguments_that_cannot_be_used_are_named(tmp_path: Path, schema: Path) -> None:
    file = tmp_path / "f.parquet"
    pa.parquet.write_table(table(3).drop_columns(["MEAN"]), file)
    load: tuple[str | Path, ...] = ("load", file, "--store", tmp_path / "s", "--schema", schema)
    for arguments, message in [
        ((*load, "--table", "online", "--group", "customer"), "no column 'MEAN'"),
        ((*load, "--table", "online", "--group", "payer"), "declares the group customer"),
        ((*load, "--table", "batch", "--group", "customer", "--id-column", "X"), "no column 'X'"),
        (("list", "--store", tmp_path / "none"), "not a directory"),
        (("rollback", "customer", "--store", tmp_path / "none"), "not a directory"),
        (("get", "customer", "1", "--store", tmp_path / "none"), "not a directory"),
    ]:
        assert message in run(*arguments, code=2).stderr
    text = tmp_path / "f.txt"
    text.write_text("x")
    load = (
        "load",
        text,
        "--store",
        tmp_path / "s",
        "--schema",
        schema,
        "--table",
        "online",
    )
    assert ".parquet or .csv" in run(*load, "--group", "customer", code=2).stderr
    text.rename(file)
    load = (
        "load",
        file,
        "--store",
        tmp_path / "s",
        "--schema",
        schema,
        "--table",
        "online",
    )
    assert "cannot be read" in run(*load, "--group", "customer", code=2).stderr


def test_a_full_map_is_a_failure_of_the_store(tmp_path: Path, schema: Path) -> None:
    file = tmp_path / "f.parquet"
    pa.parquet.write_table(table(50_000), file)
    load: tuple[str | Path, ...] = (
        "load",
        file,
        "--group",
        "customer",
        "--table",
        "online",
        "--schema",
        schema,
    )
    load = (*load, "--store", tmp_path / "s", "--batch-size", "5000")
    done = run(*load, "--map-bytes", str(1 << 20), code=1)
    assert "is full" in done.stderr
    done = run(*load, "--map-bytes", str(1 << 26))  # goes on where it was
    assert "resumed" in done.stdout
    assert as_json("list", "--store", tmp_path / "s")["online"]["records"] == 50_000


def killed(arguments: tuple[str | Path, ...], when: Callable[[], bool]) -> None:
    """Start a load, and kill -9 it as soon as `when` is true."""
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "features", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while not when():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.001)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("kind", ["online", "batch"])
def test_a_killed_load_is_resumed_and_loses_nothing(
    tmp_path: Path, schema: Path, kind: str
) -> None:
    n = 150_000
    file, store = tmp_path / "f.parquet", tmp_path / "s"
    rng = np.random.default_rng(3)
    columns = {
        "CUSTOMER_ID": rng.permutation(n),
        "MEAN": rng.random(n, dtype=np.float32),
        "NIGHT": np.ones(n, np.int8),
        "KIND": np.zeros(n, np.int8),
    }
    pa.parquet.write_table(pa.table(columns), file)
    load: tuple[str | Path, ...] = (
        "load",
        file,
        "--group",
        "customer",
        "--table",
        kind,
        "--schema",
        schema,
    )
    load = (*load, "--store", store, "--batch-size", "1000")
    if kind == "online":
        killed(load, lambda: any(store.glob("online/.loads/[0-9a-f]*.json")))
    else:
        # One run holds far more than this file: it is cut off before its first run is whole.
        killed(load, lambda: any(store.glob("batch/customer/.*.partial/state.json")))
        assert not (store / "batch/customer/current").exists()
    report = as_json(*load)
    assert report["n_rows"] == n
    if kind == "online":
        assert 0 < report["n_skipped"] < n
        assert not list(store.glob("online/.loads/*.json"))
    listed = as_json("list", "--store", store)
    if kind == "online":
        assert listed["online"]["records"] == n
    else:
        (one,) = listed["groups"]["customer"]
        assert (one["records"], one["current"]) == (n, True)
        assert not list(store.glob("batch/customer/.*.partial"))
