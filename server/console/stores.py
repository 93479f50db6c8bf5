"""The stores of features, and how reads of them ended."""

from __future__ import annotations

from msgspec import Struct

from fastpath.metrics import Metrics
from server.console.words import text
from server.stores import FeatureStores

MAX_STORES = 24


class Store(Struct, frozen=True):
    """One table."""

    table: str  # "online" or "batch"
    kind: str  # "lmdb" or "redis"
    group: str
    address: str
    state: str  # "ok", "degraded" or "unavailable"
    detail: str
    generation: str
    n_records: int


class Stores(Struct, frozen=True):
    """All tables; reads by table and outcome are since the start."""

    tables: list[Store]
    n_left_out: int
    reads: dict[str, dict[str, int]]


def read_stores(stores: FeatureStores, metrics: Metrics) -> Stores:
    """Return the state of every table."""
    reports = stores.reports()
    snapshot = metrics.snapshot()
    return Stores(
        tables=[
            Store(
                table=report.table,
                kind=report.kind,
                group=text(report.group),
                address=text(report.address),
                state=report.state,
                detail=text(report.detail),
                generation=text(report.generation),
                n_records=report.n_records,
            )
            for report in reports[:MAX_STORES]
        ],
        n_left_out=max(0, len(reports) - MAX_STORES),
        reads={
            table: {outcome: n for outcome, n in outcomes.items() if n}
            for table, outcomes in (
                ("online", snapshot.online_reads),
                ("batch", snapshot.batch_reads),
            )
        },
    )
