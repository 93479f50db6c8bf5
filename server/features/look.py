"""What a store directory holds, and one entity's records: for people and for tests.

Reads as the server does (same LMDB, same rules), so what is shown here is what is served.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastpath.batch_lmdb import LmdbBatchTable
from fastpath.errors import SchemaError, StoreError
from fastpath.lmdb_file import read_meta
from fastpath.record import decode_record, record_key
from fastpath.spec import GroupSpec
from fastpath.store_lmdb import LmdbEnvironment
from server.errors import FeatureStoreError, InputError
from server.features.directory import (
    DATA,
    batch_groups,
    batch_path,
    created,
    generations,
    online_path,
    read_current,
)
from server.features.writer import store_directory


def describe_store(directory: Path) -> dict[str, Any]:
    """Return the tables of a store directory.

    Returns
    -------
    dict
        "online": None where there is none, else records (of all groups), bytes (used), map_bytes,
        transaction, written (ISO 8601), error; "groups": per group a list of generations, each with
        generation, current, records, bytes, created, age_s, error.
    """
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory: name the store's with --store")
    now = time.time()
    groups: dict[str, list[dict[str, Any]]] = {}
    for group in batch_groups(directory):
        try:
            current = read_current(directory, group)
        except FeatureStoreError:
            current = None
        groups[group] = [
            _generation(directory, group, name, name == current, now)
            for name in generations(directory, group)
        ]
    return {"directory": str(directory), "online": _online(directory), "groups": groups}


def _online(directory: Path) -> dict[str, Any] | None:
    path = online_path(directory)
    if not (path / DATA).exists():
        return None
    try:
        meta = read_meta(path)
    except StoreError as error:
        return {"error": str(error)}
    written = datetime.fromtimestamp((path / DATA).stat().st_mtime, UTC)
    return {
        "records": meta.n_records,
        "bytes": meta.file_bytes,
        "map_bytes": meta.map_bytes,
        "transaction": meta.transaction,
        "written": written.isoformat(timespec="seconds"),
        "error": None,
    }


def _generation(
    directory: Path, group: str, name: str, is_current: bool, now: float
) -> dict[str, Any]:
    begun = created(name)
    answer: dict[str, Any] = {
        "generation": name,
        "current": is_current,
        "records": None,
        "bytes": None,
        "created": begun.isoformat(),
        "age_s": max(0.0, now - begun.timestamp()),
        "error": None,
    }
    try:
        meta = read_meta(batch_path(directory, group) / name)
        answer["records"], answer["bytes"] = meta.n_records, meta.file_bytes
    except StoreError as error:
        answer["error"] = str(error)
    return answer


def read_records(
    store: str,
    group: str,
    entity_id: str,
    *,
    batch_store: Path | None = None,
    layout: GroupSpec | None = None,
) -> dict[str, dict[str, Any]]:
    """Look one entity up in the online and the batch table.

    Parameters
    ----------
    store : str
        Directory or URL of the online table.
    group, entity_id : str
    batch_store : path, optional
        The store directory of the batch table; None: `store`, where that is a directory.
    layout : GroupSpec, optional
        Gives the values their names.

    Returns
    -------
    dict
        "online" and "batch", each with outcome ("hit", "absent", "failed", "none": no such
        table), error, and of a hit event_time, age_s, fingerprint, known (its layout is that
        of `layout`) and values (name -> number or None).
    """
    try:
        key = record_key(group, entity_id)
    except SchemaError as error:
        raise InputError(str(error)) from error
    directory = store_directory(store)
    if directory is not None and not directory.is_dir():
        raise InputError(f"{directory} is not a directory: name the store's with --store")
    online = _look_redis(store, key) if directory is None else _look_lmdb(directory, key)
    where = batch_store or directory
    batch = _look_batch(where, group, key) if where else ("none", b"", "")
    return {"online": _decoded(*online, layout), "batch": _decoded(*batch, layout)}


def _look_lmdb(directory: Path, key: bytes) -> tuple[str, bytes, str]:
    path = online_path(directory)
    if not (path / DATA).exists():
        return "none", b"", ""
    try:
        outcome, record = LmdbEnvironment(str(path)).store().probe(key)
    except StoreError as error:
        return "failed", b"", str(error)
    return outcome, record, ""


def _look_redis(url: str, key: bytes) -> tuple[str, bytes, str]:
    from server.features.redis import DEFAULT_PREFIX, connect
    from server.features.redis_url import parse_redis_url

    target = parse_redis_url(url)
    prefix = DEFAULT_PREFIX if target.key_prefix is None else target.key_prefix
    client = connect(target.client)
    try:
        record = client.get(prefix.encode() + key)
    except Exception as error:
        import redis

        if not isinstance(error, redis.RedisError | OSError):
            raise
        return "failed", b"", f"{target.shown}: {error}"
    finally:
        client.close()
    return ("absent", b"", "") if record is None else ("hit", bytes(record), "")  # type: ignore[arg-type] # redis-py: or a future


def _look_batch(directory: Path, group: str, key: bytes) -> tuple[str, bytes, str]:
    try:
        name = read_current(directory, group)
        if name is None:
            return "none", b"", ""
        table = LmdbBatchTable(str(batch_path(directory, group) / name), 1, name)
    except (StoreError, FeatureStoreError) as error:
        return "failed", b"", str(error)
    outcome, record = table.probe(key)
    return outcome, record, ""


def _decoded(outcome: str, record: bytes, error: str, layout: GroupSpec | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"outcome": outcome, "error": error or None}
    if outcome != "hit":
        return answer
    try:
        fingerprint, event_time_ms, values = decode_record(record)
    except SchemaError as reason:
        return {"outcome": "malformed", "error": str(reason)}
    known = layout is not None and layout.fingerprint == fingerprint
    if known and layout is not None and len(layout.columns) != len(values):
        n = len(values)
        return {"outcome": "malformed", "error": f"{n} values, {len(layout.columns)} columns"}
    names = (
        [name for name, _ in layout.columns]
        if known and layout is not None
        else [f"[{i}]" for i in range(len(values))]
    )
    return answer | {
        "event_time": _iso(event_time_ms),
        "age_s": max(0.0, time.time() - event_time_ms / 1000),
        "fingerprint": f"{fingerprint:#018x}",
        "known": known,
        "values": _numbers(names, values.tolist()),
    }


def _iso(event_time_ms: int) -> str:
    try:
        when = datetime.fromtimestamp(event_time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{event_time_ms} ms"
    return when.isoformat(timespec="milliseconds")


def _numbers(names: list[str], values: list[float]) -> Mapping[str, float | str | None]:
    """JSON has neither NaN (no value: null) nor infinities (text)."""
    return {
        name: None if value != value else (str(value) if abs(value) == float("inf") else value)
        for name, value in zip(names, values, strict=True)
    }
