"""The journal: what it keeps, what it refuses, and what it says then."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from server.errors import JournalError
from server.rollout import journal
from server.rollout.database import DamagedJournalError
from server.rollout.entry import Entry, decode_entry, encode_entry
from server.rollout.journal import Journal, read_export, set_aside
from tests.support.journals import entry_of, first_plan

PLAN = first_plan()
NOW_MS = 1_800_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "journal.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Journal]:
    with Journal(path, clock_ms=lambda: NOW_MS) as opened:
        yield opened


def fill(opened: Journal, n: int) -> list[Entry]:
    return [
        opened.append(entry_of(opened.next_generation(), PLAN, why=f"change {i}")) for i in range(n)
    ]


def alter(path: Path, statement: str, *arguments: object) -> None:
    """Change the database behind the journal's back."""
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute(statement, arguments)
    connection.close()


# --------------------------------------------------------------------- keeping


def test_an_empty_journal_is_made_with_its_directory(opened: Journal, path: Path) -> None:
    assert opened.path == path
    assert opened.last() is None
    assert opened.entries(10) == []
    assert opened.get(1) is None
    assert opened.verify() == 0
    assert opened.next_generation() == NOW_MS


def test_what_was_appended_is_read_in_every_way_and_after_opening_again(path: Path) -> None:
    with Journal(path, clock_ms=lambda: NOW_MS) as opened:
        written = fill(opened, 5)
        first = written[0].generation
        assert [entry.generation for entry in written] == list(range(first, first + 5))
    for _ in range(2):
        with Journal(path) as opened:
            assert opened.last() == written[-1]
            assert opened.get(first + 1) == written[1]
            assert opened.get(first + 5) is None
            assert opened.entries(2) == written[:2:-1]
            assert opened.entries(2, first + 3) == written[2:0:-1]
            assert opened.entries(100) == written[::-1]
            assert opened.entries(0) == []
            assert opened.verify() == 5


def test_all_entries_can_be_walked_over_several_pages(
    opened: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PAGE_ENTRIES", 3)
    written = fill(opened, 10)
    assert list(opened.walk()) == written[::-1]
    assert list(opened.walk(written[4].generation)) == written[3::-1]
    assert opened.verify() == 10
    stream = io.StringIO()
    assert opened.export(stream) == 10
    assert list(read_export(stream.getvalue().splitlines())) == written


def test_large_entries_are_read_few_at_a_time(
    opened: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = fill(opened, 20)
    monkeypatch.setattr(journal, "PAGE_BYTES", 3 * len(encode_entry(written[0])))
    pages: list[int] = []
    read = opened._newest

    def counting(limit: int, before_generation: int) -> Any:
        pages.append(limit)
        return read(limit, before_generation)

    monkeypatch.setattr(opened, "_newest", counting)
    assert list(opened.walk()) == written[::-1]
    assert max(pages) == 3
    stream = io.StringIO()
    assert opened.export(stream) == 20


def test_an_entry_comes_back_as_it_was(opened: Journal) -> None:
    entry = entry_of(NOW_MS, replace(PLAN, frozen="über"), why='"quoted"\n\0 €', time_ms=NOW_MS)
    assert opened.append(entry) == entry == opened.last()


def test_readers_and_a_writer_in_threads(opened: Journal) -> None:
    errors: list[BaseException] = []
    is_over = threading.Event()

    def read() -> None:
        try:
            while not is_over.is_set():
                found = opened.entries(5)
                generations = [entry.generation for entry in found]
                assert generations == sorted(generations, reverse=True)
                opened.get(NOW_MS)
        except BaseException as error:  # noqa: BLE001 - shown by the test's thread
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    written = fill(opened, 40)
    is_over.set()
    for reader in readers:
        reader.join()
    assert not errors
    assert opened.entries(100) == written[::-1]


# ---------------------------------------------------------- generations and times


def test_generations_ascend_and_start_at_the_clock(path: Path) -> None:
    with Journal(path, clock_ms=lambda: NOW_MS) as opened:
        assert opened.next_generation() == opened.next_generation() == NOW_MS
        fill(opened, 2)
        assert opened.next_generation() == NOW_MS + 2
    with Journal(path, clock_ms=lambda: NOW_MS - 10_000) as opened:  # set back
        assert opened.next_generation() == NOW_MS + 2
    with Journal(path, clock_ms=lambda: NOW_MS + 10_000) as opened:
        assert opened.next_generation() == NOW_MS + 10_000


@pytest.mark.parametrize("generation", [NOW_MS, NOW_MS - 1, 0, -1, 1 << 63])
def test_a_generation_that_cannot_follow_is_refused(opened: Journal, generation: int) -> None:
    written = fill(opened, 1)
    with pytest.raises(JournalError, match=f"generation {generation} cannot follow {NOW_MS}"):
        opened.append(entry_of(generation, PLAN))
    assert opened.entries(9) == written


def test_times_do_not_go_back(path: Path) -> None:
    with Journal(path, clock_ms=lambda: NOW_MS) as opened:
        opened.append(entry_of(NOW_MS, PLAN, time_ms=NOW_MS))
        back = opened.append(entry_of(NOW_MS + 1, PLAN, time_ms=NOW_MS - 60_000))
        assert back.time_ms == NOW_MS
        assert opened.last() == back
    with Journal(path, clock_ms=lambda: 5) as opened:
        assert opened.append(entry_of(NOW_MS + 2, PLAN, time_ms=7)).time_ms == NOW_MS
        assert opened.append(entry_of(NOW_MS + 3, PLAN, time_ms=NOW_MS + 9)).time_ms == NOW_MS + 9


# ---------------------------------------------------------------------- the chain


def test_the_chain_is_sha256_over_the_digest_before_and_the_row(
    opened: Journal, path: Path
) -> None:
    fill(opened, 3)
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT entry, digest FROM changes ORDER BY generation").fetchall()
    connection.close()
    digest = bytes(32)
    for row, kept in rows:
        digest = hashlib.sha256(digest + row.encode()).digest()
        assert kept == digest
        members = json.loads(row)
        assert row == json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert members["state"]["models"][0]["arms"][1]["weight_basis_points"] == 1_000


def test_the_canonical_form_does_not_depend_on_the_order_of_members() -> None:
    one = replace(entry_of(1, PLAN), arguments={"a": 1, "b": {"x": 1, "y": 2}})
    other = replace(entry_of(1, PLAN), arguments={"b": {"y": 2, "x": 1}, "a": 1})
    assert encode_entry(one) == encode_entry(other)
    assert decode_entry(encode_entry(one)) == one


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE changes SET entry = replace(entry, 'tester', 'nobody') WHERE rowid = ?",
        "UPDATE changes SET digest = zeroblob(32) WHERE rowid = ?",
        "UPDATE changes SET entry = x'00ff' WHERE rowid = ?",
        "UPDATE changes SET digest = 7 WHERE rowid = ?",
        "UPDATE changes SET generation = generation + 1000000 WHERE rowid = ?",
        "DELETE FROM changes WHERE rowid = ?",
    ],
)
def test_entries_that_were_altered_or_removed_are_found(path: Path, statement: str) -> None:
    with Journal(path) as opened:
        written = fill(opened, 4)
    alter(path, statement, written[1].generation)
    with (
        pytest.raises(JournalError, match=r"is damaged: the entry of generation .*Put a copy back"),
        Journal(path) as opened,
    ):
        opened.verify()


