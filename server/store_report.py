"""How the stores of features are, in words: what GetStatus and /metrics say of them.

Rules: "ok", "degraded" where some reads still succeed, "unavailable" where every read falls back.
A trouble is told with its cause and with what to do. What is said of reads is said of the last ones
that there were: without any nothing is learnt.

Reads counters and file heads; opens, closes and mends nothing (`stores` does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastpath.batch_lmdb import LmdbBatchTable
from fastpath.errors import StoreError
from fastpath.lmdb_file import read_meta
from fastpath.store import OnlineStore
from fastpath.store_lmdb import LmdbEnvironment
from server.features.directory import DATA

BREAKER_STATES = ("closed", "half_open", "open")
# What to do about reads that an open LMDB environment fails, by cause.
ADVICE = {
    "readers_full": "its reader table is full: stop other readers, or create it with more "
    "(max_readers)",
    "corrupt": "its data file is damaged: restore or load it again",
    "map_resized": "it grew beyond its map: it is being opened anew",
}


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


class ReadWatch:
    """How the reads of an open LMDB environment end, from its counters, look by look."""

    def __init__(self) -> None:
        self._seen: Mapping[str, int] = {}
        self.state = "ok"
        self.detail = ""

    def look(self, counters: Mapping[str, int]) -> None:
        """Compare with the last look that saw any reads; `counters` are the environment's."""
        new = {name: total - self._seen.get(name, 0) for name, total in counters.items()}
        # A closed one is told by its trouble.
        n_reads = new["gets"] - new["failed_closed"]
        if n_reads <= 0:
            return
        self._seen = counters
        failed = {
            name.removeprefix("failed_"): n_failed
            for name, n_failed in new.items()
            if name.startswith("failed_") and name != "failed_closed" and n_failed > 0
        }
        if not failed:
            self.state, self.detail = "ok", ""
            return
        n_failed = sum(failed.values())
        told = [f"of the last {n_reads} reads {n_failed} failed: {', '.join(failed)}"]
        told += [ADVICE[cause] for cause in failed if cause in ADVICE]
        self.state = "unavailable" if n_failed >= n_reads else "degraded"
        self.detail = "; ".join(told)


def report_lmdb(environment: LmdbEnvironment, reads: ReadWatch) -> StoreReport:
    """Return the state of the embedded online table."""
    state, detail = reads.state, reads.detail
    if environment.trouble:
        # Deleted, say, and still mapped: worse than well, better than nothing.
        state = "degraded" if environment.is_open and state == "ok" else "unavailable"
        detail = environment.trouble
    return StoreReport("online", "lmdb", environment.path, state, detail)


def report_redis(address: str, replica: str, stores: Sequence[OnlineStore | None]) -> StoreReport:
    """Return the state of a Redis, as the loops' stores have it."""
    loops = [store.stats() for store in stores if store is not None]
    lost = [store for store, loop in zip(stores, loops, strict=True) if not loop["connected"]]
    breakers = {BREAKER_STATES[loop["breaker_state"]] for loop in loops} - {"closed"}
    troubles = []
    if lost:
        troubles.append(f"{len(lost)} of {len(loops)} loops have no connection")
        troubles += sorted({_last_error(store) for store in lost} - {""})
    if lost and any(loop["replica_connected"] for loop in loops):
        troubles.append(f"the replica {replica} is asked instead")
    if breakers:
        troubles.append(f"circuit breaker {' and '.join(sorted(breakers))}: reads fail")
    usable = [
        loop
        for loop in loops
        if (loop["connected"] or loop["replica_connected"]) and loop["breaker_state"] == 0
    ]
    state = "ok" if not troubles else "degraded" if usable else "unavailable"
    return StoreReport("online", "redis", address, state, "; ".join(troubles))


def report_batch(
    directory: str, group: str, table: LmdbBatchTable | None, trouble: str
) -> StoreReport:
    """Return the state of a group's batch table; None: there is none to serve from."""
    if table is None:
        return StoreReport("batch", "lmdb", directory, "unavailable", trouble, group)
    return StoreReport(
        table="batch",
        kind="lmdb",
        address=str(table.path),
        state="degraded" if trouble else "ok",
        detail=trouble,
        group=group,
        generation=table.generation,
        n_records=table.n_records,
    )


def batch_damage(table: LmdbBatchTable) -> str:
    """Return what has become of a batch table's file since it was opened; empty: nothing."""
    mend = "load the table again, or roll back to another generation"
    try:
        meta = read_meta(Path(table.path))
    except StoreError as error:
        if not Path(table.path, DATA).exists():
            return f"{table.path} was deleted: its last state is served; {mend}"
        return f"{error}; {mend}"
    if meta.file_bytes < meta.needed_bytes:
        return (
            f"{table.path}/{DATA} was cut: {meta.file_bytes} bytes of {meta.needed_bytes}; reads "
            f"of the rest fail: {mend}"
        )
    return ""


def _last_error(store: OnlineStore | None) -> str:
    """Return why a Redis store has no connection."""
    return str(getattr(store, "last_error", ""))
