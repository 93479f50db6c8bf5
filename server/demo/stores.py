"""The demo's feature store: where it is, what fills it, and what serves from it.

LMDB lives in the demo's directory and needs no process. Redis is a server of the demo's own; its
batch tables are LMDB all the same. Both are made anew by every run, because a replay begins with
the state of its first day.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from server.demo.pipeline import Target
from server.demo.redis_server import RESTART_S, RedisServer, find_program
from server.demo.tables import Table
from server.features import Group, open_writer
from server.features.batch import BatchTableWriter
from server.features.redis import RedisFeatureWriter

StoreKind = Literal["lmdb", "redis", "none"]

# A paused Redis holds the pipeline up this long before it says so and tries again.
WRITE_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class DemoStore:
    """A store that is filled and ready.

    Attributes
    ----------
    url : str
        What the pipeline writes to; empty: there is no store.
    serve_options : list of str
        Options of `scoregate serve` that make it read from there.
    lines : list of str
        For people.
    supervise : callable
        To be called a few times a second; returns a line on the store's process, or "".
    """

    url: str = ""
    serve_options: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    supervise: Callable[[], str] = str


@contextmanager
def demo_store(
    kind: StoreKind, directory: Path, groups: Sequence[Group], tables: Sequence[Table]
) -> Iterator[DemoStore]:
    """Make a store anew, fill its batch tables, and keep it while the context lasts.

    Parameters
    ----------
    kind : {"lmdb", "redis", "none"}
    directory : Path
        Where it may be; what is there is removed.
    groups : sequence of Group
    tables : sequence of Table
        The batch tables' records.

    Raises
    ------
    StartError
        Redis is not installed, or does not start.
    """
    if kind == "none":
        yield DemoStore()
        return
    if kind == "redis":
        find_program()  # before anything is made
    shutil.rmtree(directory, ignore_errors=True)
    start = time.monotonic()
    n_records = fill_batch_tables(directory, groups, tables)
    what = ", ".join(f"{len(table.ids):,} {table.group}s" for table in tables)
    lines = [f"Batch tables: {n_records:,} records ({what}) in {time.monotonic() - start:.2f} s"]
    options = ["--features-directory", str(directory), "--features-online", kind]
    if kind == "lmdb":
        url = f"lmdb:{directory}"
        for group in groups:  # the server opens what is there
            open_writer(url, group).close()
        yield DemoStore(url, options, [*lines, f"Online tables: LMDB in {directory}/online"])
        return
    with RedisServer(directory / "redis") as redis:
        path = redis.socket
        options += ["--redis-address", f"unix:{path}"]
        lines += [
            f"Online tables: {redis.name} at unix:{path}, process {redis.pid}",
            f"  kill -9 {redis.pid} to see degraded answers; it is restarted after {RESTART_S:g} s",
        ]
        yield DemoStore(f"unix://{quote(str(path))}", options, lines, redis.supervise)


def fill_batch_tables(directory: Path, groups: Sequence[Group], tables: Sequence[Table]) -> int:
    """Write a generation of every group's batch table; return how many records that is."""
    by_group = {table.group: table for table in tables}
    n_records = 0
    for group in groups:
        table = by_group[group.name]
        with BatchTableWriter(directory, group) as writer:
            writer.write(table.ids.tolist(), table.event_time_ms, table.values)
            n_records += writer.commit()
    return n_records


@contextmanager
def open_targets(url: str, groups: Sequence[Group]) -> Iterator[list[Target]]:
    """Open a writer of online records for each group, for the pipeline.

    The pipeline tries again by itself: a write fails rather than waits.
    """
    with ExitStack() as writers:
        targets = []
        for group in groups:
            if url.startswith("lmdb:"):
                writer = open_writer(url, group)
            else:
                writer = RedisFeatureWriter(
                    f"{url}?timeout_s={WRITE_TIMEOUT_S:g}", group, n_retries=0
                )
            targets.append(Target(group, writers.enter_context(writer)))
        yield targets
