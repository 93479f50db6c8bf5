"""From what a caller hands a writer to keys and records: checked, then encoded in bulk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpath.errors import SchemaError
from fastpath.record import encode_records, record_key
from fastpath.spec import GroupSpec
from server.errors import InputError

# Keys whose length cannot be over the limit are joined without a check of each.
_SHORT = 64


def encode_rows(
    group: GroupSpec,
    fingerprint: int,
    entity_ids: Sequence[str],
    event_time_ms: ArrayLike,
    values: ArrayLike,
) -> tuple[list[bytes], list[bytes], NDArray[np.int64]]:
    """Return the keys, the records and the event times of some rows.

    Parameters
    ----------
    group : GroupSpec
    fingerprint : int
        The group's; computed once by the caller.
    entity_ids : sequence of str
        n ids of 1 to 256 bytes of UTF-8.
    event_time_ms : int64 [n] or int
        Milliseconds since the epoch, as of when the values hold.
    values : float32 [n, k]
        k is the number of the group's columns; NaN: no value.

    Raises
    ------
    InputError
        A shape, a type or an id; the message names the row.
    """
    keys, packed, times = pack_rows(group, fingerprint, entity_ids, event_time_ms, values)
    return keys, as_bytes(packed) if keys else [], times


def pack_rows(
    group: GroupSpec,
    fingerprint: int,
    entity_ids: Sequence[str],
    event_time_ms: ArrayLike,
    values: ArrayLike,
) -> tuple[list[bytes], NDArray[np.uint8], NDArray[np.int64]]:
    """Return what `encode_rows` does, with the records in one array [n, record bytes]."""
    times, rows = check_rows(group, len(entity_ids), event_time_ms, values)
    packed = encode_records(fingerprint, times, rows)
    return encode_keys(group.name, entity_ids) if entity_ids else [], packed, times


def check_rows(
    group: GroupSpec, n: int, event_time_ms: ArrayLike, values: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return event times [n] and values [n, k], contiguous; see `encode_rows`.

    Raises
    ------
    InputError
        A shape or a type.
    """
    k = len(group.columns)
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(values, dtype=np.float32)
    if rows.shape != (n, k):
        raise InputError(
            f"group {group.name!r}: values have shape {rows.shape}; for {n} entities and the "
            f"group's {k} columns it has to be ({n}, {k})"
        )
    times = np.asarray(event_time_ms)
    right = np.can_cast(times.dtype, np.int64) and times.dtype != bool
    if not right or times.shape not in ((), (n,)):
        raise InputError(
            f"group {group.name!r}: event times are {times.dtype} of shape {times.shape}; they "
            f"are whole milliseconds, one or {n} of them"
        )
    return np.ascontiguousarray(np.broadcast_to(times, (n,)), dtype=np.int64), rows


def encode_keys(group: str, entity_ids: Sequence[str]) -> list[bytes]:
    """Return the keys of some entities; `fastpath.record.record_key` of each."""
    prefix = f"{group}:"
    try:
        # An id of up to 64 characters has at most 256 bytes.
        if all(map(len, entity_ids)) and max(map(len, entity_ids)) <= _SHORT:
            return [(prefix + name).encode() for name in entity_ids]
    except (UnicodeEncodeError, TypeError):
        pass  # said with its row, below
    keys: list[bytes] = []
    for row, name in enumerate(entity_ids):
        try:
            keys.append(record_key(group, name))
        except (SchemaError, TypeError) as error:
            raise InputError(f"row {row}: {error}") from None
    return keys


def sorted_items(keys: list[bytes], packed: NDArray[np.uint8]) -> Iterable[tuple[bytes, bytes]]:
    """Return key and record of every entity in LMDB's order; of equal keys the last row counts.

    Parameters
    ----------
    keys : list of bytes [n]
    packed : uint8 [n, record bytes]
        Their records, from `fastpath.record.encode_records`.

    Notes
    -----
    Keys of a usual length are sorted side by side in one array, and the records gathered by
    numpy: chasing a million Python objects in another order than they were made in costs four
    times as much, in cache misses. Such an array drops NULs at the end of a text; keys
    that hold one are sorted as objects.
    """
    if not keys:
        return []
    if max(map(len, keys)) <= _SHORT and b"\0" not in b"".join(keys):
        array = np.array(keys)
        order = np.argsort(array, kind="stable")
        array = array[order]
        last = np.append(array[1:] != array[:-1], True)
        ordered: list[bytes] = array[last].tolist()
        chosen = order[last]
    else:
        rows = {key: row for row, key in enumerate(keys)}
        ordered = sorted(rows)
        chosen = np.array([rows[key] for key in ordered])
    return zip(ordered, as_bytes(packed[chosen]), strict=True)


def as_bytes(packed: NDArray[np.uint8]) -> list[bytes]:
    """Return the rows of an array, each as an object."""
    records: list[bytes] = packed.view(f"V{packed.shape[1]}").ravel().tolist()
    return records
