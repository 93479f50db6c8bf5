"""The stores of features that this process reads, and the thread that looks after them.

Rules: the online store is opened once, with one view per loop thread. A batch table is one
immutable generation; a new one is a new plan, so a thread looks for new generations now and then
and asks for a plan when it finds one. Nothing here can keep the server from starting, except a
setting that cannot be right: a store that is missing, damaged or unreachable is reported, its
features fall back, and it is tried again.

What it does not do: write. Writers are other processes (`server.features`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastpath.batch_lmdb import LmdbBatchTable
from fastpath.store import OnlineStore
from fastpath.store_lmdb import LmdbEnvironment
from server.config import FeatureSettings, RedisSettings
from server.errors import StartError
from server.features.tables import BatchTables
from server.store_report import (
    ReadWatch,
    StoreReport,
    batch_damage,
    report_batch,
    report_lmdb,
    report_redis,
)

MAX_COOL_OFF_FACTOR = 10
log = logging.getLogger(__name__)


class FeatureStores:
    """Online stores and batch tables of one process.

    Parameters
    ----------
    features, redis
        Checked settings.
    n_threads
        Loop threads that will read.

    Raises
    ------
    StartError
        A file that a setting names cannot be read.
    """

    def __init__(self, features: FeatureSettings, redis: RedisSettings, n_threads: int) -> None:
        self._features = features
        self._redis = redis
        self._environment: LmdbEnvironment | None = None
        self._tables: BatchTables | None = None
        self._lmdb_reads = ReadWatch()
        self._damage: Mapping[str, str] = {}  # of the batch tables that serve, by group
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        if features.directory:
            self._tables = BatchTables(Path(features.directory), n_threads)
            self._tables.refresh()
        self.online: Sequence[OnlineStore | None] = self._open_online(n_threads)

    @property
    def batch(self) -> Mapping[str, LmdbBatchTable]:
        """The newest batch table of every group; a plan holds what it was made with."""
        return {} if self._tables is None else self._tables.tables

    @property
    def kind(self) -> str:
        """What holds the online records: "none", "lmdb" or "redis"."""
        return self._features.online

    def start(self, on_new_tables: Callable[[], None]) -> None:
        """Begin to look for new batch generations and for stores that were missing.

        Parameters
        ----------
        on_new_tables
            Called, on the thread, when `batch` has changed: publish a new plan.
        """
        if not self._features.directory:
            return
        self._thread = threading.Thread(
            target=self._watch, args=(on_new_tables,), name="scoregate-stores", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def stats(self) -> list[dict[str, int]]:
        """Return the online store's counters, one dict per loop; see the store for the names."""
        return [{} if store is None else store.stats() for store in self.online]

    def reports(self) -> list[StoreReport]:
        """Return the state of every table."""
        reports = []
        if self._environment is not None:
            reports.append(report_lmdb(self._environment, self._lmdb_reads))
        elif self.kind == "redis":
            reports.append(report_redis(self._redis.address, self._redis.replica, self.online))
        tables, errors = self.batch, {} if self._tables is None else self._tables.errors
        for group in sorted({*tables, *errors}):
            trouble = errors.get(group) or self._damage.get(group, "")
            reports.append(
                report_batch(self._features.directory, group, tables.get(group), trouble)
            )
        return reports

    def _watch(self, on_new_tables: Callable[[], None]) -> None:
        is_new = False  # until a plan was made of them: a failure is tried again
        while not self._stopping.wait(self._features.poll_s):
            try:
                is_new |= self._tables is not None and self._tables.refresh()
                if is_new:
                    on_new_tables()
                    is_new = False
                if self._environment is not None and self._environment.refresh():
                    log.info(
                        "online store %s: %s",
                        self._environment.path,
                        self._environment.trouble or "open",
                    )
                if self._environment is not None:
                    self._lmdb_reads.look(self._environment.stats())
                self._look_at_files()
            except Exception:
                # The next look may succeed; what serves, serves.
                log.exception("the feature stores could not be looked after")

    def _look_at_files(self) -> None:
        """Note which batch tables were cut or deleted under the readers: nothing else would."""
        damage = {group: batch_damage(table) for group, table in self.batch.items()}
        self._damage = {group: text for group, text in damage.items() if text}

    def _open_online(self, n_threads: int) -> list[OnlineStore | None]:
        if self.kind == "none":
            return [None] * n_threads
        if self.kind == "redis":
            return [self._open_redis(thread) for thread in range(n_threads)]
        path = Path(self._features.directory) / "online"
        self._environment = LmdbEnvironment(str(path), required=False)
        if self._environment.trouble:
            log.warning("online store %s; its features fall back", self._environment.trouble)
        return [self._environment.store() for _ in range(n_threads)]

    def _open_redis(self, thread: int) -> OnlineStore:
        # Only here: without Redis its libraries are not loaded.
        from fastpath.redis_options import BreakerSpec, RedisTls
        from fastpath.store_redis import RedisStore

        settings = self._redis
        tls = None
        if settings.tls:
            tls = RedisTls(
                ca_file=settings.tls_ca_file,
                certificate_file=settings.tls_certificate_file,
                key_file=settings.tls_key_file,
                server_name=settings.tls_server_name,
            )
        return RedisStore(
            settings.address,
            replica=settings.replica,
            username=settings.username,
            password=_read_password(settings.password_file),
            database=settings.database,
            key_prefix=settings.key_prefix,
            tls=tls,
            connect_timeout_ms=settings.connect_timeout_ms,
            stall_us=settings.stall_us,
            hedge_after_us=settings.hedge_after_us,
            cache_bytes=settings.cache_bytes,
            cache_ttl_ms=settings.cache_ttl_ms,
            breaker=BreakerSpec(
                window_ms=settings.breaker_window_ms,
                min_reads=settings.breaker_min_reads,
                failure_share=settings.breaker_failure_share,
                cool_off_ms=settings.breaker_cool_off_ms,
                max_cool_off_ms=MAX_COOL_OFF_FACTOR * settings.breaker_cool_off_ms,
            ),
        )


def _read_password(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"redis.password_file {path}: cannot be read: {error}") from None
