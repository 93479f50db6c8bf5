"""The journal when processes die, disks fill up and files are torn: a prefix, or a refusal."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.errors import JournalError
from server.rollout.entry import Entry
from server.rollout.journal import Journal
from tests.support.journals import entry_of, first_plan, random_changes

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "tests" / "support" / "disk_faults.c"
PLAN = first_plan()

Logged = tuple[dict[str, bytes], list[Entry], list[int]]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that ends or fails calls, built with the compiler that built the package."""
    library = tmp_path_factory.mktemp("faults") / "disk_faults.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, FAULTS, "-ldl"], check=True)
    return library


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: what a killed process wrote is there without a sync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as made:
        yield Path(made)


def run_python(*arguments: str | Path, preload: Path | None = None) -> str:
    environment = dict(os.environ)
    if preload is not None:
        environment["LD_PRELOAD"] = str(preload)
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


# ---------------------------------------------------------------------- kill -9


def check_rounds(rounds: list[dict[str, Any]], *, starts_anew: bool = False) -> None:
    """All that was done is there, at most the one that was being written besides, nothing else."""
    before: list[str] = []
    for told in rounds:
        assert told["raised"] == [], told
        assert "error" not in told, told
        found = told["found"]
        assert found[: len(before)] == before, told
        new = found[len(before) :]
        assert new == told["intended"][: len(new)], told
        assert told["done"] == told["intended"][: len(told["done"])], told
        assert len(told["done"]) <= len(new) <= len(told["intended"]), told
        assert told["verified"] == len(found), told
        before = [] if starts_anew else found


@pytest.mark.parametrize(("kind", "seed"), [("call", s) for s in range(5)] + [("time", 5)])
def test_a_writer_that_is_killed_leaves_what_it_had_done(
    folder: Path, faults: Path, kind: str, seed: int
) -> None:
    output = run_python(
        *("-m", "tests.support.journal_crashes", folder, kind),
        *("--seed", str(seed), "--rounds", "60"),
        preload=faults,
    )
    rounds = [json.loads(line) for line in output.splitlines()]
    check_rounds(rounds)
    assert len(rounds) == 60
    assert sum(told["killed"] for told in rounds) >= {"call": 30, "time": 60}[kind]
    assert any(len(told["intended"]) > len(told["done"]) for told in rounds)


def test_a_writer_that_is_killed_in_each_of_its_calls_in_turn(folder: Path, faults: Path) -> None:
    output = run_python(
        *("-m", "tests.support.journal_crashes", folder, "every-call"),
        *("--seed", "1", "--rounds", "10000"),
        preload=faults,
    )
    rounds = [json.loads(line) for line in output.splitlines()]
    check_rounds(rounds, starts_anew=True)
    assert [told["killed"] for told in rounds] == [True] * (len(rounds) - 1) + [False]
    # In the making, in the appends and in the closing; before and after the commit was whole.
    assert rounds[0]["intended"] == []
    assert rounds[-2]["done"] == rounds[-2]["intended"] == rounds[-2]["found"] != []
    n_open = [len(told["found"]) - len(told["done"]) for told in rounds if told["intended"]]
    assert {*n_open} == {0, 1}


# ---------------------------------------------------------------- syncs that fail

FAIL_A_SYNC = """
import ctypes, os, signal, sys
from server.errors import JournalError
from server.rollout.journal import Journal
from tests.support.journals import entry_of, first_plan

path, n_failures, after = sys.argv[1], int(sys.argv[2]), sys.argv[3]
faults = ctypes.CDLL(None)
faults.disk_faults_calls.restype = ctypes.c_long
journal = Journal(path)
journal.append(entry_of(journal.next_generation(), first_plan(), why="first"))
faults.disk_faults_arm(2, ctypes.c_long(1), ctypes.c_long(n_failures))
try:
    journal.append(entry_of(journal.next_generation(), first_plan(), why="failed"))
except JournalError as error:
    print(error)
if after == "append":
    journal.append(entry_of(journal.next_generation(), first_plan(), why="second"))
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL if after != "close" else 0)
journal.close()
"""


