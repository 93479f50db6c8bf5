"""Feast's side of `bench.feature_peers`; runs in Feast's interpreter, in a process of its own.

`python -m bench.feast_peer '{"store": "sqlite", "sizes": [1000, 200], "n_calls": 500}'` makes a
repository with two views in a temporary folder, writes the entities through Feast, asks for both
views' features of one customer and one terminal per call, checks the first answer, and prints one
line of JSON: Feast's version and the nanoseconds of every call.

What it does not do: no registry server, no feature server: this is Feast's fastest way in Python.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.feature_store_data import CUSTOMER, TERMINAL, Sizes, chunks, pairs
from fastpath.spec import GroupSpec

N_WARMUP = 20


def make_view(group: GroupSpec, folder: Path) -> tuple[Any, Any]:
    """Return Feast's entity and view of one group."""
    import feast  # type: ignore[import-not-found]  # another interpreter's
    from feast.types import Float32  # type: ignore[import-not-found]  # the same

    entity = feast.Entity(
        name=group.name, join_keys=[f"{group.name}_id"], value_type=feast.ValueType.STRING
    )
    source = feast.FileSource(path=str(folder / f"{group.name}.parquet"), timestamp_field="at")
    view = feast.FeatureView(
        name=group.name,
        entities=[entity],
        schema=[feast.Field(name=name, dtype=Float32) for name, _ in group.columns],
        source=source,
    )
    return entity, view


def frame(group: GroupSpec, n_entities: int) -> Any:
    """Return all rows of a group as Feast takes them."""
    import pandas as pd

    parts = list(chunks(group, n_entities))
    values = np.concatenate([part.values for part in parts])
    rows = pd.DataFrame(values, columns=[name for name, _ in group.columns])
    rows.insert(0, f"{group.name}_id", [x for part in parts for x in part.entity_ids])
    rows["at"] = pd.to_datetime(
        np.concatenate([part.event_time_ms for part in parts]), unit="ms", utc=True
    )
    return rows


def online_store(store: str, folder: Path) -> dict[str, str]:
    """Return feature_store.yaml's online_store."""
    if store == "sqlite":
        return {"type": "sqlite", "path": str(folder / "online.db")}
    # Feast wants a host and a port; redis-py goes by the socket.
    path = store.removeprefix("redis:")
    return {"type": "redis", "connection_string": f"localhost:0,unix_socket_path={path}"}


def measure(store: str, sizes: Sizes, n_calls: int, folder: Path) -> dict[str, Any]:
    """Fill a store and time `get_online_features`."""
    import feast

    repository = feast.FeatureStore(
        config=feast.RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=online_store(store, folder),
            entity_key_serialization_version=3,
        )
    )
    objects: list[Any] = []
    frames = {}
    for group, n_entities in sizes.groups():
        frames[group.name] = frame(group, n_entities)
        frames[group.name].head(1).to_parquet(folder / f"{group.name}.parquet")
        objects += make_view(group, folder)
    repository.apply(objects)
    for name, rows in frames.items():
        repository.write_to_online_store(name, rows)
    features = [
        f"{group.name}:{name}" for group in (CUSTOMER, TERMINAL) for name, _ in group.columns
    ]
    requests = [
        [{"customer_id": a, "terminal_id": b}] for a, b in pairs(sizes, n_calls, "zipf", seed=1)
    ]

    def ask(rows: list[dict[str, str]]) -> dict[str, list[Any]]:
        found = repository.get_online_features(features=features, entity_rows=rows).to_dict()
        return dict(found)

    check(ask(requests[0]), frames, requests[0][0])
    for rows in requests[:N_WARMUP]:
        ask(rows)
    times_ns = []
    for rows in requests:
        started_ns = time.perf_counter_ns()
        ask(rows)
        times_ns.append(time.perf_counter_ns() - started_ns)
    return {"version": feast.__version__, "times_ns": times_ns}


def check(answer: dict[str, list[Any]], frames: dict[str, Any], entities: dict[str, str]) -> None:
    """Refuse to time a store that does not answer what was written."""
    for name, rows in frames.items():
        row = rows[rows[f"{name}_id"] == entities[f"{name}_id"]].iloc[0]
        for column in rows.columns[1:-1]:
            if np.float32(answer[column][0]) != row[column]:
                sys.exit(f"Feast answers {answer[column]} for {column}, not {row[column]}")


def main() -> None:
    """Read the task, print the figures."""
    task = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        started = datetime.now(UTC)
        found = measure(task["store"], Sizes(*task["sizes"]), task["n_calls"], Path(folder))
        found["seconds"] = (datetime.now(UTC) - started).total_seconds()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
