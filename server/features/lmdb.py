"""Records of any group in the online LMDB environment, written while servers read it.

Rules: a batch is one transaction: it is stored whole and durably, or not at all; `write` counts
what is stored. Readers see a batch at once and never half of it. A batch is sorted by key, because
neighbours share pages: that halves the time and the pages written. One writer at a time: a second
one waits for the first one's transaction.

The map size is the most that the environment can grow to. It is fixed when the environment is made
(the file is sparse, so a large one costs nothing) and can be raised by any later writer; servers
follow. Full means MDB_MAP_FULL: the failing batch is rolled back, earlier ones stand.

Writers of several groups, also in several threads, may be open in one process: they share the
environment.

What it does not do: no removal; never run in the serving process, which has the environment open
already (LMDB may be opened once per process). Writer and servers have to share a PID
namespace, or LMDB takes a living reader for a dead one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpath.errors import StoreError
from fastpath.lmdb_file import read_meta
from server.errors import FeatureStoreError, InputError
from server.features.directory import DATA, online_path
from server.features.rows import as_bytes, pack_rows, sorted_items
from server.features.writer import FeatureWriter, Group

if TYPE_CHECKING:
    import lmdb

DEFAULT_MAP_BYTES = 16 << 30
MIN_MAP_BYTES = 1 << 20
DEFAULT_BATCH_SIZE = 100_000
# Slots for loop threads of all servers on the machine, and tools; 64 bytes each.
MAX_READERS = 512
_TIME = slice(8, 16)  # of a record: its event time


class LmdbFeatureWriter(FeatureWriter):
    """Writes records of one group into a store directory's online table.

    Parameters
    ----------
    directory : path
        The store directory; it and its online environment are created where they are missing.
    group : Group
    map_bytes : int or None
        Map size. None: what the environment has, or 16 GiB when it is created. An
        environment is never shrunk.
    batch_size : int
        Records per transaction.

    Raises
    ------
    InputError
        An argument is wrong, or py-lmdb is not installed.
    FeatureStoreError
        The environment is damaged, of another format, or cannot be written.
    """

    def __init__(
        self,
        directory: Path | str,
        group: Group,
        *,
        map_bytes: int | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it is 1 or more")
        if map_bytes is not None and map_bytes < MIN_MAP_BYTES:
            raise InputError(f"map_bytes is {map_bytes}; it is {MIN_MAP_BYTES} or more")
        self._path = online_path(Path(directory))
        self._group = group
        self._fingerprint = group.fingerprint
        self._batch_size = batch_size
        self._map_bytes = _map_bytes(self._path, map_bytes)
        self._env: lmdb.Environment | None = _open(self._path, self._map_bytes)

    def write(
        self,
        entity_ids: Sequence[str],
        event_time_ms: ArrayLike,
        values: ArrayLike,
        *,
        only_newer: bool = False,
    ) -> int:
        """Write a record per entity; of one that occurs more than once, the last counts.

        Parameters
        ----------
        entity_ids : sequence of str
            n ids of 1 to 256 bytes of UTF-8.
        event_time_ms : int64[n] or int
            As of when the values hold, in milliseconds since the epoch.
        values : float32[n, k]
            k is the number of the group's columns; NaN: no value.
        only_newer : bool
            Leave a stored record as it is where its event time is later.

        Returns
        -------
        int
            How many were written: n, but for those that `only_newer` left.

        Raises
        ------
        InputError
            Shapes, types or an id; nothing was written.
        FeatureStoreError
            The map or the disk is full, or LMDB failed; says how many were written before.
        """
        if self._env is None:
            raise FeatureStoreError(f"{self._path}: the writer is closed")
        keys, packed, times = pack_rows(
            self._group, self._fingerprint, entity_ids, event_time_ms, values
        )
        n_written = 0
        for start in range(0, len(keys), self._batch_size):
            some = slice(start, start + self._batch_size)
            try:
                if only_newer:
                    n_written += self._write_newer(keys[some], packed[some], times[some].tolist())
                else:
                    n_written += self._write_all(keys[some], packed[some])
            except Exception as error:
                import lmdb

                if not isinstance(error, lmdb.Error):
                    raise
                raise self._failure(error, n_written) from error
        return n_written

    def close(self) -> None:
        """Close the environment; closing twice is harmless."""
        if self._env is not None:
            self._env = None
            _release(self._path)

    def _write_all(self, keys: list[bytes], packed: NDArray[np.uint8]) -> int:
        assert self._env is not None
        with self._env.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(sorted_items(keys, packed))
        return len(keys)

    def _write_newer(self, keys: list[bytes], packed: NDArray[np.uint8], times: list[int]) -> int:
        assert self._env is not None
        records = as_bytes(packed)
        n_written = 0
        with self._env.begin(write=True) as txn:
            for i in sorted(range(len(keys)), key=keys.__getitem__):
                stored = txn.get(keys[i])
                if stored is not None and _event_time(stored) > times[i]:
                    continue
                txn.put(keys[i], records[i])
                n_written += 1
        return n_written

    def _failure(self, error: Exception, n_written: int) -> FeatureStoreError:
        import lmdb

        before = f"{n_written:,} records were written before it"
        if isinstance(error, lmdb.MapFullError):
            return FeatureStoreError(
                f"{self._path}: its map of {self._map_bytes} bytes is full; {before}: write again "
                f"with a larger one (--map-bytes {2 * self._map_bytes}, or "
                f"lmdb:DIR?map_bytes={2 * self._map_bytes}); servers follow by themselves"
            )
        return FeatureStoreError(
            f"{self._path}: {error}; {before}, the batch that failed was rolled back"
        )


def _event_time(record: bytes) -> int:
    """Return a record's time; of what is too short to be one a time before all others."""
    time = record[_TIME]
    return int.from_bytes(time, "little", signed=True) if len(time) == 8 else -(1 << 63)


