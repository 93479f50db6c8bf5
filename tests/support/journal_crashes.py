"""Kills processes that write a journal, and tells what they did and what is left of it.

A process of its own (`python -m tests.support.journal_crashes`), because it forks: pytest's has
threads. Each round forks a writer that reports what it is about to write and what was written; the
round ends with SIGKILL, or with the writer. Then the journal is read. One JSON line per round.

Kinds of rounds: "call": SIGKILL in the n-th call that changes a file, the write half done (needs
disk_faults.c preloaded); "time": SIGKILL after a random time.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import itertools
import json
import os
import random
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from server.errors import JournalError
from server.rollout.entry import Entry, encode_entry
from server.rollout.journal import Journal
from server.rollout.state import PlanState
from tests.support.journals import entry_of, random_changes

MAX_APPENDS = 12


def name_of(entry: Entry) -> str:
    """Short for the whole content of an entry."""
    digest = hashlib.sha256(encode_entry(entry).encode()).hexdigest()
    return f"{entry.generation}:{digest[:16]}"


def write(
    path: Path, plans: list[tuple[str, PlanState]], seed: int, max_appends: int, report: int
) -> None:
    """The writer: opens the journal, appends, closes it."""
    rng = random.Random(seed)
    with Journal(path) as journal:
        # Folds the log into the database often, so that it happens while we write.
        journal._connection.execute("PRAGMA wal_autocheckpoint = 20")
        for _ in range(rng.randint(max_appends // 4, max_appends)):
            verb, state = rng.choice(plans)
            why = "x" * rng.choice([0, 10, 3_000, 30_000])
            entry = entry_of(journal.next_generation(), state, verb=verb, why=why)
            os.write(report, f"intended {name_of(entry)}\n".encode())
            journal.append(entry)
            os.write(report, f"done {name_of(entry)}\n".encode())


def run_round(
    path: Path, plans: list[tuple[str, PlanState]], seed: int, *, at_call: int, after_s: float
) -> dict[str, Any]:
    """Fork a writer, end it, and read what it reported."""
    reading, report = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            if at_call:
                ctypes.CDLL(None).disk_faults_arm(1, ctypes.c_long(at_call), ctypes.c_long(0))
            # A round that ends by time ends no other way.
            write(path, plans, seed, 1 << 30 if after_s else MAX_APPENDS, report)
            status = 0
        except BaseException as error:  # noqa: BLE001 - all of it is the test's to see
            os.write(report, f"raised {error!r}\n".encode())
        finally:
            os._exit(status)
    os.close(report)
    if after_s:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    text = b""
    while chunk := os.read(reading, 1 << 16) if select.select([reading], [], [], 30)[0] else b"":
        text += chunk
    os.close(reading)
    _, status = os.waitpid(child, 0)
    lines = [line.split(" ", 1) for line in text.decode().splitlines()]
    told: dict[str, Any] = {
        kind: [what for this, what in lines if this == kind]
        for kind in ("intended", "done", "raised")
    }
    return told | {"killed": os.WIFSIGNALED(status), "seed": seed, "at_call": at_call}


def left_of(path: Path) -> dict[str, Any]:
    """Open what is left, check all of it, and name its entries, oldest first."""
    try:
        with Journal(path) as journal:
            entries = list(journal.walk())[::-1]
            return {"found": [name_of(e) for e in entries], "verified": journal.verify()}
    except JournalError as error:
        return {"found": [], "verified": -1, "error": str(error)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=["call", "time", "every-call"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    plans = list(itertools.islice(random_changes(rng), 50))
    path = options.folder / "journal.db"
    for number in range(1, options.rounds + 1):
        seed = options.seed if options.kind == "every-call" else rng.randrange(1 << 32)
        at_call = {"call": rng.randint(1, 120), "time": 0, "every-call": number}[options.kind]
        after_s = rng.uniform(0.0005, 0.008) if options.kind == "time" else 0.0
        result = run_round(path, plans, seed, at_call=at_call, after_s=after_s)
        # Every other time the check reads a copy, so that the log that crashes left stays as it is.
        checked = path
        if rng.random() < 0.5:
            copy = options.folder / "copy"
            shutil.copytree(options.folder, copy, dirs_exist_ok=False)
            checked = copy / path.name
        result |= left_of(checked)
        sys.stdout.write(json.dumps(result) + "\n")
        if checked != path:
            shutil.rmtree(checked.parent)
        if options.kind == "every-call":
            if not result["killed"]:
                return
            for left in options.folder.iterdir():
                left.unlink()


if __name__ == "__main__":
    main()
