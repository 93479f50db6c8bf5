"""The two reads of a request as others do them: by redis-py, and by a Feast online store.

Rules: every peer reads the record of one customer and the features of one terminal, 6 numbers
each, one request at a time, and hands them over as Python numbers or arrays. All ask for the same
entities in the same order. Times are wall microseconds per request, of the whole call in the
client's process; the server's side is included, because the client waits for it.

How it works: redis-py reads our packed records by one MGET and unpacks them, and reads the same
numbers by HMGET from one hash per entity, a pipeline of two. Feast runs in an interpreter of its
own (`bench.feast_peer`): SCOREGATE_FEAST_PYTHON, else `var/feast/bin/python`. Where there is none,
its figures are left out and `feast` says why.

What it does not do: nothing concurrent, and no CPU. These are orders of magnitude, no targets.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.feature_store_data import CUSTOMER, TERMINAL, Sizes, chunks, pairs
from fastpath.record import decode_record, record_key
from fastpath.spec import GroupSpec

if TYPE_CHECKING:
    import redis

ROOT = Path(__file__).resolve().parents[1]
FEAST_PYTHON = "SCOREGATE_FEAST_PYTHON"
FEAST_TIMEOUT_S = 600.0
KEY_PREFIX = "scoregate:"
HASH_PREFIX = "bench-hash:"
N_WARMUP = 200


def summary(times_ns: Sequence[int]) -> dict[str, float]:
    """Return median, 99th percentile and mean of calls, in microseconds."""
    us = np.asarray(times_ns, np.float64) / 1000
    return {
        "p50_us": float(np.median(us)),
        "p99_us": float(np.percentile(us, 99)),
        "mean_us": statistics.fmean(us.tolist()),
    }


def timed(read: Callable[[str, str], object], requests: Sequence[tuple[str, str]]) -> list[int]:
    """Call `read` for each request, after some that are not counted."""
    for customer, terminal in requests[:N_WARMUP]:
        read(customer, terminal)
    times_ns = []
    for customer, terminal in requests:
        started_ns = time.perf_counter_ns()
        read(customer, terminal)
        times_ns.append(time.perf_counter_ns() - started_ns)
    return times_ns


def by_mget(client: redis.Redis, customer: str, terminal: str) -> tuple[np.ndarray, np.ndarray]:
    """Read two packed records, which must be there, and unpack them."""
    found = client.mget(
        [
            KEY_PREFIX.encode() + record_key(CUSTOMER.name, customer),
            KEY_PREFIX.encode() + record_key(TERMINAL.name, terminal),
        ]
    )
    if not all(isinstance(data, bytes) for data in found):
        raise BenchError(f"customer {customer} or terminal {terminal} has no record")
    a, b = (decode_record(bytes(data))[2] for data in found)  # type: ignore[arg-type]  # as checked
    return a, b


def by_hmget(client: redis.Redis, customer: str, terminal: str) -> list[float]:
    """Read the 12 fields of two hashes, which must be there, as numbers."""
    pipeline = client.pipeline(transaction=False)
    for group, entity in ((CUSTOMER, customer), (TERMINAL, terminal)):
        pipeline.hmget(_hash_key(group, entity), [name for name, _ in group.columns])
    return [float(value) for fields in pipeline.execute() for value in fields]


def fill_hashes(client: redis.Redis, sizes: Sizes) -> None:
    """Store the same numbers as `feature_store_data.fill`, one hash per entity."""
    for group, n_entities in sizes.groups():
        names = [name for name, _ in group.columns]
        for chunk in chunks(group, n_entities):
            for start in range(0, len(chunk.entity_ids), 2000):
                pipeline = client.pipeline(transaction=False)
                part = slice(start, start + 2000)
                rows = chunk.values[part].tolist()
                for entity, row in zip(chunk.entity_ids[part], rows, strict=True):
                    pipeline.hset(
                        _hash_key(group, entity), mapping=dict(zip(names, row, strict=True))
                    )
                pipeline.execute()


def redis_py(socket: str, sizes: Sizes, n_calls: int) -> dict[str, Any]:
    """Measure redis-py on a server that `feature_store_data.fill` and `fill_hashes` have filled.

    Parameters
    ----------
    socket : str
        Path of the server's Unix socket.
    """
    import redis

    requests = pairs(sizes, n_calls, "zipf", seed=1)
    with redis.Redis(unix_socket_path=socket) as client:
        return {
            "version": redis.__version__,
            "mget": summary(timed(lambda a, b: by_mget(client, a, b), requests)),
            "hmget": summary(timed(lambda a, b: by_hmget(client, a, b), requests)),
        }


def feast_python() -> Path | None:
    """Return the interpreter that has Feast; None where there is none."""
    named = os.environ.get(FEAST_PYTHON)
    path = Path(named) if named else ROOT / "var/feast/bin/python"
    return path if path.exists() else None


def feast(store: str, sizes: Sizes, n_calls: int) -> dict[str, Any]:
    """Measure Feast's `get_online_features` of both views.

    Parameters
    ----------
    store : str
        "sqlite", or the path of a Redis server's Unix socket behind "redis:".
    sizes : Sizes
        Written into Feast's store first, row by row through Feast: keep them small.

    Returns
    -------
    dict
        `version` and the figures of `summary`; or `skipped`, saying why there are none.
    """
    python = feast_python()
    if python is None:
        return {"skipped": f"no interpreter with Feast: set {FEAST_PYTHON} or run make feast-env"}
    task = {"store": store, "sizes": list(sizes), "n_calls": n_calls}
    found = subprocess.run(
        [str(python), "-W", "ignore", "-m", "bench.feast_peer", json.dumps(task)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=FEAST_TIMEOUT_S,
        check=False,
        env={**os.environ, "FEAST_USAGE": "False", "PYTHONPATH": str(ROOT)},
    )
    if found.returncode != 0:
        raise BenchError(f"Feast on {store} failed:\n{found.stderr[-2000:]}")
    answer = json.loads(found.stdout.splitlines()[-1])
    return {"version": answer["version"], **summary(answer["times_ns"])}


def _hash_key(group: GroupSpec, entity: str) -> str:
    return f"{HASH_PREFIX}{group.name}:{entity}"


def run(socket: str, sizes: Sizes, feast_sizes: Sizes | None, n_calls: int) -> dict[str, Any]:
    """Measure all peers.

    Parameters
    ----------
    socket : str
        Unix socket of a Redis server that `feature_store_data.fill` has filled with `sizes`. Its
        hashes and Feast's own keys are added.
    sizes, feast_sizes : Sizes
        Without `feast_sizes`, Feast is left out.
    n_calls : int
        Of redis-py; Feast is asked a tenth as often.

    Returns
    -------
    dict
        JSON-able: "redis_py", and "feast" by store.
    """
    import redis

    with redis.Redis(unix_socket_path=socket) as client:
        fill_hashes(client, sizes)
    found: dict[str, Any] = {"redis_py": redis_py(socket, sizes, n_calls)}
    if feast_sizes is not None:
        n_feast = max(n_calls // 10, 1)
        found["feast"] = {
            "sqlite": feast("sqlite", feast_sizes, n_feast),
            "redis": feast(f"redis:{socket}", feast_sizes, n_feast),
        }
    return found
