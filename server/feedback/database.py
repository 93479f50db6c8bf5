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

from server.errors import FeedbackError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x53474431  # "SGD1"
PAGE_BYTES = 8192
CACHE_KIB = 8 * 1024
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
-- What every segment holds, counted: sums over decisions with weights 1 / (s * p).
CREATE TABLE tallies (
    n INTEGER, v INTEGER, bin INTEGER, d INTEGER, label INTEGER,
    rows INTEGER NOT NULL, w REAL NOT NULL, w2 REAL NOT NULL, score REAL NOT NULL,
    score2 REAL NOT NULL, amount REAL NOT NULL,
    PRIMARY KEY (n, v, bin, d, label)
) WITHOUT ROWID;
-- Outcomes of decisions that are not here (yet).
CREATE TABLE waiting (
    id INTEGER, id1 INTEGER, label INTEGER NOT NULL, seen INTEGER NOT NULL, amount REAL,
    source INTEGER, since_ms INTEGER NOT NULL, PRIMARY KEY (id, id1)
) WITHOUT ROWID;
CREATE INDEX waiting_since ON waiting (since_ms);
CREATE TABLE sources (s INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
"""
SEGMENT = """
CREATE TABLE d_{n} (
    id INTEGER PRIMARY KEY, id1 INTEGER NOT NULL, t INTEGER NOT NULL, v INTEGER NOT NULL,
    entity INTEGER NOT NULL, raw INTEGER NOT NULL, score INTEGER NOT NULL, d INTEGER NOT NULL,
    s REAL, p REAL, label INTEGER, seen INTEGER, amount REAL, source INTEGER
)
"""

log = logging.getLogger(__name__)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file for writing; make it where it is not there, or cannot be read.

    Raises
    ------
    FeedbackError
        The directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _open(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and _is_of_the_disk(error):
            raise FeedbackError(
                f"decisions cannot be kept in {path}: {error}; the directory has to be writable "
                "and have space (setting feedback.directory)"
            ) from None
        aside = _set_aside(path)
        log.error(
            "the file of decisions %s cannot be read (%s): it is now %s, and another is begun; "
            "outcomes of the decisions in it will not be matched",
            path,
            error,
            aside.name,
        )
        return _open(path)
    except OSError as error:
        raise FeedbackError(
            f"decisions cannot be kept in {path.parent}: {error.strerror} (feedback.directory)"
        ) from None


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


def _is_of_the_disk(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorname.startswith(
        ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_BUSY")
    )


def _set_aside(path: Path) -> Path:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.damaged-{now}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside
