"""What writes records of one group into a store, whichever it is.

Rules: `write` returns how many records the store has taken; writing the same records again leaves
the same. A writer is used by one thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl

from numpy.typing import ArrayLike

from fastpath.spec import GroupSpec as Group
from server.errors import InputError

__all__ = ["FeatureWriter", "Group", "open_writer", "store_directory"]

REDIS_SCHEMES = ("redis:", "rediss:", "unix:")


class FeatureWriter(ABC):
    """Writes records of one group."""

    @abstractmethod
    def write(
        self,
        entity_ids: Sequence[str],
        event_time_ms: ArrayLike,
        values: ArrayLike,
        *,
        only_newer: bool = False,
    ) -> int:
        """Write a record per entity; return how many were written."""

    @abstractmethod
    def close(self) -> None:
        """Free what the writer holds; closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_writer(url: str, group: Group) -> FeatureWriter:
    """Open the online table of a store for writing one group.

    Parameters
    ----------
    url : str
        "lmdb:DIR", optionally with "?map_bytes=N&batch_size=N", or a bare directory: see
        `server.features.lmdb`. "redis://...", "rediss://..." or "unix:///path...": see
        `server.features.redis_url`.
    group : Group

    Raises
    ------
    InputError
        The URL is not understood, or the library that it needs is not installed.
    FeatureStoreError
        The store cannot be opened.
    """
    if url.startswith(REDIS_SCHEMES):
        from server.features.redis import RedisFeatureWriter

        return RedisFeatureWriter(url, group)
    directory = store_directory(url)
    if directory is None:
        raise InputError(
            f"store {url!r} is not understood: write lmdb:DIR, redis://HOST:PORT/0, rediss://... "
            "or unix:///PATH"
        )
    from server.features.lmdb import LmdbFeatureWriter

    return LmdbFeatureWriter(directory, group, **_lmdb_options(url))


def store_directory(url: str) -> Path | None:
    """Return the store directory that a URL names ("lmdb:DIR" or a path); None: it is no such."""
    if url.startswith("lmdb:"):
        path = url.removeprefix("lmdb:").removeprefix("//").partition("?")[0]
        return Path(path) if path else None
    scheme, colon, _ = url.partition(":")
    if not url or (colon and scheme.isalnum() and "/" not in scheme):
        return None
    return Path(url)


def _lmdb_options(url: str) -> dict[str, int]:
    if not url.startswith("lmdb:"):
        return {}
    options: dict[str, int] = {}
    for name, value in parse_qsl(url.partition("?")[2], keep_blank_values=True):
        if name not in {"map_bytes", "batch_size"} or not value.isdecimal():
            raise InputError(
                f"store {url!r}: {name}={value}: map_bytes and batch_size take numbers"
            )
        options[name] = int(value)
    return options
