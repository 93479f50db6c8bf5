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
from dataclasses import dataclass
from pathlib import Path

from fastpath.batch_lmdb import LmdbBatchTable
from fastpath.store import OnlineStore
from fastpath.store_lmdb import LmdbEnvironment
from server.config import FeatureSettings, RedisSettings
from server.errors import StartError
from server.features.tables import BatchTables

MAX_COOL_OFF_FACTOR = 10
BREAKER_STATES = ("closed", "half_open", "open")
# What to do about reads that an open LMDB environment fails, by cause.
ADVICE = {
    "readers_full": "its reader table is full: stop other readers, or create it with more "
    "(max_readers)",
    "corrupt": "its data file is damaged: restore or load it again",
    "map_resized": "it grew beyond its map: it is being opened anew",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreReport:
    """One table of stored features, as this server sees it now."""

    table: str  # "online" or "batch"
    kind: str  # "lmdb" or "redis"
    address: str
    state: str  # "ok", "degraded" or "unavailable"
    detail: str = ""  # what is wrong, and what to do
    group: str = ""  # batch tables
    generation: str = ""
    n_records: int = 0


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
        self._reads: Mapping[str, int] = {}  # of LMDB, at the last look that saw any
        self._failing = ("ok", "")  # since the look before it
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
        reports = [] if self.kind == "none" else [self._report_online()]
        for group, table in sorted(self.batch.items()):
            reports.append(
                StoreReport(
                    table="batch",
                    kind="lmdb",
                    address=str(table.path),
                    state="ok",
                    group=group,
                    generation=table.generation,
                    n_records=table.n_records,
                )
            )
        if self._tables is not None:
            for group, error in sorted(self._tables.errors.items()):
                reports.append(
                    StoreReport("batch", "lmdb", self._features.directory, "degraded", error, group)
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
                self._look_at_reads()
            except Exception:
                # The next look may succeed; what serves, serves.
                log.exception("the feature stores could not be looked after")

    def _look_at_reads(self) -> None:
        """Note how the reads of an open LMDB environment ended since the last look that saw any."""
        if self._environment is None:
            return
        reads = self._environment.stats()
        new = {name: total - self._reads.get(name, 0) for name, total in reads.items()}
        # A closed one is told by its trouble.
        n_reads = new["gets"] - new["failed_closed"]
        if n_reads <= 0:
            return
        self._reads = reads
        failed = {
            name.removeprefix("failed_"): n_failed
            for name, n_failed in new.items()
            if name.startswith("failed_") and name != "failed_closed" and n_failed > 0
        }
        if not failed:
            self._failing = ("ok", "")
            return
        n_failed = sum(failed.values())
        told = [f"of the last {n_reads} reads {n_failed} failed: {', '.join(failed)}"]
        told += [ADVICE[cause] for cause in failed if cause in ADVICE]
        self._failing = ("unavailable" if n_failed >= n_reads else "degraded", "; ".join(told))

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

    def _report_online(self) -> StoreReport:
        if self._environment is not None:
            return self._report_lmdb(self._environment)
        loops = self.stats()
        lost = [
            store for store, loop in zip(self.online, loops, strict=True) if not loop["connected"]
        ]
        breakers = {BREAKER_STATES[loop["breaker_state"]] for loop in loops} - {"closed"}
        troubles = []
        if lost:
            troubles.append(f"{len(lost)} of {len(loops)} loops have no connection")
            troubles += sorted({_last_error(store) for store in lost} - {""})
        if breakers:
            troubles.append(f"circuit breaker {' and '.join(sorted(breakers))}: reads fail")
        usable = [
            loop
            for loop in loops
            if (loop["connected"] or loop["replica_connected"]) and loop["breaker_state"] == 0
        ]
        if lost and any(loop["replica_connected"] for loop in loops):
            troubles.append(f"the replica {self._redis.replica} is asked instead")
        state = "ok" if not troubles else "degraded" if usable else "unavailable"
        return StoreReport("online", "redis", self._redis.address, state, "; ".join(troubles))

    def _report_lmdb(self, environment: LmdbEnvironment) -> StoreReport:
        state, detail = self._failing
        if environment.trouble:
            # Deleted, say, and still mapped: worse than well, better than nothing.
            state = "degraded" if environment.is_open and state == "ok" else "unavailable"
            detail = environment.trouble
        return StoreReport("online", "lmdb", environment.path, state, detail)


def _last_error(store: OnlineStore | None) -> str:
    """Return why a Redis store has no connection."""
    return str(getattr(store, "last_error", ""))


def _read_password(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"redis.password_file {path}: cannot be read: {error}") from None
