"""The journal: every change of what serves, on disk before it is in force.

Rules
-----
* `append` returns when the entry is on disk (SQLite, WAL, synchronous=FULL: one fsync per change);
  raises when it is not, and then nothing was changed. A crash at any point leaves what was
  appended, with or without the entry that was being written, never anything else.
* Generations strictly ascend and are never used again: the next one is above the last, and not
  below the wall clock, in milliseconds, at the opening. So even a journal that was lost, or lost
  its end to a broken disk, does not give out the generation of another plan.
* Times do not go back: an entry that would be older than the last gets that one's time.
* Entries are chained by digests (see `entry`), and each is checked when it is read. Entries that
  were altered, or removed from the middle, are found; entries removed from the end are not.
* One process has the journal open, others are refused. Nothing is ever deleted: a journal that is
  damaged is refused until somebody moves it aside (`set_aside`), which keeps it.

How it works: one table, one row per change: the entry's canonical JSON and its digest. After a
commit whose fsync failed, what was written may still be whole, and a restart would take it for
committed; so the next thing written is a mark over it. The file itself is `database`'s.

What it does not do: run on file systems without shared memory maps or locks (most network ones):
opening says so there. Keep secrets: an entry tells who pinned which routing key.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec.structs import replace

from server.errors import JournalError
from server.rollout.database import (
    beside,
    damaged,
    explained,
    make_directory,
    open_database,
    set_aside,
)
from server.rollout.entry import (
    FIRST_DIGEST,
    Entry,
    chain,
    decode_entry,
    encode_entry,
    export_line,
    read_export,
)
from server.rollout.lock import ProcessLock

__all__ = ["Entry", "Journal", "read_export", "set_aside"]

MAX_GENERATION = (1 << 63) - 1  # what SQLite's integers hold; a caller may name any of 64 bits
PAGE_ENTRIES = 64  # read at once by what goes through all of them, ...
PAGE_BYTES = 4 << 20  # ... or fewer: an entry with many pinned keys has megabytes

_SELECT = """
SELECT generation, entry, digest, (
    SELECT digest FROM changes AS previous
    WHERE previous.generation < changes.generation ORDER BY previous.generation DESC LIMIT 1
) FROM changes """

log = logging.getLogger(__name__)


class _Writable(Protocol):
    def write(self, text: str, /) -> object: ...


def wall_clock_ms() -> int:
    """Return the milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Journal:
    """The changes of one server. Safe from any thread.

    Parameters
    ----------
    path
        The database; made, with its directory, if it is not there. `<path>-wal`, `<path>-shm` and
        `<path>.lock` belong to it.
    timeout_s
        How long to wait for another program that has the database locked.
    clock_ms
        Returns the wall clock: milliseconds since the epoch.

    Raises
    ------
    JournalError
        Another process has it, it is damaged or of a newer version, or the file system cannot
        hold it; the message says what to do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout_s: float = 5.0,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._path = Path(path).resolve()
        self._using = threading.Lock()
        self._database: sqlite3.Connection | None = None
        make_directory(self._path)
        self._lock = ProcessLock(beside(self._path, ".lock"), f"journal {self._path}")
        try:
            with explained(self._path, "it cannot be opened"):
                self._database = open_database(self._path, timeout_s)
                self._inode = self._path.stat().st_ino
            self._floor = clock_ms()
            newest = self.entries(1)
            self._last_generation = newest[0].generation if newest else 0
            self._last_time_ms = newest[0].time_ms if newest else 0
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """Where the database is."""
        return self._path

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Fold the log into the database and let the next process in. Idempotent."""
        with self._using:
            database, self._database = self._database, None
            try:
                if database is not None:
                    database.close()
            except sqlite3.Error as error:
                log.warning("%s: closed without folding its log in: %s", self._path, error)
            finally:
                self._lock.release()

    def next_generation(self) -> int:
        """Return a generation that no plan had."""
        return max(self._last_generation + 1, self._floor)

    def append(self, entry: Entry) -> Entry:
        """Write an entry down; it is on disk on return.

        Parameters
        ----------
        entry
            Its generation is above the last.

        Returns
        -------
        Entry
            As it was written: its time is not before the last entry's.

        Raises
        ------
        JournalError
            It was not written, and nothing was changed.
        """
        with self._using:
            if not self._last_generation < entry.generation <= MAX_GENERATION:
                raise JournalError(
                    f"journal {self._path}: generation {entry.generation} cannot follow "
                    f"{self._last_generation}; nothing was changed"
                )
            row = encode_entry(replace(entry, time_ms=max(entry.time_ms, self._last_time_ms)))
            written = decode_entry(row)
            with explained(self._path, "the change was not written down, so nothing was changed"):
                self._insert(entry.generation, row)
            self._last_generation = written.generation
            self._last_time_ms = written.time_ms
            return written

    def last(self) -> Entry | None:
        """Return the newest entry, or None."""
        return next(iter(self.entries(1)), None)

    def get(self, generation: int) -> Entry | None:
        """Return the entry of a generation, or None."""
        if generation > MAX_GENERATION:
            return None
        found = self._read("WHERE generation = ?", (generation,))
        return found[0][0] if found else None

    def entries(self, limit: int, before_generation: int = 0) -> list[Entry]:
        """Return the newest entries, newest first.

        Parameters
        ----------
        limit
            So many at most.
        before_generation
            Only older ones; 0: from the newest.
        """
        return [entry for entry, _, _ in self._newest(limit, before_generation)]

    def walk(self, before_generation: int = 0) -> Iterator[Entry]:
        """Go through the entries, newest first, without holding them all in memory."""
        limit = 2
        while page := self._newest(limit, before_generation):
            for entry, _, _ in page:
                yield entry
            before_generation = page[-1][0].generation
            limit = _next_limit(page, limit)

    def export(self, stream: _Writable) -> int:
        """Write all entries as JSON lines, oldest first, each with its digest; returns how many."""
        count = 0
        for row, digest in self._oldest_first():
            stream.write(export_line(row, digest) + "\n")
            count += 1
        return count

    def verify(self) -> int:
        """Check every page of the database and every entry; returns how many there are.

        Raises
        ------
        JournalError
            Something is damaged, altered or missing.
        """
        with self._using, explained(self._path, "it cannot be checked"):
            report = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if report != "ok":
            raise damaged(self._path, report)
        return sum(1 for _ in self._oldest_first())

    # ------------------------------------------------------------- the inside

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise JournalError(f"journal {self._path} is closed")
        return self._database

    def _insert(self, generation: int, row: str) -> None:
        database = self._connection
        self._check_file()
        database.execute("BEGIN IMMEDIATE")
        try:
            last = database.execute(
                "SELECT generation, digest FROM changes ORDER BY generation DESC LIMIT 1"
            ).fetchone() or (0, FIRST_DIGEST)
            if last[0] != self._last_generation:
                raise JournalError(
                    f"journal {self._path} ends with generation {last[0]}, not with "
                    f"{self._last_generation}: another program wrote to it; nothing was changed. "
                    "Restart the server, and find out who did"
                )
            database.execute(
                "INSERT INTO changes VALUES (?, ?, ?)", (generation, row, chain(last[1], row))
            )
            database.execute("COMMIT")
        except BaseException:
            self._undo(generation)
            raise

    def _undo(self, generation: int) -> None:
        """Make sure that what failed does not come back after a crash."""
        database = self._connection
        try:
            if database.in_transaction:
                database.execute("ROLLBACK")
            database.execute("UPDATE failures SET n = n + 1")
        except sqlite3.Error as error:
            log.error(
                "%s: generation %d failed and could not be marked so (%s); should the server crash "
                "before the next change, look whether `scoregate history` has it",
                self._path,
                generation,
                error,
            )

    def _check_file(self) -> None:
        """Refuse to write into a file that is not there any more: nobody would find it again."""
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            inode = -1
        if inode != self._inode:
            raise JournalError(
                f"journal {self._path} was removed or replaced under the server; nothing was "
                "changed. Put the file back, or restart the server"
            )

    def _read(self, where: str, arguments: tuple[Any, ...]) -> list[tuple[Entry, str, bytes]]:
        """Read entries, each checked against the digest before it."""
        with self._using, explained(self._path, "it cannot be read"):
            rows = self._connection.execute(_SELECT + where, arguments).fetchall()
        return [(self._checked(*row), row[1], row[2]) for row in rows]

    def _checked(self, generation: int, row: str, digest: bytes, previous: bytes | None) -> Entry:
        try:
            if chain(previous or FIRST_DIGEST, row) == digest:
                entry = decode_entry(row)
                if entry.generation == generation:
                    return entry
        except (TypeError, AttributeError):
            pass  # not even text and bytes
        raise damaged(self._path, f"the entry of generation {generation} does not match its digest")

    def _newest(self, limit: int, before_generation: int) -> list[tuple[Entry, str, bytes]]:
        before = min(before_generation or MAX_GENERATION, MAX_GENERATION)
        return self._read(
            "WHERE generation < ? ORDER BY generation DESC LIMIT ?", (before, max(0, limit))
        )

    def _oldest_first(self) -> Iterator[tuple[str, bytes]]:
        after, limit = -1, 2
        while page := self._read(
            "WHERE generation > ? ORDER BY generation LIMIT ?", (after, limit)
        ):
            for entry, row, digest in page:
                yield row, digest
                after = entry.generation
            limit = _next_limit(page, limit)


def _next_limit(page: list[tuple[Entry, str, bytes]], limit: int) -> int:
    """Return how many entries to read next, where they may be as large as the last."""
    largest = max(len(row) for _, row, _ in page)
    return max(1, min(2 * limit, PAGE_ENTRIES, PAGE_BYTES // largest))
