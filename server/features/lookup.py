"""Stored online records, read one list at a time: for tools, not for the serving path.

Nothing is kept open between two calls. Neither is anything written or waited for: a store that is
not there is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastpath.record import record_key
from server.errors import FeatureStoreError, InputError
from server.features.directory import online_path
from server.features.redis import DEFAULT_PREFIX, connect
from server.features.redis_url import SCHEMES, parse_redis_url
from server.features.writer import store_directory


def look_up(url: str, group: str, entity_ids: Sequence[str]) -> list[bytes | None]:
    """Read the online records of some entities.

    Parameters
    ----------
    url : str
        As `server.features.open_writer` takes it.
    group : str
    entity_ids : sequence of str

    Returns
    -------
    list of bytes or None
        What is stored under each entity's key; None: nothing.

    Raises
    ------
    InputError
        The URL is not one of a store.
    FeatureStoreError
        The store is not there or does not answer.
    """
    keys = [record_key(group, name) for name in entity_ids]
    if url.partition(":")[0] in SCHEMES:
        return _from_redis(url, keys)
    directory = store_directory(url)
    if directory is None:
        raise InputError(f"a store's URL begins with lmdb: or {', '.join(SCHEMES)}://, not {url!r}")
    return _from_lmdb(online_path(directory), keys)


def _from_lmdb(folder: Path, keys: Sequence[bytes]) -> list[bytes | None]:
    import lmdb

    try:
        with (
            lmdb.open(str(folder), readonly=True, create=False) as environment,
            environment.begin() as transaction,
        ):
            return [transaction.get(key) for key in keys]
    except lmdb.Error as error:
        raise FeatureStoreError(f"{folder}: cannot be read: {error}") from None


def _from_redis(url: str, keys: Sequence[bytes]) -> list[bytes | None]:
    target = parse_redis_url(url)
    prefix = (DEFAULT_PREFIX if target.key_prefix is None else target.key_prefix).encode()
    with connect(target.client) as client:
        from redis.exceptions import RedisError

        try:
            found = client.mget([prefix + key for key in keys]) if keys else []
        except RedisError as error:
            raise FeatureStoreError(f"{target.shown}: {error}") from None
    return [data if data is None or isinstance(data, bytes) else data.encode() for data in found]