def test_an_export_shows_when_it_was_altered(opened: Journal) -> None:
    written = fill(opened, 4)
    stream = io.StringIO()
    assert opened.export(stream) == 4
    lines = stream.getvalue().splitlines()
    assert list(read_export(lines)) == written
    assert [json.loads(line)["why"] for line in lines] == [f"change {i}" for i in range(4)]
    altered = [line.replace("change 1", "change 9") for line in lines]
    for damaged, number in [
        (altered, 2),
        (lines[1:], 1),
        (lines[:1] + lines[2:], 2),
        (lines[::-1], 1),
        ([lines[0], ""], 2),
        ([lines[0], lines[1][:-1]], 2),
    ]:
        with pytest.raises(JournalError, match=f"line {number} of the export does not match"):
            list(read_export(damaged))


# -------------------------------------------------------------------- refusals


def test_a_journal_is_open_once(opened: Journal, path: Path) -> None:
    with pytest.raises(JournalError, match=f"in use by process {os.getpid()}: one server has one"):
        Journal(path)
    with pytest.raises(JournalError, match=f"in use by process {os.getpid()}: stop that server"):
        set_aside(path)
    opened.close()
    opened.close()
    with pytest.raises(JournalError, match="is closed"):
        opened.last()
    with pytest.raises(JournalError, match="is closed"):
        opened.append(entry_of(opened.next_generation(), PLAN))
    Journal(path).close()


def test_what_json_cannot_hold_changes_nothing(opened: Journal) -> None:
    written = fill(opened, 1)
    generation = opened.next_generation()
    for arguments in ({"x": object()}, {"x": "\ud800"}):
        with pytest.raises(JournalError, match=r"cannot be written down, so nothing was changed"):
            opened.append(replace(entry_of(generation, PLAN), arguments=arguments))
    assert opened.entries(9) == written
    assert opened.append(entry_of(generation, PLAN)).generation == generation


