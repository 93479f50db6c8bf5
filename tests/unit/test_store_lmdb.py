"""Tables in LMDB: equal to py-lmdb's view, and alive whatever happens to the file."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.batch_lmdb import LmdbBatchTable
from fastpath.errors import StoreError
from fastpath.store_lmdb import LmdbEnvironment
from tests.support.lmdb_process import lmdb_process, write_environment

SOME = {b"customer:%d" % i: b"record %d" % i for i in range(1000)}
KEYS = st.binary(min_size=1, max_size=321)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(items=st.dictionaries(KEYS, st.binary(max_size=5000), max_size=60), others=st.sets(KEYS))
def test_reads_what_py_lmdb_reads(
    items: dict[bytes, bytes], others: set[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store")
    write_environment(path, items)
    store = LmdbEnvironment(str(path)).store()
    batch = LmdbBatchTable(str(path), 2, "g")
    assert batch.n_records == len(items)
    seen = {key: (store.probe(key), batch.probe(key, 1)) for key in {*items, *others}}
    del store, batch
    with lmdb.open(str(path)) as env, env.begin() as txn:
        for key, answers in seen.items():
            value = txn.get(key)
            expected = ("absent", b"") if value is None else ("hit", value)
            assert answers == (expected, expected)


def test_counts_and_ends_iterations(tmp_path: Path) -> None:
    write_environment(tmp_path, SOME)
    environment = LmdbEnvironment(str(tmp_path))
    store = environment.store()
    store.probe(b"customer:1", leave=False)
    store.probe(b"customer:2", leave=False)
    store.probe(b"nobody:1")
    store.probe(b"customer:3")
    assert store.stats() == {
        "gets": 4,
        "hits": 3,
        "iterations": 2,
        "failed_closed": 0,
        "failed_map_resized": 0,
        "failed_readers_full": 0,
        "failed_corrupt": 0,
        "failed_other": 0,
    }
    assert environment.stats()["gets"] == 4
    assert store.probe(b"")[0] == "failed"  # LMDB knows no empty key
    assert store.stats()["failed_other"] == 1


# ------------------------------------------------------------- beside a writer


def test_shares_the_environment_with_a_writer_whoever_came_first(tmp_path: Path) -> None:
    write_environment(tmp_path, SOME)
    (tmp_path / "lock.mdb").unlink()
    environment = LmdbEnvironment(str(tmp_path))  # makes lock.mdb
    store = environment.store()
    with lmdb_process(tmp_path) as writer:
        assert store.probe(b"customer:1", leave=False) == ("hit", b"record 1")
        pids = writer("[int(line.split()[0]) for line in env.readers().splitlines()[1:]]")
        assert pids == [os.getpid()]
        assert writer("env.reader_check()") == 0  # it sees that we live
        writer.put({b"customer:1": b"new"})
        assert store.probe(b"customer:1") == ("hit", b"record 1")  # the iteration's snapshot
        assert store.probe(b"customer:1") == ("hit", b"new")
    with lmdb_process(tmp_path) as writer:  # and once more, with our lock file in use
        writer.put({b"customer:1": b"newer"})
        assert store.probe(b"customer:1") == ("hit", b"newer")


def test_one_iteration_sees_one_state(tmp_path: Path) -> None:
    with lmdb_process(tmp_path) as writer:
        writer.put({b"a": b"0", b"b": b"0"})
        store = LmdbEnvironment(str(tmp_path)).store()
        stop = threading.Event()

        def write() -> None:
            version = 0
            while not stop.is_set():
                version += 1
                text = b"%d" % version
                writer.put({b"a": text, **{b"%d" % i: text * 50 for i in range(200)}, b"b": text})

        thread = threading.Thread(target=write)
        thread.start()
        try:
            versions: set[bytes] = set()
            while len(versions) < 20:
                (_, a), (_, b) = store.probe(b"a", leave=False), store.probe(b"b")
                assert a == b
                versions.add(a)
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("sleeps", [True, False])
def test_a_sleeping_loop_pins_no_pages(tmp_path: Path, sleeps: bool) -> None:
    with lmdb_process(tmp_path) as writer:
        writer.put(SOME)
        store = LmdbEnvironment(str(tmp_path)).store()
        store.probe(b"customer:1", leave=sleeps)
        for version in range(40):
            writer.put(dict.fromkeys(SOME, b"%d" % version * 20))
        n_pages = writer("env.info()['last_pgno']")
        store.probe(b"customer:1")
    # The writer reuses pages only where no reader could still see them.
    assert (n_pages < 200) == sleeps


def test_reader_table_full_passes_by_itself(tmp_path: Path) -> None:
    with lmdb_process(tmp_path, max_readers=1) as writer:
        writer.put(SOME)
        environment = LmdbEnvironment(str(tmp_path))
        store = environment.store()
        writer("globals().update(txn=env.begin())")
        assert store.probe(b"customer:1", leave=False)[0] == "failed"
        assert store.probe(b"customer:2", leave=True)[0] == "failed"
        assert store.stats()["failed_readers_full"] == 2
        writer("(txn.abort(), globals().update(txn=None)) and None")
        assert store.probe(b"customer:1") == ("hit", b"record 1")


def test_reader_table_full_at_open(tmp_path: Path) -> None:
    with lmdb_process(tmp_path, max_readers=1) as writer:
        writer.put(SOME)
        writer("globals().update(txn=env.begin())")
        with pytest.raises(StoreError, match="reader table is full"):
            LmdbEnvironment(str(tmp_path))
        environment = LmdbEnvironment(str(tmp_path), required=False)
        assert environment.store().probe(b"customer:1")[0] == "failed"
        writer("(txn.abort(), globals().update(txn=None)) and None")
        assert environment.refresh()
        assert environment.is_open
        assert environment.store().probe(b"customer:1") == ("hit", b"record 1")


def test_readers_that_were_killed_give_their_slots_back(tmp_path: Path) -> None:
    write_environment(tmp_path, SOME, max_readers=1)
    opened = f"lmdb.open({str(tmp_path)!r}, max_readers=1)"
    code = f"import lmdb, os; e = {opened}; t = e.begin(); os._exit(9)"
    with lmdb_process(tmp_path, max_readers=1):  # keeps the lock file from being made anew
        subprocess.run([sys.executable, "-c", code], check=False)
        assert LmdbEnvironment(str(tmp_path)).store().probe(b"customer:1")[0] == "hit"


def test_a_map_that_a_writer_enlarged_is_followed(tmp_path: Path) -> None:
    write_environment(tmp_path, SOME, map_size=1 << 20)
    store = LmdbEnvironment(str(tmp_path)).store()
    assert store.probe(b"customer:1")[0] == "hit"
    with lmdb_process(tmp_path, map_bytes=1 << 28) as writer:
        for i in range(20):
            writer.put({b"big:%d:%d" % (i, j): b"x" * 2000 for j in range(200)})
        assert store.probe(b"big:19:199") == ("hit", b"x" * 2000)
    assert store.stats()["failed_map_resized"] == 0


def test_a_map_without_address_space_is_enlarged_by_refresh(tmp_path: Path) -> None:
    """In a process of its own, because the limit on its address space cannot be lifted."""
    write_environment(tmp_path, SOME, map_size=1 << 20)
    code = f"""
        import resource, subprocess, sys
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        from fastpath.store_lmdb import LmdbEnvironment
        environment = LmdbEnvironment({str(tmp_path)!r})
        store = environment.store()
        assert store.probe(b"customer:1")[0] == "hit"
        assert environment.stats()["map_bytes"] == 1 << 20
        write = '''if True:
            import lmdb
            with lmdb.open({str(tmp_path)!r}, map_size=1 << 26) as env:
                with env.begin(write=True) as txn:
                    for i in range(3000): txn.put(b"big:%d" % i, b"x" * 1000)
        '''
        subprocess.run([sys.executable, "-c", write], check=True)
        assert store.probe(b"customer:1")[0] == "failed"
        assert store.stats()["failed_map_resized"] == 1
        assert environment.refresh()
        assert store.probe(b"big:2999")[0] == "hit", environment.trouble
        assert not environment.refresh()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


