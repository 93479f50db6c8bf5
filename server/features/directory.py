"""The store directory: which file is where, which generation counts, and how names are switched.

Layout
------
::

    DIR/online/                             LMDB: data.mdb, lock.mdb; all groups
    DIR/online/.loads/                      progress of loads that were cut off
    DIR/batch/GROUP/GENERATION/data.mdb     LMDB, immutable
    DIR/batch/GROUP/current                 text: the generation that counts, and a newline
    DIR/batch/GROUP/.GENERATION.partial/    a generation that is being written
    DIR/batch/GROUP/.lock                   held (flock) by whoever writes the group's table

A generation's name is its UTC time and a counter, "20260102T030405-000": names sort by age.
Only the standard library: the serving process and every tool read the directory through this.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

from server.errors import FeatureStoreError

GENERATION = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9]{3}")
CURRENT = "current"
DATA = "data.mdb"


def online_path(directory: Path) -> Path:
    """Return the directory of the online table."""
    return directory / "online"


def batch_path(directory: Path, group: str) -> Path:
    """Return the directory of a group's batch table."""
    return directory / "batch" / group


def batch_groups(directory: Path) -> list[str]:
    """Return the groups that have a batch directory, sorted."""
    try:
        found = [entry.name for entry in (directory / "batch").iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FeatureStoreError(f"{directory}/batch: cannot be read: {error.strerror}") from error
    return sorted(name for name in found if not name.startswith("."))


def generations(directory: Path, group: str) -> list[str]:
    """Return the whole generations of a group, oldest first."""
    try:
        entries = list(batch_path(directory, group).iterdir())
    except FileNotFoundError:
        return []
    return sorted(entry.name for entry in entries if GENERATION.fullmatch(entry.name))


def read_current(directory: Path, group: str) -> str | None:
    """Return the generation that counts; None: there is none yet.

    Raises
    ------
    FeatureStoreError
        The file cannot be read, or does not hold a generation's name.
    """
    path = batch_path(directory, group) / CURRENT
    try:
        with path.open("rb") as file:
            data = file.read(256)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FeatureStoreError(f"{path}: cannot be read: {error.strerror}") from error
    name = data.decode("utf-8", "replace").removesuffix("\n")
    if not GENERATION.fullmatch(name):
        raise FeatureStoreError(
            f"{path}: {name[:40]!r} is no generation: mend it with `scoregate features rollback "
            f"{group}`"
        )
    return name


def write_current(directory: Path, group: str, generation: str) -> None:
    """Switch a group's batch table, at once and durably."""
    write_whole(batch_path(directory, group) / CURRENT, f"{generation}\n".encode())


def next_generation(directory: Path, group: str) -> str:
    """Return a name that sorts behind all others of the group; its lock is held."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    try:
        names = [entry.name for entry in batch_path(directory, group).iterdir()]
    except FileNotFoundError:
        names = []
    found = [match.group() for name in names if (match := GENERATION.search(name))]
    newest = max(found, default="")
    if newest < f"{stamp}-000":
        return f"{stamp}-000"
    # The clock went back, or two loads within a second.
    stamp, counter = newest.split("-")
    return f"{stamp}-{int(counter) + 1:03d}"


def created(generation: str) -> datetime:
    """Return when a generation was begun."""
    return datetime.strptime(generation[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file aside, fsync it, rename it into place, fsync its directory."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make what was renamed in a directory last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
