"""A new generation of one group's batch table: written aside, then switched, whole or not at all.

How it works: rows are collected up to `run_records` at a time, sorted by key and appended to an
LMDB environment, a *run*: appending sorted keys fills every page, which random inserts leave half
empty. `commit` merges the runs where there are several, copies the result compactly into the
generation's directory, fsyncs, renames, and switches `current`. Of an entity that occurs more than
once the last row counts. Old generations beyond `keep` are removed; never the current one, nor
one that is newer than it.

Resuming: a whole run is durable and says how many rows of its input it covers, so a load
that was cut off goes on behind its last run. One writer per group: the directory is locked.
"""

from __future__ import annotations

import heapq
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpath.errors import StoreError
from fastpath.lmdb_file import read_meta
from server.errors import FeatureStoreError, InputError
from server.features.directory import (
    DATA,
    batch_path,
    generations,
    next_generation,
    sync_directory,
    write_current,
    write_whole,
)
from server.features.generations import check_generation, lock_group, prune
from server.features.rows import pack_rows, sorted_items
from server.features.writer import FeatureWriter, Group

if TYPE_CHECKING:
    import lmdb

DEFAULT_KEEP = 3
DEFAULT_RUN_RECORDS = 2_000_000
# Sparse, and copied compactly afterwards.
_MAP_BYTES = 1 << 40
_MIN_MAP_BYTES = 1 << 20
_STATE = "state.json"
_PARTIAL = ".partial"