# ---------------------------------------------------------------- refused files


def _patched(path: Path, offset: int, data: bytes) -> None:
    with (path / "data.mdb").open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (16, b"\0\0\0\0", "is not an LMDB data file"),
        (4096 + 16, b"junk", "damaged second meta page"),
        (20, struct.pack("<I", 2), "data format 2"),
        (40, struct.pack("<I", 100), "page size 100"),
    ],
)
def test_files_that_are_not_ours_are_refused(
    tmp_path: Path, offset: int, data: bytes, message: str
) -> None:
    write_environment(tmp_path, SOME)
    _patched(tmp_path, offset, data)
    for open_it in (LmdbEnvironment, lambda path: LmdbBatchTable(path, 1, "g")):
        with pytest.raises(StoreError, match=message) as caught:
            open_it(str(tmp_path))
        assert str(tmp_path) in str(caught.value)


def test_a_root_behind_the_end_is_refused(tmp_path: Path) -> None:
    write_environment(tmp_path, SOME)
    for page in (0, 4096):
        _patched(tmp_path, page + 16 + 24 + 48 + 40, struct.pack("<Q", 1 << 40))
    with pytest.raises(StoreError, match="meta page is damaged: root page"):
        LmdbEnvironment(str(tmp_path))


def test_missing_and_foreign_paths_are_refused(tmp_path: Path) -> None:
    for path, message in [
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path, "has no data.mdb"),
        (Path(__file__), "not a directory"),
    ]:
        with pytest.raises(StoreError, match=message):
            LmdbEnvironment(str(path))
        with pytest.raises(StoreError, match=message):
            LmdbBatchTable(str(path), 1, "g")
    (tmp_path / "data.mdb").write_bytes(b"x" * 100)
    with pytest.raises(StoreError, match="100 bytes are no LMDB file"):
        LmdbEnvironment(str(tmp_path))
    for wrong in (0, 65, -1):
        with pytest.raises(ValueError, match="n_threads"):
            LmdbBatchTable(str(tmp_path), wrong, "g")