@pytest.mark.parametrize(
    ("n_failures", "after", "expected"),
    [
        (1, "kill", ["first"]),  # the mark was written over the failed commit
        (1, "append", ["first", "second"]),
        (2, "append", ["first", "second"]),  # the mark failed too
        (2, "close", ["first"]),
    ],
)
def test_an_entry_whose_sync_failed_does_not_come_back(
    tmp_path: Path, faults: Path, n_failures: int, after: str, expected: list[str]
) -> None:
    path = tmp_path / "journal.db"
    process = subprocess.run(
        [sys.executable, "-c", FAIL_A_SYNC, path, str(n_failures), after],
        cwd=ROOT,
        env=dict(os.environ) | {"LD_PRELOAD": str(faults)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == (0 if after == "close" else -9), process.stderr
    assert "was not written down, so nothing was changed: disk I/O error" in process.stdout
    assert ("could not be marked so" in process.stderr) == (n_failures == 2)
    with Journal(path) as journal:
        assert [entry.why for entry in journal.walk()][::-1] == expected
        assert journal.verify() == len(expected)


# --------------------------------------------------------------------- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("tmpfs cannot be mounted here: run as root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_changes_and_works_again_when_there_is_space(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(200_000))
    written: list[Entry] = []
    with Journal(path) as journal:
        message = ""
        while not message:
            generation = journal.next_generation()
            try:
                written.append(journal.append(entry_of(generation, PLAN, why="x" * 3_000)))
            except JournalError as error:
                message = str(error)
            assert len(written) < 1_000
        assert re.search("nothing was changed: .*full.*free some disk", message)
        assert len(written) > 5
        assert journal.next_generation() == generation  # it was given to no plan
        assert list(journal.walk())[::-1] == written
        with pytest.raises(JournalError, match="nothing was changed"):
            journal.append(entry_of(journal.next_generation(), PLAN, why="x" * 100_000))
        filler.unlink()
        written.append(journal.append(entry_of(generation, PLAN)))
    with Journal(path) as journal:
        assert list(journal.walk())[::-1] == written
        assert journal.verify() == len(written)


def test_a_full_disk_when_the_journal_is_made(small_disk: Path) -> None:
    filler = small_disk / "filler"
    space = os.statvfs(small_disk)
    filler.write_bytes(bytes((space.f_bavail - 2) * space.f_frsize))
    with pytest.raises(JournalError, match=r"cannot be opened: .*full.*free some disk space"):
        Journal(small_disk / "journal.db")
    filler.unlink()
    with Journal(small_disk / "journal.db") as journal:
        assert journal.last() is None


def test_a_limit_of_the_file_size_refuses_changes(tmp_path: Path) -> None:
    script = """
    import resource, sys
    from server.errors import JournalError
    from server.rollout.journal import Journal
    from tests.support.journals import entry_of, first_plan

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    count = 0
    with Journal(sys.argv[1]) as journal:
        try:
            while True:
                generation = journal.next_generation()
                journal.append(entry_of(generation, first_plan(), why="x" * 5000))
                count += 1
        except JournalError as error:
            assert "nothing was changed" in str(error), error
    print(count)
    """
    count = int(run_python("-c", textwrap.dedent(script), tmp_path / "journal.db"))
    assert count > 3
    with Journal(tmp_path / "journal.db") as journal:
        assert journal.verify() == count
        journal.append(entry_of(journal.next_generation(), PLAN))


# --------------------------------------------------------------------- torn files


def torn_copy(files: dict[str, bytes], folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "journal.db"


@pytest.fixture(scope="module")
def logged(
    tmp_path_factory: pytest.TempPathFactory,
) -> Logged:
    """Files with three entries in the database and six in the log, and where each of those ends."""
    folder = tmp_path_factory.mktemp("logged")
    path, log = folder / "journal.db", folder / "journal.db-wal"
    rng = random.Random(7)
    plans = random_changes(rng)
    written, ends = [], []
    with Journal(path) as journal:
        for _ in range(3):
            verb, state = next(plans)
            written.append(journal.append(entry_of(journal.next_generation(), state, verb=verb)))
    with Journal(path) as journal:
        for _ in range(6):
            verb, state = next(plans)
            why = "x" * rng.choice([0, 9_000])
            entry = entry_of(journal.next_generation(), state, verb=verb, why=why)
            written.append(journal.append(entry))
            ends.append(log.stat().st_size)
        files = {file.name: file.read_bytes() for file in (path, log)}
    return files, written, ends


def test_a_log_that_is_cut_anywhere_leaves_the_entries_before_the_cut(
    tmp_path: Path, logged: Logged
) -> None:
    files, written, ends = logged
    rng = random.Random(1)
    whole = files["journal.db-wal"]
    exact = {edge + d for edge in (0, 32, *ends) for d in (-1, 0, 1)}
    cuts = {cut for cut in exact if 0 <= cut <= len(whole)} | {*rng.sample(range(len(whole)), 120)}
    later_ms = written[-1].generation + 1
    for cut in sorted(cuts):
        path = torn_copy(files | {"journal.db-wal": whole[:cut]}, tmp_path / "torn")
        with Journal(path, clock_ms=lambda: later_ms) as journal:
            n_left = 3 + sum(end <= cut for end in ends)
            assert list(journal.walk())[::-1] == written[:n_left], f"cut at {cut}"
            assert journal.verify() == n_left
            # Generations that were lost are not given out again.
            assert journal.next_generation() == later_ms


def test_a_log_that_is_garbled_anywhere_leaves_the_entries_before_that(
    tmp_path: Path, logged: Logged
) -> None:
    files, written, ends = logged
    rng = random.Random(2)
    whole = files["journal.db-wal"]
    for _ in range(150):
        at = rng.randrange(len(whole))
        torn = bytearray(whole)
        for i in range(at, min(at + rng.choice([1, 8, 512, 20_000]), len(whole))):
            torn[i] ^= rng.randrange(1, 256)
        path = torn_copy(files | {"journal.db-wal": bytes(torn)}, tmp_path / "torn")
        with Journal(path) as journal:
            n_left = 3 + sum(end <= at for end in ends)
            assert list(journal.walk())[::-1] == written[:n_left], f"garbled at {at}"
            assert journal.verify() == n_left


def test_a_database_that_is_garbled_is_refused_or_whole(tmp_path: Path) -> None:
    rng = random.Random(3)
    plans = random_changes(rng)
    original = tmp_path / "original" / "journal.db"
    with Journal(original) as journal:
        written = [
            journal.append(entry_of(journal.next_generation(), state, verb=verb))
            for verb, state in (next(plans) for _ in range(12))
        ]
    whole = original.read_bytes()
    refused = []
    for _ in range(250):
        at = rng.choice([rng.randrange(len(whole)), rng.randrange(120)])
        torn = bytearray(whole)
        for i in range(at, min(at + rng.choice([1, 4, 64, 5_000]), len(whole))):
            torn[i] ^= rng.randrange(1, 256)
        if rng.random() < 0.1:
            del torn[at:]
        path = torn_copy({"journal.db": bytes(torn)}, tmp_path / "torn")
        try:
            with Journal(path) as journal:
                left = list(journal.walk())[::-1]
                assert journal.verify() == len(left)
            assert left == written, f"garbled at {at}"
        except JournalError as error:
            refused.append(str(error))
    assert len(refused) > 150
    assert any("is damaged" in text and "Put a copy back" in text for text in refused)
    for text in refused:
        assert str(tmp_path) in text, text


# ------------------------------------------------------------------ two processes

HOLD = """
import sys
from server.rollout.journal import Journal

journal = Journal(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_who_has_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(JournalError, match=f"in use by process {holder.pid}: one server"):
            Journal(path)
        holder.kill()
    with Journal(path) as journal:  # the lock ended with the process
        assert journal.last() is None