def test_a_newer_schema_is_refused_and_not_touched(path: Path) -> None:
    with Journal(path) as opened:
        fill(opened, 1)
    alter(path, "PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"has version 2, this version .* reads 1: upgrade"):
        Journal(path)
    assert path.read_bytes() == before


def test_a_newer_format_of_a_state_is_refused(path: Path) -> None:
    with Journal(path) as opened:
        entry = entry_of(opened.next_generation(), replace(PLAN, format=2))
        with pytest.raises(JournalError, match=r"has format 2, .* reads up to 1: upgrade"):
            opened.append(entry)
        assert opened.last() is None


def test_other_files_are_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("not a database, but long enough to look like one" * 100)
    with pytest.raises(DamagedJournalError, match="is damaged: file is not a database") as caught:
        Journal(path)
    assert f"`scoregate journal set-aside {path}`" in str(caught.value)
    path.unlink()
    alter(path, "CREATE TABLE other (x)")
    with pytest.raises(JournalError, match="no journal of Scoregate: set another path"):
        Journal(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(path)


def test_an_empty_file_is_a_damaged_journal(path: Path) -> None:
    # Not taken for a new one: it may be what a broken disk left of an old one.
    path.parent.mkdir()
    path.touch()
    with pytest.raises(DamagedJournalError, match="it is empty"):
        Journal(path)


def test_a_log_without_its_database_is_refused(path: Path) -> None:
    with Journal(path) as opened:
        fill(opened, 1)
        shutil.copy(f"{path}-wal", path.parent / "kept")
    path.unlink()
    (path.parent / "kept").rename(f"{path}-wal")
    with pytest.raises(JournalError, match=r"is missing, but its log journal.db-wal is there"):
        Journal(path)
    assert Path(f"{path}-wal").stat().st_size > 0


def test_what_a_crash_left_of_making_a_journal_is_made_again(path: Path) -> None:
    path.parent.mkdir()
    (path.parent / "journal.db.new").write_bytes(b"half of it")
    (path.parent / "journal.db.new-journal").write_bytes(b"its log")
    with Journal(path) as opened:
        fill(opened, 1)
    assert {file.name for file in path.parent.iterdir()} == {"journal.db", "journal.db.lock"}


def test_a_database_that_cannot_be_written_changes_nothing(opened: Journal) -> None:
    written = fill(opened, 1)
    connection = opened._connection
    connection.execute("PRAGMA query_only = ON")  # as if the file were read-only
    with pytest.raises(
        JournalError, match=r"so nothing was changed: .*readonly.*\(SQLITE_READONLY\); make the"
    ):
        fill(opened, 1)
    connection.execute("PRAGMA query_only = OFF")
    assert opened.entries(9) == written
    assert fill(opened, 1)[0].generation == written[0].generation + 1


def test_another_program_that_locks_it_is_waited_for_and_named(path: Path) -> None:
    with Journal(path, timeout_s=0.05) as opened:
        fill(opened, 1)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="another program has it locked"):
            fill(opened, 1)
        other.execute("ROLLBACK")
        other.close()
        fill(opened, 1)
        assert opened.verify() == 2


def test_an_entry_that_another_program_wrote_is_noticed(opened: Journal, path: Path) -> None:
    fill(opened, 1)
    alter(path, "INSERT INTO changes SELECT generation + 1, entry, digest FROM changes")
    with pytest.raises(JournalError, match="another program wrote to it; nothing was changed"):
        fill(opened, 1)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_removed_under_the_journal_is_noticed(
    opened: Journal, path: Path, replaced: bool
) -> None:
    fill(opened, 1)
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    path.unlink()
    if replaced:
        copy.rename(path)
    with pytest.raises(JournalError, match="removed or replaced under the server"):
        fill(opened, 1)


def test_a_file_system_without_shared_memory_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def on_a_network(name: Any, **options: Any) -> sqlite3.Connection:
        # SQLite's own file layer without shared memory, as for network file systems.
        if options.get("uri"):
            name += "&vfs=unix-none"
        opened: sqlite3.Connection = connect(name, **options)
        return opened

    monkeypatch.setattr(sqlite3, "connect", on_a_network)
    with pytest.raises(JournalError, match=r"cannot hold a write-ahead log .*put it on a local"):
        Journal(path)


# ------------------------------------------------------------------ moving aside


def test_a_journal_is_moved_aside_whole_and_a_new_one_goes_on_above(path: Path) -> None:
    with Journal(path, clock_ms=lambda: NOW_MS) as opened:
        fill(opened, 2)
        shutil.copy(f"{path}-wal", path.with_name("kept"))
    path.write_bytes(b"x" * 8192)
    path.with_name("kept").rename(f"{path}-wal")
    # Whoever tries to start with it leaves all of it there, the log too.
    with pytest.raises(DamagedJournalError, match=f"`scoregate journal set-aside {path}`"):
        Journal(path)
    aside, log = set_aside(path)
    assert aside.name.startswith("journal.db.damaged-2")
    assert aside.read_bytes() == b"x" * 8192
    assert log == Path(f"{aside}-wal")
    assert log.stat().st_size > 0
    assert not path.exists()
    with pytest.raises(JournalError, match="damaged"):
        Journal(aside).verify()
    with Journal(path, clock_ms=lambda: NOW_MS + 1_000) as opened:
        assert opened.last() is None
        assert opened.next_generation() == NOW_MS + 1_000