def test_tables_sorted_otherwise_are_refused(tmp_path: Path) -> None:
    write_environment(tmp_path, SOME)
    for page in (0, 4096):
        _patched(tmp_path, page + 16 + 24 + 48 + 4, struct.pack("<H", 0x02))  # MDB_REVERSEKEY
    with pytest.raises(StoreError, match="not a table of ours"):
        LmdbEnvironment(str(tmp_path))


def test_a_path_is_open_once(tmp_path: Path) -> None:
    write_environment(tmp_path / "store", SOME)
    (tmp_path / "link").symlink_to("store")
    environment = LmdbEnvironment(str(tmp_path / "store"))
    with pytest.raises(StoreError, match="open in this process already"):
        LmdbEnvironment(str(tmp_path / "link"))
    store = environment.store()
    del environment
    assert store.probe(b"customer:1")[0] == "hit"  # the store keeps it open
    del store
    assert LmdbEnvironment(str(tmp_path / "link")).is_open


# --------------------------------------------------------- what happens later


def test_an_environment_that_comes_late_is_opened_by_refresh(tmp_path: Path) -> None:
    path = tmp_path / "online"
    environment = LmdbEnvironment(str(path), required=False)
    store = environment.store()
    assert "does not exist" in environment.trouble
    assert store.probe(b"customer:1") == ("failed", b"")
    assert store.stats()["failed_closed"] == 1
    assert not environment.refresh()
    write_environment(path, SOME)
    assert environment.refresh()
    assert environment.trouble == ""
    assert store.probe(b"customer:1") == ("hit", b"record 1")
    assert not environment.refresh()


def test_a_replaced_file_is_followed_and_a_deleted_one_served(tmp_path: Path) -> None:
    write_environment(tmp_path / "a", SOME)
    write_environment(tmp_path / "b", {b"customer:1": b"other"})
    environment = LmdbEnvironment(str(tmp_path / "a"))
    store = environment.store()
    assert store.probe(b"customer:1") == ("hit", b"record 1")
    (tmp_path / "a" / "data.mdb").unlink()
    assert not environment.refresh()
    assert "deleted" in environment.trouble
    assert store.probe(b"customer:1") == ("hit", b"record 1")
    (tmp_path / "b" / "data.mdb").rename(tmp_path / "a" / "data.mdb")
    assert environment.refresh()
    assert environment.trouble == ""
    assert store.probe(b"customer:1") == ("hit", b"other")


