"""The file of decisions: its tables, how it is opened, and what becomes of a damaged one.

Decisions are a log for statistics, not the truth about what serves: a file that SQLite cannot read
is renamed, loudly, and another begun. The journal of changes is treated otherwise.

Every decision is a row of the table of its segment, clustered by its id:

    id, id1   the hash of its request (`keys`)
    t         milliseconds since the segment's start
    v         what decided (`versions`)
    entity    hash of the routing key
    raw, score  float32, as the integer of their bits
    d         decision | policy decision << 8 | flags << 16
    s, p      probabilities of being recorded and of the decision; NULL: 1
    label     NULL: none yet; 0, 1; RETRACTED
    seen      when that was observed; amount, source: as reported
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from server.errors import FeedbackError, JournalError
from server.rollout.lock import ProcessLock

SCHEMA_VERSION = 2  # 2: ids are hashed in one pass; filters
APPLICATION_ID = 0x53474431  # "SGD1"
# Small: outcomes come in no order, each changes one page, and pages are what is written.
PAGE_BYTES = 1024
CACHE_KIB = 8 * 1024
LOG_BYTES = 32 << 20  # of the write-ahead log, before it is folded into the file
RETRACTED = -1  # of the label: a report was taken back

_TABLES = """
CREATE TABLE versions (
    v INTEGER PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, sha256 TEXT NOT NULL,
    arm TEXT NOT NULL, edges BLOB NOT NULL, UNIQUE (model, version, sha256, arm, edges)
);
CREATE TABLE segments (
    n INTEGER PRIMARY KEY, start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL,
    n_rows INTEGER NOT NULL, n_labels INTEGER NOT NULL, sealed INTEGER NOT NULL
);
-- Which ids a sealed segment may hold (`filters`); one without is searched.
CREATE TABLE filters (n INTEGER PRIMARY KEY, bits BLOB NOT NULL);
-- What every segment holds, counted: sums over decisions with weights 1 / (s * p).
CREATE TABLE tallies (
    n INTEGER, v INTEGER, bin INTEGER, d INTEGER, label INTEGER,
    rows INTEGER NOT NULL, w REAL NOT NULL, w2 REAL NOT NULL, score REAL NOT NULL,
    score2 REAL NOT NULL, amount REAL NOT NULL,
    PRIMARY KEY (n, v, bin, d, label)
) WITHOUT ROWID;
-- Outcomes of decisions that are not here (yet), in parts; `bits`, of one that takes no more:
-- whose outcomes it may hold (`filters`).
CREATE TABLE waiting (
    k INTEGER PRIMARY KEY, n_rows INTEGER NOT NULL, since_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL, bits BLOB
);
CREATE TABLE sources (s INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
"""
SEGMENT = """
CREATE TABLE d_{n} (
    id INTEGER PRIMARY KEY, id1 INTEGER NOT NULL, t INTEGER NOT NULL, v INTEGER NOT NULL,
    entity INTEGER NOT NULL, raw INTEGER NOT NULL, score INTEGER NOT NULL, d INTEGER NOT NULL,
    s REAL, p REAL, label INTEGER, seen INTEGER, amount REAL, source INTEGER
)
"""
# Halves of the id's hash, hash of the model or 0, the outcome, when it came.
WAITING = """
CREATE TABLE w_{k} (
    first INTEGER, second INTEGER, model INTEGER, label INTEGER NOT NULL, seen INTEGER NOT NULL,
    amount REAL, source INTEGER, since_ms INTEGER NOT NULL, PRIMARY KEY (first, second, model)
) WITHOUT ROWID
"""

log = logging.getLogger(__name__)


def lock_database(path: Path) -> ProcessLock:
    """Keep other processes from writing to the file.

    Raises
    ------
    FeedbackError
        Another has it, or the directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return ProcessLock(
            path.with_name(f"{path.name}.lock"),
            f"the store of decisions {path}",
            "one server has one; stop that one, or give this one a feedback.directory of its own",
        )
    except OSError as error:
        raise FeedbackError(
            f"decisions cannot be kept in {path.parent}: {error.strerror} (feedback.directory)"
        ) from None
    except JournalError as error:
        raise FeedbackError(str(error)) from None


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file for writing; make it where it is not there, or cannot be read.

    Raises
    ------
    FeedbackError
        The directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _open(path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            set_aside(path, error)
            return _open(path)
    except sqlite3.Error as error:
        raise FeedbackError(
            f"decisions cannot be kept in {path}: {error}; the directory has to be writable "
            "and have space (setting feedback.directory)"
        ) from None
    except OSError as error:
        raise FeedbackError(
            f"decisions cannot be kept in {path.parent}: {error.strerror} (feedback.directory)"
        ) from None


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file is to blame, and not the disk or the caller."""
    name = getattr(error, "sqlite_errorname", "SQLITE_NOTADB")  # ours, from `_open`
    return str(name).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def set_aside(path: Path, error: sqlite3.Error) -> None:
    """Rename a file that cannot be read, and what SQLite keeps beside it.

    Raises
    ------
    FeedbackError
        It cannot be renamed.
    """
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.damaged-{now}")
    try:
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    except OSError as failed:
        raise FeedbackError(
            f"{path} is damaged ({error}), and cannot be set aside: {failed.strerror}"
        ) from None
    log.error(
        "the file of decisions %s cannot be read (%s): it is now %s, and another is begun; "
        "outcomes of the decisions in it will not be matched",
        path,
        error,
        aside.name,
    )


def reader(path: Path) -> sqlite3.Connection:
    """Open the file for reading, beside its writer."""
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None,
        check_same_thread=False,
    )  # fmt: skip
    database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    database.execute("PRAGMA query_only = ON")
    return database


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // PAGE_BYTES}")
        database.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        # Hashes and scores: what is dropped need not be overwritten, which costs as much as it did.
        database.execute("PRAGMA secure_delete = OFF")
        # A full or missing /tmp is nothing to us.
        database.execute("PRAGMA temp_store = MEMORY")
        [application] = database.execute("PRAGMA application_id").fetchone()
        [version] = database.execute("PRAGMA user_version").fetchone()
        if application == 0 and version == 0:
            database.executescript(
                f"BEGIN; {_TABLES} PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        elif (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
            raise sqlite3.DatabaseError("it is a file of something else, or of another release")
        database.execute("SELECT count(*) FROM segments").fetchone()
    except BaseException:
        database.close()
        raise
    return database
