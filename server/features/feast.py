"""A Feast online store that holds our records: `feast materialize` fills what Scoregate reads.

    online_store:                                       # in feature_store.yaml
      type: server.features.feast.ScoregateOnlineStore
      url: lmdb:/var/lib/scoregate/features             # or redis://, rediss://, unix:///
      groups: {customer_stats: customer}                # view -> group; else the view's own name

Rules: a feature view becomes a group, its one join key the entity's id, its features the group's
columns in their order: Bool is "boolean", Int32, Int64, Float32 and Float64 are "numeric", or what
the field's tag `scoregate_type` says ("categorical" for codes). Values become float32; null and
unset become NaN. Timestamps without a zone are UTC, as everywhere in Feast. `feast apply` refuses
what cannot be stored so, strings above all. A later record is never replaced by an earlier one
unless `only_newer: false`.

How it works: Feast calls `online_write_batch` with rows as protobuf values; they go to the store
through `server.features.open_writer`, opened for each call, so that nothing is left open between
two of them.

What it does not do: Feast never removes our records. A view that was dropped leaves them to their
time to live, because models may still read the group. Views of several join keys, or of none, have
no single entity id. It is no faster than Feast: the rows arrive as Python objects.

Runs in Feast's interpreter: of ours it needs numpy, and py-lmdb or redis-py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from feast.infra.online_stores.online_store import (  # type: ignore[import-not-found]  # an extra
    OnlineStore,
)
from feast.protos.feast.types.Value_pb2 import (  # type: ignore[import-not-found]  # an extra
    Value,
)
from feast.repo_config import FeastConfigBaseModel  # type: ignore[import-not-found]  # an extra

from fastpath.errors import SchemaError
from fastpath.record import decode_record
from fastpath.spec import GroupSpec, check_group
from server.errors import InputError
from server.features import open_writer
from server.features.lookup import look_up

TYPES = {
    "BOOL": "boolean",
    "INT32": "numeric",
    "INT64": "numeric",
    "FLOAT": "numeric",
    "DOUBLE": "numeric",
}
# Members of Feast's Value that hold such a feature, and how Python makes one of a float.
MEMBERS: dict[str, tuple[str, type]] = {
    "BOOL": ("bool_val", bool),
    "INT32": ("int32_val", int),
    "INT64": ("int64_val", int),
    "FLOAT": ("float_val", float),
    "DOUBLE": ("double_val", float),
}
LMDB = "lmdb:"
TYPE_TAG = "scoregate_type"
CHUNK_ROWS = 10_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

# (entity key, values by feature, event time, time of creation), as Feast passes them.
Row = tuple[Any, dict[str, Any], datetime, datetime | None]


class View(NamedTuple):
    """A feature view as we store it."""

    group: GroupSpec
    kinds: tuple[str, ...]  # Feast's value type of each column


class ScoregateOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast has no types
    """The `online_store` part of feature_store.yaml."""

    type: Literal["server.features.feast.ScoregateOnlineStore"] = (
        "server.features.feast.ScoregateOnlineStore"
    )
    url: str  # of the store; the path behind lmdb: counts from the repository
    groups: dict[str, str] = {}  # noqa: RUF012 - view -> group; pydantic copies defaults
    only_newer: bool = True


class ScoregateOnlineStore(OnlineStore):  # type: ignore[misc]  # Feast has no types
    """Feast's interface over our stores."""

    def online_write_batch(
        self,
        config: Any,
        table: Any,
        data: Sequence[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of a feature view.

        Raises
        ------
        InputError
            The view or an entity's key cannot be stored.
        FeatureStoreError
            The store refused; the message says how many records of this chunk were written.
        """
        view = view_of(table, config.online_store.groups)
        with open_writer(_url(config), view.group) as writer:
            for chunk in _chunks(data):
                writer.write(
                    [entity_id(row[0]) for row in chunk],
                    np.array([time_ms(row[2]) for row in chunk], np.int64),
                    _values(view, chunk),
                    only_newer=config.online_store.only_newer,
                )
                if progress is not None:
                    progress(len(chunk))

    def online_read(
        self,
        config: Any,
        table: Any,
        entity_keys: Sequence[Any],
        requested_features: Sequence[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        """Read records back as Feast's values; an absent one, or one of another layout, is None."""
        view = view_of(table, config.online_store.groups)
        records = look_up(_url(config), view.group.name, [entity_id(key) for key in entity_keys])
        return [_decoded(view, data, requested_features) for data in records]

    def update(
        self,
        config: Any,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Refuse views that cannot be stored; nothing has to be made for the others."""
        for table in tables_to_keep:
            view_of(table, config.online_store.groups)

    def teardown(self, config: Any, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        """Leave the records: models may read them."""


def view_of(table: Any, groups: dict[str, str]) -> View:
    """Return a feature view's group.

    Raises
    ------
    InputError
        Not one join key, or a feature whose type cannot be stored as float32.
    """
    where = f"feature view {table.name!r}"
    # Feast gives views without entities a key of its own.
    keys = [x.name for x in table.entity_columns if not x.name.startswith("__dummy")]
    if len(keys) != 1:
        count = f"{len(keys)} join keys" if keys else "no join key"
        raise InputError(
            f"{where} has {count}; a record belongs to one entity: give the view one entity with "
            "one join key"
        )
    columns, kinds = [], []
    for field in table.features:
        kind = str(field.dtype.to_value_type().name)
        if kind not in TYPES:
            raise InputError(
                f"{where}: feature {field.name!r} is {field.dtype}; records hold numbers "
                "(Bool, Int32, Int64, Float32, Float64): encode it as a number, such as a code "
                f"with the tag {TYPE_TAG}: categorical"
            )
        columns.append((str(field.name), (field.tags or {}).get(TYPE_TAG, TYPES[kind])))
        kinds.append(kind)
    group = GroupSpec(groups.get(table.name, table.name), keys[0], tuple(columns))
    try:
        check_group(group)
    except SchemaError as error:
        raise InputError(f"{where}: {error}") from None
    return View(group, tuple(kinds))


def entity_id(key: Any) -> str:
    """Return the id of a Feast entity key: its text, or its whole number in decimal digits.

    Raises
    ------
    InputError
        Not one value, or of another type.
    """
    kinds = [value.WhichOneof("val") for value in key.entity_values]
    if len(kinds) != 1 or kinds[0] not in ("string_val", "int32_val", "int64_val"):
        raise InputError(
            f"join keys {list(key.join_keys)} with values of {kinds}: an entity's id is one string "
            "or whole number"
        )
    return str(getattr(key.entity_values[0], kinds[0]))


def time_ms(time: datetime) -> int:
    """Return a time in milliseconds since the epoch, rounded down; without a zone it is UTC."""
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH) // MILLISECOND


def _url(config: Any) -> str:
    url = str(config.online_store.url)
    if url.startswith(LMDB) and config.repo_path is not None:
        return LMDB + str(Path(config.repo_path) / url.removeprefix(LMDB))
    return url


def _chunks(data: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(data), CHUNK_ROWS):
        yield data[start : start + CHUNK_ROWS]


def _values(view: View, chunk: Sequence[Row]) -> np.ndarray:
    rows = np.full((len(chunk), len(view.kinds)), np.nan)
    for i, (_, values, _, _) in enumerate(chunk):
        for j, (name, _) in enumerate(view.group.columns):
            value = values.get(name)
            kind = None if value is None else value.WhichOneof("val")
            if kind is not None and kind != "null_val":
                rows[i, j] = getattr(value, kind)
    return rows


def _decoded(
    view: View, data: bytes | None, wanted: Sequence[str] | None
) -> tuple[datetime | None, dict[str, Any] | None]:
    if data is None:
        return None, None
    try:
        fingerprint, event_time_ms, values = decode_record(data)
    except ValueError:
        return None, None
    if fingerprint != view.group.fingerprint or len(values) != len(view.kinds):
        return None, None
    found: dict[str, Any] = {}
    for (name, _), kind, value in zip(view.group.columns, view.kinds, values.tolist(), strict=True):
        if wanted is None or name in wanted:
            member, make = MEMBERS[kind]
            found[name] = Value() if not np.isfinite(value) else Value(**{member: make(value)})
    return EPOCH + event_time_ms * MILLISECOND, found