def test_a_file_cut_under_us_fails_reads_and_recovers(tmp_path: Path) -> None:
    items = {b"customer:%d" % i: b"r" * 100 for i in range(20_000)}
    write_environment(tmp_path, items)
    whole = (tmp_path / "data.mdb").read_bytes()
    environment = LmdbEnvironment(str(tmp_path))
    store, batch = environment.store(), LmdbBatchTable(str(tmp_path), 1, "g")
    assert store.probe(b"customer:7")[0] == batch.probe(b"customer:7")[0] == "hit"
    os.truncate(tmp_path / "data.mdb", 5 * 4096)
    assert {store.probe(key)[0] for key in items} == {"failed"}
    assert {batch.probe(key)[0] for key in items} == {"failed"}
    assert store.stats()["failed_corrupt"] == len(items)
    assert environment.refresh()
    assert not environment.is_open
    assert "cut" in environment.trouble
    with pytest.raises(StoreError, match="cut"):
        LmdbBatchTable(str(tmp_path), 1, "g")
    (tmp_path / "data.mdb").write_bytes(whole)
    assert environment.refresh()
    assert {store.probe(key)[0] for key in items} == {"hit"}


def test_a_file_cut_behind_its_root_is_not_opened_again(tmp_path: Path) -> None:
    items = {b"customer:%d" % i: b"r" * 100 for i in range(20_000)}
    write_environment(tmp_path, items)
    write_environment(tmp_path, {b"customer:0": b"s" * 100})  # the root moves
    environment = LmdbEnvironment(str(tmp_path))
    store = environment.store()
    os.truncate(tmp_path / "data.mdb", (tmp_path / "data.mdb").stat().st_size - 4096)
    with pytest.raises(StoreError, match="was cut"):
        LmdbBatchTable(str(tmp_path), 1, "g")
    meta_root = max(_root(tmp_path, 0), _root(tmp_path, 4096))
    os.truncate(tmp_path / "data.mdb", (meta_root[1] + 1) * 4096)
    outcomes = {store.probe(key)[0] for key in items}
    if "failed" not in outcomes:
        pytest.skip("the root was the last page")
    assert environment.refresh()
    assert "was cut" in environment.trouble
    assert not environment.refresh()


def _root(path: Path, page: int) -> tuple[int, int]:
    data = (path / "data.mdb").read_bytes()
    (root,) = struct.unpack_from("<Q", data, page + 16 + 24 + 48 + 40)
    (transaction,) = struct.unpack_from("<Q", data, page + 16 + 128)
    return transaction, root


def test_damaged_pages_do_not_end_the_process(tmp_path: Path) -> None:
    """In a process of its own, which has to end well: bytes of pages are overwritten at random."""
    items = {b"customer:%d" % i: b"r" * (i % 100) for i in range(3000)}
    write_environment(tmp_path, items)
    code = f"""
        import random, sys
        from collections import Counter
        from pathlib import Path
        from fastpath.batch_lmdb import LmdbBatchTable
        from fastpath.errors import StoreError
        path = Path({str(tmp_path)!r})
        whole = (path / "data.mdb").read_bytes()
        keys = [b"customer:%d" % i for i in range(0, 3000, 7)]
        seen = Counter()
        for seed in range(150):
            r = random.Random(seed)
            data = bytearray(whole)
            for _ in range(r.choice([1, 5, 200])):
                page = 4096 * r.randrange(2, len(whole) // 4096)
                start = page + (r.randrange(64) if r.random() < 0.7 else r.randrange(4096))
                data[start : start + 4] = r.randbytes(4)
            (path / "data.mdb").write_bytes(data)
            try:
                table = LmdbBatchTable(str(path), 1, "g")
            except StoreError:
                continue
            seen.update(table.probe(key)[0] for key in keys)
        print(dict(seen))
        assert seen["hit"] and seen["failed"], seen
    """
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_threads_read_while_the_environment_is_reopened(tmp_path: Path) -> None:
    write_environment(tmp_path / "a", SOME)
    environment = LmdbEnvironment(str(tmp_path / "a"))
    stop = threading.Event()
    outcomes: list[set[str]] = []

    def read() -> None:
        store = environment.store()
        seen: set[str] = set()
        rng = random.Random(threading.get_ident())
        while not stop.is_set():
            key = b"customer:%d" % rng.randrange(1000)
            outcome, record = store.probe(key)
            assert outcome != "hit" or record == SOME[key]
            seen.add(outcome)
        outcomes.append(seen)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for i in range(20):
            write_environment(tmp_path / f"n{i}", SOME)
            (tmp_path / f"n{i}" / "data.mdb").replace(tmp_path / "a" / "data.mdb")
            assert environment.refresh()
            assert environment.is_open
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(outcomes) == 3
    assert set.union(*outcomes) <= {"hit", "failed"}
    assert all("hit" in seen for seen in outcomes)