class BatchTableWriter(FeatureWriter):
    """Writes one generation; nothing is visible before `commit`.

    Parameters
    ----------
    directory : path
        The store directory; created where it is missing.
    group : Group
    source : str
        What the rows come from (a fingerprint). A generation of the same source that was cut off is
        resumed: see `n_rows_done`. Empty: never.
    keep : int
        Generations to keep, the new one included.
    run_records : int
        Rows in memory at a time.

    Attributes
    ----------
    generation : str
    n_rows_done : int
        Rows that earlier runs cover: the caller goes on behind them.
    began_ms : int
        When the generation was begun, kept by a resumption: the time of rows that have none.

    Raises
    ------
    InputError
        An argument is wrong, or py-lmdb is not installed.
    FeatureStoreError
        Another load of the group is running, or the directory cannot be written.
    """

    def __init__(
        self,
        directory: Path | str,
        group: Group,
        *,
        source: str = "",
        keep: int = DEFAULT_KEEP,
        run_records: int = DEFAULT_RUN_RECORDS,
    ) -> None:
        if keep < 1 or run_records < 1:
            raise InputError(f"keep {keep} or run_records {run_records} is below 1")
        self._lmdb = import_lmdb()
        self._directory, self._group, self._keep = Path(directory), group, keep
        self._fingerprint = group.fingerprint
        self._run_records = run_records
        self._base = batch_path(self._directory, group.name)
        self._lock = lock_group(self._directory, group.name)
        self._keys: list[bytes] = []
        self._packed: list[NDArray[np.uint8]] = []
        self.n_rows_done = 0
        self.began_ms = time.time_ns() // 1_000_000
        self._runs: list[str] = []
        found = self._resume(source) if source else None
        self.generation = found or next_generation(self._directory, group.name)
        self._partial = self._base / f".{self.generation}{_PARTIAL}"
        self._source = source
        if found is None:
            self._partial.mkdir()
            self._save_state()
        self._remove_partials(but=self._partial)

    def write(
        self,
        entity_ids: Sequence[str],
        event_time_ms: ArrayLike,
        values: ArrayLike,
        *,
        only_newer: bool = False,
    ) -> int:
        """Add rows to the generation; return their number.

        Parameters are those of `LmdbFeatureWriter.write`; a generation starts empty, so there is
        nothing that `only_newer` could leave, and it is refused.
        """
        if only_newer:
            raise InputError("a batch table is written whole: only_newer makes no sense for it")
        keys, packed, _ = pack_rows(
            self._group, self._fingerprint, entity_ids, event_time_ms, values
        )
        for start in range(0, len(keys), self._run_records):
            self._keys += keys[start : start + self._run_records]
            self._packed.append(packed[start : start + self._run_records])
            if len(self._keys) >= self._run_records:
                self._write_run()
        return len(keys)

    def commit(self) -> int:
        """Finish the generation and switch the group to it.

        Returns
        -------
        int
            Records of the generation: one per entity.
        """
        if self._keys or not self._runs:
            self._write_run()
        source = self._partial / self._runs[0]
        if len(self._runs) > 1:
            source = self._partial / "merged"
            shutil.rmtree(source, ignore_errors=True)
            self._append(source, _merged([self._partial / run for run in self._runs]))
        whole = self._partial / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        # The copy takes over the map size of this environment: little more than it needs.
        map_bytes = (source / DATA).stat().st_size + _MIN_MAP_BYTES
        with _failures(self._base), self._open(source, map_bytes=map_bytes, readonly=True) as env:
            env.copy(str(whole), compact=True)
        descriptor = os.open(whole / DATA, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(whole)
        n_records = check_generation(whole)
        whole.rename(self._base / self.generation)
        sync_directory(self._base)
        write_current(self._directory, self._group.name, self.generation)
        shutil.rmtree(self._partial)
        prune(self._directory, self._group.name, self._keep)
        self.close()
        return n_records

    def close(self) -> None:
        """Let go of the group. What was not committed stays aside, to be resumed or replaced."""
        self._keys, self._packed = [], []
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _resume(self, source: str) -> str | None:
        """Take up what an earlier load of the same source left; return its generation."""
        for partial in sorted(self._base.glob(f".*{_PARTIAL}"), reverse=True):
            try:
                state = json.loads((partial / _STATE).read_text())
                same = state["source"] == source and state["layout"] == self._fingerprint
                runs = [str(run) for run in state["runs"]]
                for run in runs:
                    read_meta(partial / run)
            except (OSError, ValueError, KeyError, TypeError, StoreError):
                continue
            if same and partial.name[1 : -len(_PARTIAL)] not in generations(
                self._directory, self._group.name
            ):
                self._runs, self.n_rows_done = runs, int(state["rows"])
                self.began_ms = int(state["began_ms"])
                return partial.name[1 : -len(_PARTIAL)]
        return None

    def _remove_partials(self, but: Path) -> None:
        for partial in self._base.glob(f".*{_PARTIAL}"):
            if partial != but:
                shutil.rmtree(partial, ignore_errors=True)

    def _write_run(self) -> None:
        name = f"run-{len(self._runs):04d}"
        n_rows = len(self._keys)
        items = sorted_items(self._keys, np.concatenate(self._packed)) if n_rows else []
        run = self._partial / name
        shutil.rmtree(run, ignore_errors=True)
        self._append(run, items)
        self._runs.append(name)
        self.n_rows_done += n_rows
        self._keys, self._packed = [], []
        self._save_state()

    def _append(self, path: Path, items: Any) -> None:
        """Write sorted items into a new environment, durably."""
        path.mkdir()
        with _failures(self._base), self._open(path) as env:
            with env.begin(write=True) as txn, txn.cursor() as cursor:
                cursor.putmulti(items, append=True)
            env.sync(True)

    def _open(
        self, path: Path, *, map_bytes: int = _MAP_BYTES, readonly: bool = False
    ) -> lmdb.Environment:
        env: lmdb.Environment = self._lmdb.open(
            str(path), map_size=map_bytes, readonly=readonly, sync=False, lock=False
        )
        return env

    def _save_state(self) -> None:
        state = {
            "source": self._source,
            "layout": self._fingerprint,
            "rows": self.n_rows_done,
            "runs": self._runs,
            "began_ms": self.began_ms,
        }
        write_whole(self._partial / _STATE, json.dumps(state).encode())


def import_lmdb() -> Any:
    """Return py-lmdb, or say how to get it."""
    try:
        import lmdb
    except ImportError:
        raise InputError(
            "writing to LMDB needs py-lmdb: pip install 'scoregate[features]'"
        ) from None
    return lmdb


class _failures:  # noqa: N801 - reads as a statement
    """Turns LMDB's errors and a full disk into ours."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import lmdb

        if isinstance(error, lmdb.Error | OSError):
            raise FeatureStoreError(
                f"{self._base}: {error}: nothing was switched; the load can be resumed"
            ) from error


def _merged(runs: Sequence[Path]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the items of several runs in key order; of equal keys that of the last run."""
    import lmdb

    envs = [lmdb.open(str(run), readonly=True, lock=False) for run in runs]
    try:
        streams = [_items(env, -index) for index, env in enumerate(envs)]
        previous = None
        for key, _, record in heapq.merge(*streams):
            if key != previous:
                yield key, record
            previous = key
    finally:
        for env in envs:
            env.close()


def _items(env: lmdb.Environment, rank: int) -> Iterator[tuple[bytes, int, bytes]]:
    with env.begin() as txn, txn.cursor() as cursor:
        for key, record in cursor:
            yield key, rank, record
