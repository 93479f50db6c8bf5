"""The generations of a batch table that are whole: which counts, which stay, which go.

Rules: whoever changes them holds the group's lock. Generations beyond those to keep are removed,
oldest first; never the current one, nor one that is newer than it (it was rolled back from). A
server that still reads a removed one keeps its map: the disk space is free when it lets go.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from fastpath.errors import StoreError
from fastpath.lmdb_file import read_meta
from server.errors import FeatureStoreError, InputError
from server.features.directory import DATA, batch_path, generations, read_current, write_current


def lock_group(directory: Path, group: str) -> int:
    """Lock a group's batch table for writing; return the descriptor that holds the lock."""
    base = batch_path(directory, group)
    try:
        base.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(base / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise FeatureStoreError(f"{base}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise FeatureStoreError(
            f"{base}: another load or rollback of group {group!r} is running: wait for it"
        ) from None
    return descriptor


def check_generation(path: Path) -> int:
    """Return the records of a whole generation; refuse a damaged one."""
    try:
        meta = read_meta(path)
    except StoreError as error:
        raise FeatureStoreError(str(error)) from error
    if meta.file_bytes < meta.needed_bytes:
        raise FeatureStoreError(
            f"{path / DATA} was cut: {meta.file_bytes} bytes of {meta.needed_bytes}"
        )
    return meta.n_records


def rollback(directory: Path, group: str, to: str | None = None) -> tuple[str | None, str]:
    """Switch a group to an earlier generation.

    Parameters
    ----------
    directory : path
    group : str
    to : str, optional
        The generation; None: the newest whole one that is older than the current.

    Returns
    -------
    (str or None, str)
        What was current, and what is now.

    Raises
    ------
    InputError
        There is no such generation.
    FeatureStoreError
        It is damaged, or a load is running.
    """
    known = generations(directory, group)
    if not known:
        raise InputError(f"group {group!r} has no batch table in {directory}")
    descriptor = lock_group(directory, group)
    try:
        before: str | None
        try:
            before = read_current(directory, group)
        except FeatureStoreError:
            before = None  # damaged: this is what mends it
        if to is None:
            older = [name for name in known if before is None or name < before]
            if not older:
                raise InputError(f"group {group!r}: no generation is older than {before}")
            to = older[-1]
        if to not in known:
            raise InputError(
                f"group {group!r} has no generation {to!r}; there are {', '.join(known)}"
            )
        check_generation(batch_path(directory, group) / to)
        write_current(directory, group, to)
    finally:
        os.close(descriptor)
    return before, to


def prune(directory: Path, group: str, keep: int) -> list[str]:
    """Remove the oldest generations beyond `keep`; return their names. Needs the group's lock."""
    current = read_current(directory, group) or ""
    known = [name for name in generations(directory, group) if name <= current]
    removed = [name for name in known[:-keep] if name != current]
    base = batch_path(directory, group)
    for name in removed:
        # Renamed first: whoever lists the directory sees whole generations only.
        aside = base / f".{name}.removed"
        (base / name).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    return removed
