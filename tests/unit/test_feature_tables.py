"""Writers of stored features: what is stored is what was given, whole or not at all."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.batch_lmdb import LmdbBatchTable
from fastpath.record import decode_record, encode_records, record_key
from fastpath.store_lmdb import LmdbEnvironment
from server.errors import FeatureStoreError, InputError
from server.features import Group, open_writer
from server.features.batch import BatchTableWriter
from server.features.directory import (
    batch_path,
    generations,
    next_generation,
    online_path,
    read_current,
)
from server.features.generations import rollback
from server.features.groups import find_group
from server.features.lmdb import LmdbFeatureWriter
from server.features.tables import BatchTables

GROUP = Group("customer", "customer", (("mean", "numeric"), ("count", "numeric")))
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)


def stored(directory: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(directory), readonly=True, lock=False) as env, env.begin() as txn:
        return {bytes(k): bytes(v) for k, v in txn.cursor()}


def rows(n: int, start: int = 0) -> tuple[list[str], list[int], np.ndarray]:
    ids = [str(i) for i in range(start, start + n)]
    return ids, [1000 + i for i in range(n)], np.arange(2.0 * n, dtype=np.float32).reshape(n, 2)


# -------------------------------------------------------------------- online


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    batches=st.lists(
        st.lists(st.tuples(IDS, st.integers(-5, 5), st.floats(width=32)), max_size=20), max_size=4
    ),
    only_newer=st.booleans(),
)
def test_online_upserts_are_a_dict(
    batches: list[list[tuple[str, int, float]]],
    only_newer: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("store")
    expected: dict[str, tuple[int, float]] = {}
    with LmdbFeatureWriter(directory, GROUP, batch_size=7, map_bytes=1 << 24) as writer:
        for batch in batches:
            values = np.array([[v, math.nan] for _, _, v in batch], np.float32).reshape(-1, 2)
            n_written = writer.write(
                [i for i, _, _ in batch],
                np.array([t for _, t, _ in batch], np.int64),
                values,
                only_newer=only_newer,
            )
            n_expected = 0
            for name, when, value in batch:
                if not only_newer or name not in expected or expected[name][0] <= when:
                    expected[name] = (when, value)
                    n_expected += 1
            assert n_written == n_expected
    found = stored(online_path(directory))
    assert found.keys() == {record_key("customer", name) for name in expected}
    for name, (when, value) in expected.items():
        record = encode_records(
            GROUP.fingerprint, np.array([when]), np.array([[value, math.nan]], np.float32)
        )
        assert found[record_key("customer", name)] == record.tobytes()


def test_a_full_map_keeps_what_was_written_and_can_grow(tmp_path: Path) -> None:
    ids, times, values = rows(60_000)
    small = LmdbFeatureWriter(tmp_path, GROUP, map_bytes=1 << 20, batch_size=2000)
    with small, pytest.raises(FeatureStoreError, match="map of 1048576 bytes is full") as caught:
        small.write(ids, times, values)
    assert "--map-bytes 2097152" in str(caught.value)
    found = stored(online_path(tmp_path))
    assert 0 < len(found) < len(ids)
    assert len(found) % 2000 == 0  # whole batches only
    assert f"{len(found):,} records were written" in str(caught.value)
    store = LmdbEnvironment(str(online_path(tmp_path))).store()
    assert store.probe(b"customer:0")[0] == "hit"
    del store
    with open_writer(f"lmdb:{tmp_path}?map_bytes={1 << 24}", GROUP) as writer:
        assert writer.write(ids, times, values) == len(ids)
    with LmdbFeatureWriter(tmp_path, GROUP) as writer:  # and is not shrunk by the next
        assert writer.write(ids, times, values) == len(ids)
    assert len(stored(online_path(tmp_path))) == len(ids)


@pytest.mark.parametrize(
    ("ids", "times", "values", "message"),
    [
        (["a"], 0, [[1.0]], r"shape \(1, 1\)"),
        (["a", "b"], 0, [[1.0, 2.0]], r"\(2, 2\)"),
        (["a"], 0.5, [[1.0, 2.0]], "float64"),
        (["a"], [1, 2], [[1.0, 2.0]], "shape"),
        (["a", ""], 0, [[1.0, 2.0]] * 2, "row 1: .* has 0 bytes"),
        (["a", "é" * 129], 0, [[1.0, 2.0]] * 2, "row 1: .* has 258 bytes"),
        (["a", "\ud800"], 0, [[1.0, 2.0]] * 2, "row 1: .* not valid Unicode"),
    ],
)
def test_rows_that_cannot_be_stored_are_refused(
    tmp_path: Path, ids: list[str], times: object, values: object, message: str
) -> None:
    for writer in (LmdbFeatureWriter(tmp_path, GROUP), BatchTableWriter(tmp_path, GROUP)):
        with writer, pytest.raises(InputError, match=message):
            writer.write(ids, times, values)  # type: ignore[arg-type] # wrong on purpose


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    online_path(tmp_path).mkdir()
    (online_path(tmp_path) / "data.mdb").write_bytes(b"x" * 10_000)
    with pytest.raises(FeatureStoreError, match="not an LMDB data file"):
        LmdbFeatureWriter(tmp_path, GROUP)
    for url in ("ftp://x", "lmdb:", "", f"lmdb:{tmp_path}?size=3"):
        with pytest.raises(InputError, match="store"):
            open_writer(url, GROUP)


# --------------------------------------------------------------------- batch


@pytest.mark.parametrize("run_records", [10_000, 700])
def test_a_generation_holds_the_last_row_of_every_entity(tmp_path: Path, run_records: int) -> None:
    rng = np.random.default_rng(7)
    ids = [str(i) for i in rng.integers(0, 1500, 5000)]
    values = rng.random((5000, 2), dtype=np.float32)
    with BatchTableWriter(tmp_path, GROUP, run_records=run_records) as writer:
        for start in range(0, 5000, 900):
            some = slice(start, start + 900)
            writer.write(ids[some], np.arange(5000)[some], values[some])
        assert generations(tmp_path, "customer") == []
        n_records = writer.commit()
    last = {name: row for row, name in enumerate(ids)}
    assert n_records == len(last)
    generation = read_current(tmp_path, "customer")
    assert generation == writer.generation
    table = LmdbBatchTable(str(batch_path(tmp_path, "customer") / generation), 1, generation)
    assert table.n_records == len(last)
    for name, row in last.items():
        outcome, record = table.probe(record_key("customer", name))
        assert outcome == "hit"
        fingerprint, when, found = decode_record(record)
        assert (fingerprint, when) == (GROUP.fingerprint, row)
        assert found.tobytes() == values[row].tobytes()
    left = sorted(entry.name for entry in batch_path(tmp_path, "customer").iterdir())
    assert left == [".lock", generation, "current"]
    (file,) = (batch_path(tmp_path, "customer") / generation).iterdir()
    assert file.name == "data.mdb"


def make(directory: Path, n: int, **options: int) -> str:
    with BatchTableWriter(directory, GROUP, **options) as writer:  # type: ignore[arg-type] # mypy sees source: str
        writer.write(*rows(n))
        writer.commit()
        return writer.generation


def test_generations_are_kept_pruned_and_rolled_back(tmp_path: Path) -> None:
    names = [make(tmp_path, n + 1) for n in range(5)]
    assert names == sorted(set(names))
    assert generations(tmp_path, "customer") == names[2:]
    assert rollback(tmp_path, "customer") == (names[4], names[3])
    assert rollback(tmp_path, "customer") == (names[3], names[2])
    with pytest.raises(InputError, match="no generation is older"):
        rollback(tmp_path, "customer")
    with pytest.raises(InputError, match=f"no generation '{names[0]}'.*{names[4]}"):
        rollback(tmp_path, "customer", names[0])
    assert rollback(tmp_path, "customer", names[4])[1] == names[4]
    rollback(tmp_path, "customer", names[2])
    newest = make(tmp_path, 9, keep=1)
    assert generations(tmp_path, "customer") == [newest]
    with pytest.raises(InputError, match="no batch table"):
        rollback(tmp_path, "terminal")


def test_a_damaged_generation_is_not_rolled_back_to(tmp_path: Path) -> None:
    first, second = make(tmp_path, 100), make(tmp_path, 100)
    data = batch_path(tmp_path, "customer") / first / "data.mdb"
    os.truncate(data, data.stat().st_size - 1)
    with pytest.raises(FeatureStoreError, match="was cut"):
        rollback(tmp_path, "customer")
    assert read_current(tmp_path, "customer") == second


def test_one_load_of_a_group_at_a_time(tmp_path: Path) -> None:
    with BatchTableWriter(tmp_path, GROUP):
        with pytest.raises(FeatureStoreError, match="another load"):
            BatchTableWriter(tmp_path, GROUP)
        with BatchTableWriter(tmp_path, GROUP._replace(name="terminal")):
            pass
    make(tmp_path, 1)
    with BatchTableWriter(tmp_path, GROUP), pytest.raises(FeatureStoreError, match="another load"):
        rollback(tmp_path, "customer")
    with BatchTableWriter(tmp_path, GROUP) as writer, pytest.raises(InputError, match="only_newer"):
        writer.write(*rows(1), only_newer=True)


def test_a_load_that_was_cut_off_goes_on_behind_its_last_run(tmp_path: Path) -> None:
    ids, times, values = rows(1000)
    with BatchTableWriter(tmp_path, GROUP, source="file", run_records=300) as writer:
        writer.write(ids[:700], times[:700], values[:700])
        cut_off = writer.generation
    with BatchTableWriter(tmp_path, GROUP, source="file", run_records=300) as writer:
        assert (writer.generation, writer.n_rows_done) == (cut_off, 600)
        writer.write(ids[600:], times[600:], values[600:])
        assert writer.commit() == 1000
    assert read_current(tmp_path, "customer") == cut_off
    # Another source, or another layout, begins anew, and what was left is removed.
    with BatchTableWriter(tmp_path, GROUP, source="file", run_records=300) as writer:
        writer.write(ids, times, values)
    for group, source in ((GROUP, "other"), (GROUP._replace(columns=GROUP.columns[::-1]), "file")):
        with BatchTableWriter(tmp_path, group, source=source) as writer:
            assert writer.n_rows_done == 0
    assert len(list(batch_path(tmp_path, "customer").glob(".*.partial"))) == 1


def test_names_of_generations_rise_though_the_clock_does_not(tmp_path: Path) -> None:
    base = batch_path(tmp_path, "customer")
    (base / "29990101T000000-007").mkdir(parents=True)
    assert next_generation(tmp_path, "customer") == "29990101T000000-008"


# ---------------------------------------------------- what the server watches


def test_the_server_follows_generations_and_keeps_what_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tables = BatchTables(tmp_path / "store", 2)
    assert not tables.refresh()
    first = make(tmp_path / "store", 10)
    assert tables.refresh()
    table = tables.tables["customer"]
    assert (table.generation, table.n_records, table.n_threads) == (first, 10, 2)
    assert not tables.refresh()
    assert tables.tables["customer"] is table
    second = make(tmp_path / "store", 20)
    data = batch_path(tmp_path / "store", "customer") / second / "data.mdb"
    whole = data.read_bytes()
    data.write_bytes(whole[:-5000])
    with caplog.at_level(logging.WARNING):
        assert not tables.refresh()
        assert not tables.refresh()
    assert len(caplog.records) == 1
    assert "was cut" in tables.errors["customer"]
    assert tables.tables["customer"] is table
    data.write_bytes(whole)
    assert tables.refresh()
    assert not tables.errors
    assert tables.tables["customer"].n_records == 20
    assert table.probe(b"customer:1")[0] == "hit"  # an old plan may still read it
    rollback(tmp_path / "store", "customer")
    assert tables.refresh()
    assert tables.tables["customer"].generation == first
    (batch_path(tmp_path / "store", "customer") / "current").write_text("../../etc\n")
    assert not tables.refresh()
    assert "is no generation" in tables.errors["customer"]
    assert rollback(tmp_path / "store", "customer")[1] == second


# ------------------------------------------------------------ where groups are


def schema_file(path: Path, columns: list[str], group: str = "customer") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = [{"name": name, "type": "numeric", "source": group} for name in columns]
    text = {"features": features, "groups": [{"name": group, "entity": "customer"}]}
    path.write_text(json.dumps(text))
    return path


def test_groups_are_found_in_schemas_bundles_and_repositories(tmp_path: Path) -> None:
    file = schema_file(tmp_path / "schema.json", ["mean", "count"])
    assert find_group("customer", schema=file).group.fingerprint == GROUP.fingerprint
    with pytest.raises(InputError, match="declares the group customer, not 'payer'"):
        find_group("payer", schema=file)
    for version, columns in (("v2", ["mean"]), ("v10", ["mean", "count"])):
        bundle = tmp_path / "models" / "fraud" / version
        schema_file(bundle / "schema.json", columns)
        (bundle / "manifest.json").write_text("{}")
    found = find_group("customer", repository=tmp_path / "models")
    assert found.group.fingerprint == GROUP.fingerprint
    assert found.path.parent.name == "v10"
    assert find_group("customer", schema=found.path.parent).group == found.group
    other = tmp_path / "models" / "other" / "1"
    schema_file(other / "schema.json", ["else"])
    (other / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="other columns"):
        find_group("customer", repository=tmp_path / "models")
    with pytest.raises(InputError, match="no schema"):
        find_group("customer")
