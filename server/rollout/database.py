"""The journal's file: made, opened, moved aside; and what its errors mean to an operator.

A database is made aside with its tables in it, then renamed: it is never there without them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from server.errors import JournalError
from server.rollout.lock import ProcessLock

MAGIC = b"SQLite format 3\0"
APPLICATION_ID = 0x53475231  # "SGR1", in the file's header
APPLICATION_ID_AT = 68
SCHEMA_VERSION = 1
CACHE_KIB = 128  # of pages that SQLite keeps

_TABLES = """
CREATE TABLE changes (
    generation INTEGER PRIMARY KEY,
    entry TEXT NOT NULL,
    digest BLOB NOT NULL
);
-- Written over a commit that failed; the number says how often.
CREATE TABLE failures (n INTEGER NOT NULL);
INSERT INTO failures VALUES (0);
"""
# What to do, by the beginning of SQLite's name of an error.
_ADVICE = (
    ("SQLITE_FULL", "; free some disk space, then try again"),
    ("SQLITE_READONLY", "; make the file and its directory writable for the server"),
    ("SQLITE_BUSY", "; another program has it locked: close that, then try again"),
    ("SQLITE_CANTOPEN", "; the file and its directory have to be readable and writable"),
    ("SQLITE_IOERR", "; look after the disk (`dmesg`), then try again"),
)


class DamagedJournalError(JournalError):
    """A journal that cannot be trusted: another copy, or none, has to take its place."""


def open_database(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Open a journal's database for writing, durably; make it if it is not there.

    The caller holds the journal's lock, and explains the errors (see `explained`).
    """
    if not path.exists():
        left = beside(path, "-wal")
        if left.exists():
            raise JournalError(
                f"journal {path} is missing, but its log {left.name} is there: put the database "
                f"back beside it; or `scoregate journal set-aside {path}` moves the log aside, and "
                "the server starts without a history"
            )
        _create(path)
    _check_header(path)
    database = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        _check_version(path, database)
        mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise JournalError(
                f"journal {path}: its file system cannot hold a write-ahead log (SQLite offers "
                f"{mode!r}), as most network file systems cannot: put it on a local disk"
            )
        database.execute("PRAGMA synchronous = FULL")
        # Entries are appended and rarely read: kept pages would be memory that grows with changes.
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        database.execute("PRAGMA cell_size_check = ON")
        database.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        database.close()
        raise
    return database


def set_aside(path: str | os.PathLike[str], check: Callable[[], None] = lambda: None) -> list[Path]:
    """Move a journal that cannot be read out of the way, whole.

    Parameters
    ----------
    path
        The database.
    check
        Called while no server can open the journal: what it raises leaves everything in place.

    Returns
    -------
    list[Path]
        Where the database is now, and behind it the files that belong to it.

    Raises
    ------
    JournalError
        A process has it open, or it cannot be moved.
    """
    journal = Path(path).resolve()
    lock = ProcessLock(
        beside(journal, ".lock"), f"journal {journal}", "stop that server, then try again"
    )
    moved = []
    try:
        check()
        aside = beside(journal, f".damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        # The database goes first: without its log it would open, as an older one.
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                moved.append(beside(journal, suffix).rename(beside(aside, suffix)))
        sync_directory(journal.parent)
    except OSError as error:
        raise JournalError(f"journal {journal} cannot be moved aside: {error}") from None
    finally:
        lock.release()
    return moved


def looks_like_journal(path: Path) -> bool:
    """Return whether a file is, or was before it was damaged, a journal."""
    try:
        with path.open("rb") as stream:
            header = stream.read(APPLICATION_ID_AT + 4)
    except OSError:
        header = b""
    number = int.from_bytes(header[APPLICATION_ID_AT:], "big")
    # No other database of ours has such a lock beside it.
    return number == APPLICATION_ID or beside(path, ".lock").is_file()


def _create(path: Path) -> None:
    aside = beside(path, ".new")
    for left in (aside, beside(aside, "-journal")):
        left.unlink(missing_ok=True)  # of a crash while it was made
    with contextlib.closing(sqlite3.connect(aside, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = EXTRA")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.executescript(f"BEGIN; {_TABLES} COMMIT;")
    aside.rename(path)
    sync_directory(path.parent)


def _check_header(path: Path) -> None:
    """Refuse what is no database before SQLite sees it: it would throw the log beside it away."""
    with path.open("rb") as stream:
        start = stream.read(len(MAGIC))
    if not start:
        raise damaged(path, "it is empty")
    if start != MAGIC:
        raise damaged(path, "file is not a database")


def _check_version(path: Path, database: sqlite3.Connection) -> None:
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise JournalError(
            f"{path} is a database, but no journal of Scoregate: set another path for the journal"
        )
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"journal {path} has version {version}, this version of Scoregate reads "
            f"{SCHEMA_VERSION}: upgrade it; the journal was not touched"
        )


def damaged(path: Path, what: str) -> DamagedJournalError:
    """Return the error for a journal that cannot be trusted."""
    return DamagedJournalError(
        f"journal {path} is damaged: {what}. Put a copy back; or `scoregate journal set-aside "
        f"{path}` moves it aside, and the server starts without a history, from the newest "
        "versions in the repository"
    )


@contextlib.contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn what SQLite and the system say into a JournalError that says what to do."""
    try:
        yield
    except UnicodeDecodeError as error:  # of a message that quotes damaged bytes
        raise damaged(path, "it holds bytes that are no text") from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or "SQLITE_ERROR"
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or name == "SQLITE_ERROR":
            raise damaged(path, str(error)) from error
        advice = next((text for code, text in _ADVICE if name.startswith(code)), "")
        raise JournalError(f"journal {path}: {what}: {error} ({name}){advice}") from error
    except OSError as error:
        raise JournalError(f"journal {path}: {what}: {error.strerror or error}") from error


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file that belongs to the database."""
    return path.with_name(path.name + suffix)


def make_directory(path: Path) -> None:
    """Make the directory of a file, if it is not there."""
    with explained(path, "its directory cannot be made"):
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            sync_directory(path.parent.parent)


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
