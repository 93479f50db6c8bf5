"""`scoregate journal`: the history on disk, read, or moved aside, without a server.

Nothing is written to the journal, whether a server has it open or not: what is read is a snapshot
that SQLite takes of it, in a temporary directory. What is damaged is moved only when somebody says
so, and kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.lines import utc
from server.errors import InputError, JournalError
from server.rollout.database import (
    MAGIC,
    DamagedJournalError,
    beside,
    explained,
    looks_like_journal,
)

if TYPE_CHECKING:
    from server.rollout.entry import Entry
    from server.rollout.journal import Journal

WHERE = "it is <repository>/.scoregate/journal.db"
file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def journal() -> None:
    """Export, verify or set aside the journal of changes: <repository>/.scoregate/journal.db.

    On the file itself, beside a running server or without one.
    """


@journal.command()
@file_argument
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write there, aside and renamed.  [default: standard output]",
)
def export(file: Path, out: Path | None) -> None:
    """Write the whole journal in FILE as JSON lines, the oldest change first.

    \b
    scoregate journal export repository/.scoregate/journal.db --out changes.jsonl
    scoregate journal verify changes.jsonl

    Each line is one change: who, why, when, arguments, and all that was in force after it, with
    the bucket tables; and a digest over it and the line before. Exit codes: 0 done; 2 FILE is
    no journal; 1 it is damaged.
    """  # noqa: D301 - click looks for the backspace character itself
    with _snapshot(file) as opened:
        if out is None:
            opened.export(sys.stdout)
            return
        aside = out.with_name(f".{out.name}.new")
        try:
            with aside.open("w", encoding="utf-8") as stream:
                n_changes = opened.export(stream)
            aside.rename(out)
        except OSError as error:
            raise InputError(f"{out}: cannot be written: {error.strerror}") from None
        finally:
            aside.unlink(missing_ok=True)
    click.echo(f"{out}: {n_changes:,} changes")


@journal.command()
@file_argument
def verify(file: Path) -> None:
    """Check that FILE, a journal or an export of one, is whole and was not altered.

    \b
    scoregate journal verify repository/.scoregate/journal.db

    Every change is chained to the one before by a digest, so what was altered or is missing between
    two changes is found; a journal that lost its end is a shorter one. Exit codes: 0 whole; 2 FILE
    is no journal; 1 it is damaged.
    """  # noqa: D301 - as above
    if _is_database(file):
        with _snapshot(file) as opened:
            n_changes = opened.verify()
            last = opened.last()
    else:
        n_changes, last = _verify_export(file)
    newest = (
        ""
        if last is None
        else f"; the newest: {last.verb}, generation {last.generation}, "
        f"by {last.who}, {utc(last.time_ms)}"
    )
    click.echo(f"{file}: ok: {n_changes:,} changes{newest}")


@journal.command(name="set-aside")
@file_argument
@click.option("--force", is_flag=True, help="Even one that is whole.")
def set_aside(file: Path, force: bool) -> None:
    """Move FILE, a damaged journal, out of a server's way; nothing of it is lost.

    \b
    scoregate journal set-aside repository/.scoregate/journal.db

    Its server has to be stopped. A journal that is whole is only moved with --force.

    Exit codes: 0 done; 2 FILE is no journal, or whole; 1 a server has it open, or it cannot be
    moved.
    """  # noqa: D301 - as above
    from server.rollout.journal import set_aside as move

    if not (file.exists() or beside(file, "-wal").exists()):
        raise InputError(f"{file}: nothing there; {WHERE}")
    if not looks_like_journal(file):
        raise InputError(f"{file}: not a journal; {WHERE}")

    def check() -> None:
        if not force and not _is_damaged(file):
            raise InputError(
                f"journal {file} is whole: a server can start with it. Give --force to start "
                "without it all the same"
            )

    moved = move(file, check)
    click.echo(f"{file}: moved aside, to {moved[0]}")
    for other in moved[1:]:
        click.echo(f"  with it: {other.name}")
    click.echo(
        "The next start finds no history: each model serves its newest version, or the one that "
        "the\nsettings name, with all of its traffic and the bundle's own thresholds. What splits, "
        "overrides and\nlabels there were is not resumed: set them again."
    )


def _is_damaged(file: Path) -> bool:
    """Read a journal whole; JournalError where nobody can say."""
    try:
        with file.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                return True
    except FileNotFoundError:
        return True  # only its log is there
    except OSError as error:
        raise JournalError(f"{file}: cannot be read: {error.strerror}") from None
    try:
        with _snapshot(file) as opened:
            opened.verify()
    except DamagedJournalError:
        return True
    return False


def _is_database(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            start = stream.read(len(MAGIC))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    if start == MAGIC:
        return True
    if start[:1] == b"{" or not start:
        return False
    raise InputError(f"{file}: neither a journal nor an export of one")


def _verify_export(file: Path) -> tuple[int, Entry | None]:
    from server.rollout.entry import read_export

    n_changes, last = 0, None
    try:
        with file.open(encoding="utf-8") as lines:
            for n_changes, last in enumerate(read_export(lines), 1):  # noqa: B007 - the last
                pass
    except JournalError as error:
        raise JournalError(f"{file}: {error}") from None
    except UnicodeDecodeError:
        raise JournalError(f"{file}: line {n_changes + 1} is not UTF-8") from None
    return n_changes, last


@contextmanager
def _snapshot(file: Path) -> Iterator[Journal]:
    """Open a copy of a journal as it is now; the journal itself stays untouched."""
    import sqlite3
    import tempfile

    from server.rollout.journal import Journal

    if not _is_database(file):
        raise InputError(f"{file}: not a journal; {WHERE}")
    with tempfile.TemporaryDirectory(prefix="scoregate-journal-") as folder:
        copy = Path(folder, "journal.db")
        uri = f"{file.resolve().as_uri()}?mode=ro"
        with (
            explained(file, "it cannot be read"),
            closing(sqlite3.connect(uri, uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        try:
            with Journal(copy) as opened:
                yield opened
        except JournalError as error:
            # People know the journal by its own name.
            raise type(error)(str(error).replace(str(copy.resolve()), str(file))) from None