def _map_bytes(path: Path, wanted: int | None) -> int:
    """Return the map size to open with: LMDB would shrink to what it is given."""
    if not (path / DATA).exists():
        return DEFAULT_MAP_BYTES if wanted is None else wanted
    try:
        return max(read_meta(path).map_bytes, wanted or 0)
    except StoreError as error:
        raise FeatureStoreError(str(error)) from error


# Environments that writers of this process have open, by real path, and how many do: writers of
# several groups share one, because LMDB must not be opened twice in a process.
_shared: dict[str, tuple[lmdb.Environment, int]] = {}
_shared_lock = threading.Lock()


def _open(path: Path, map_bytes: int) -> lmdb.Environment:
    """Open an environment, or take the one that another writer of this process has open."""
    name = os.path.realpath(path)
    with _shared_lock:
        env, n_users = _shared.get(name, (None, 0))
        if env is None:
            env = _open_first(path, map_bytes)
        elif env.info()["map_size"] < map_bytes:
            env.set_mapsize(map_bytes)
        _shared[name] = (env, n_users + 1)
        return env


def _release(path: Path) -> None:
    """Give an environment back; the last user closes it."""
    name = os.path.realpath(path)
    with _shared_lock:
        env, n_users = _shared.pop(name)
        if n_users > 1:
            _shared[name] = (env, n_users - 1)
        else:
            env.close()


def _open_first(path: Path, map_bytes: int) -> lmdb.Environment:
    try:
        import lmdb
    except ImportError:
        raise InputError(
            "writing to LMDB needs py-lmdb: pip install 'scoregate[features]'"
        ) from None
    try:
        path.mkdir(parents=True, exist_ok=True)
        env = lmdb.open(str(path), map_size=map_bytes, max_readers=MAX_READERS, readahead=False)
        env.reader_check()  # readers that were killed pin pages
    except OSError as error:
        raise FeatureStoreError(f"{path}: cannot be created: {error.strerror}") from error
    except lmdb.Error as error:
        raise FeatureStoreError(f"{path}: LMDB cannot open it: {error}") from error
    return env
