"""Loading a file of features into a table, so that it can be cut off and resumed.

Online: rows go in a transaction or pipeline at a time; after each, a small progress file says how
far the load came. It is written after the store has acknowledged, so a load that was killed repeats
at most one batch, which changes nothing. It lies in the store directory, or beside the input
where the store is a server, and is named after the file, the group and the store: another
file, or the same one changed, starts at its beginning.

Batch: see `batch`; a load that was killed goes on behind its last run, and what servers read
is switched at the end.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from server.errors import FeatureStoreError, InputError
from server.features.batch import DEFAULT_KEEP, BatchTableWriter
from server.features.directory import online_path, write_whole
from server.features.groups import Definition
from server.features.source import FeatureFile
from server.features.writer import open_writer, store_directory

DEFAULT_BATCH_SIZE = 100_000

# Called with (rows done, rows in all or None).
OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class LoadOptions:
    """What to load, and how."""

    definition: Definition
    store: str  # url, or a directory
    id_column: str | None = None
    time_column: str | None = None
    as_of_ms: int | None = None  # of rows without a time column; None: now
    batch_size: int = DEFAULT_BATCH_SIZE
    resume: bool = True
    only_newer: bool = False
    dry_run: bool = False
    map_bytes: int | None = None
    keep: int = DEFAULT_KEEP


@dataclass
class LoadReport:
    """What a load did."""

    group: str
    table: str
    store: str
    n_rows: int = 0  # of the file
    n_skipped: int = 0  # that an earlier, cut-off load had done
    n_written: int = 0  # records, by this load
    n_missing: int = 0  # values that are NaN
    n_unseen: int = 0  # texts that a vocabulary lacks
    seconds: float = 0.0
    generation: str = ""
    n_records: int | None = None  # of the generation
    per_s: float = field(default=0.0)


def load_online(path: Path, options: LoadOptions, on_progress: OnProgress) -> LoadReport:
    """Write every row of a file into the online table of a store.

    Raises
    ------
    InputError
        The file, a cell, the group or the store's URL; rows before it have been written.
    FeatureStoreError
        The store refused; a second call resumes.
    """
    group = options.definition.group
    if not group.online:
        raise InputError(f"group {group.name!r} has no online table: its schema says online: false")
    report = LoadReport(group.name, "online", options.store)
    began = time.monotonic()
    progress = _progress_path(path, options)
    state = _read_progress(progress) if options.resume else {}
    as_of_ms = state.get("as_of_ms", _as_of(options))
    file = _file(path, options, as_of_ms)
    report.n_skipped = report.n_rows = state.get("rows", 0)
    store = options.store
    directory = store_directory(store)
    if directory is not None and options.map_bytes is not None:
        store = f"lmdb:{directory}?map_bytes={options.map_bytes}"
    writer = None if options.dry_run else open_writer(store, group)
    try:
        for rows in file.read(options.batch_size, skip=report.n_skipped):
            if writer is not None:
                report.n_written += writer.write(
                    rows.entity_ids, rows.event_time_ms, rows.values, only_newer=options.only_newer
                )
            _count(report, rows.first + len(rows), rows.values, rows.n_unseen)
            if writer is not None:
                progress.parent.mkdir(exist_ok=True)
                write_whole(
                    progress, json.dumps({"rows": report.n_rows, "as_of_ms": as_of_ms}).encode()
                )
            on_progress(report.n_rows, file.n_rows)
    finally:
        if writer is not None:
            writer.close()
    if writer is not None:
        progress.unlink(missing_ok=True)
    return _timed(report, began)


def load_batch(path: Path, options: LoadOptions, on_progress: OnProgress) -> LoadReport:
    """Write every row of a file into a new generation of the group's batch table, and switch.

    Raises
    ------
    InputError
        The file, a cell or the group; nothing was switched.
    FeatureStoreError
        The directory or the disk; nothing was switched, a second call resumes.
    """
    group = options.definition.group
    directory = store_directory(options.store)
    if directory is None:
        raise InputError(
            f"store {options.store!r}: a batch table lies in a store directory: --store DIR"
        )
    if not group.batch:
        raise InputError(f"group {group.name!r} has no batch table: its schema says batch: false")
    if options.only_newer:
        raise InputError("a batch table is written whole: leave --only-newer out")
    report = LoadReport(group.name, "batch", str(directory))
    began = time.monotonic()
    file = _file(path, options, _as_of(options))
    if options.dry_run:
        for rows in file.read(options.batch_size):
            _count(report, rows.first + len(rows), rows.values, rows.n_unseen)
            on_progress(report.n_rows, file.n_rows)
        return _timed(report, began)
    source = _identity(path, options, str(directory.resolve())) if options.resume else ""
    with BatchTableWriter(directory, group, source=source, keep=options.keep) as writer:
        if options.as_of_ms is None:
            file.as_of_ms = writer.began_ms
        report.n_skipped = report.n_rows = writer.n_rows_done
        for rows in file.read(options.batch_size, skip=report.n_skipped):
            report.n_written += writer.write(rows.entity_ids, rows.event_time_ms, rows.values)
            _count(report, rows.first + len(rows), rows.values, rows.n_unseen)
            on_progress(report.n_rows, file.n_rows)
        if report.n_rows == 0:
            raise InputError(f"{path}: it has no rows; an empty batch table is not switched to")
        report.n_records = writer.commit()
        report.generation = writer.generation
    return _timed(report, began)


def _file(path: Path, options: LoadOptions, as_of_ms: int) -> FeatureFile:
    return FeatureFile(
        path,
        options.definition,
        id_column=options.id_column,
        time_column=options.time_column,
        as_of_ms=as_of_ms,
    )


def _as_of(options: LoadOptions) -> int:
    return time.time_ns() // 1_000_000 if options.as_of_ms is None else options.as_of_ms


def _count(report: LoadReport, n_rows: int, values: object, n_unseen: int) -> None:
    import numpy as np

    report.n_rows = n_rows
    report.n_missing += int(np.isnan(np.asarray(values)).sum())
    report.n_unseen += n_unseen


def _timed(report: LoadReport, began: float) -> LoadReport:
    report.seconds = time.monotonic() - began
    report.per_s = (report.n_rows - report.n_skipped) / max(report.seconds, 1e-9)
    return report


def _identity(path: Path, options: LoadOptions, store: str) -> str:
    """Return what makes a load the same one: the file, and what becomes of its rows."""
    from server.features.source import file_fingerprint

    parts = (
        file_fingerprint(path),
        f"{options.definition.group.fingerprint:016x}",
        repr(options.definition.vocabularies),
        store,
        repr((options.id_column, options.time_column, options.as_of_ms, options.only_newer)),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _progress_path(path: Path, options: LoadOptions) -> Path:
    directory = store_directory(options.store)
    if directory is None:
        return path.with_name(f".{path.name}.load-{_identity(path, options, options.store)}.json")
    name = _identity(path, options, str(directory.resolve()))
    return online_path(directory) / ".loads" / f"{name}.json"


def _read_progress(path: Path) -> dict[str, int]:
    try:
        state = json.loads(path.read_bytes())
        return {"rows": int(state["rows"]), "as_of_ms": int(state["as_of_ms"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FeatureStoreError(
            f"{path}: the progress of a cut-off load cannot be read ({error}): --restart"
        ) from error
