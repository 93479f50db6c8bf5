"""What an LMDB data file says about itself: its two meta pages, read before LMDB maps it.

`liblmdb` refuses a file with one word ("invalid argument", "not found"); here every refusal says
what was found, where, and what to do. The layout is that of LMDB 0.9 on 64-bit little-endian
machines (`lmdb.h`, "MDB_meta" in `mdb.c`): page header (16 bytes, flags at 10), magic u32, version
u32, address u64, map size u64, two table roots of 48 bytes (free pages, records), last page u64,
transaction u64. Page size: first field of the first root. Of the two the newer one counts.

The file is not walked: a damaged page in the middle is met by the read that needs it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

from fastpath.errors import StoreError

MAGIC = 0xBEEFC0DE
VERSION = 1
NO_ROOT = 2**64 - 1

_HEADER_BYTES = 16
_META = struct.Struct("<IIQQ" + "IHHQQQQQ" * 2 + "QQ")
_P_META = 0x08


class Meta(NamedTuple):
    """The newer meta page of a data file, and the file's state when it was read."""

    page_bytes: int
    map_bytes: int  # the writer's map size
    last_page: int  # in use by the newest transaction, or left loose by it
    transaction: int
    n_records: int
    root_page: int  # NO_ROOT: no records
    file_bytes: int
    identity: tuple[int, int]  # device, inode

    @property
    def needed_bytes(self) -> int:
        """Size of a file that holds every page up to the last."""
        return (self.last_page + 1) * self.page_bytes


def read_meta(directory: Path) -> Meta:
    """Read and check the meta pages of `directory`/data.mdb.

    Raises
    ------
    StoreError
        The directory or the file is missing or unreadable, it is not an LMDB file, one of
        another format, or its meta pages are damaged or name pages behind its end.
    """
    path = directory / "data.mdb"
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            head = file.read(1 << 17)  # both pages, at LMDB's largest page size
    except FileNotFoundError:
        what = "has no data.mdb" if directory.is_dir() else "does not exist"
        raise StoreError(
            f"{directory} {what}: load records with `scoregate features load`, or correct the path"
        ) from None
    except NotADirectoryError:
        raise StoreError(f"{directory} is not a directory: name the one with data.mdb") from None
    except PermissionError:
        raise StoreError(
            f"{path}: permission denied: let uid {os.geteuid()} read it (and write lock.mdb)"
        ) from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_meta(head, path, state)


def parse_meta(head: bytes, path: Path, state: os.stat_result) -> Meta:
    """Check the first bytes of a data file; see `read_meta`."""
    if len(head) < _HEADER_BYTES + _META.size:
        raise StoreError(
            f"{path}: {state.st_size} bytes are no LMDB file: it was cut, or never written; load it"
        )
    first = _page(head, 0, path)
    page_bytes = first[4]
    if page_bytes not in {1 << bits for bits in range(9, 17)}:
        raise StoreError(f"{path}: the page size {page_bytes} is damaged: restore or load it again")
    if len(head) < page_bytes + _HEADER_BYTES + _META.size:
        raise StoreError(f"{path} was cut within its second meta page: restore or load it again")
    newer = max(first, _page(head, page_bytes, path), key=lambda page: page[-1])
    meta = Meta(
        page_bytes=page_bytes,
        map_bytes=newer[3],
        last_page=newer[20],
        transaction=newer[21],
        n_records=newer[18],
        root_page=newer[19],
        file_bytes=state.st_size,
        identity=(state.st_dev, state.st_ino),
    )
    if meta.root_page != NO_ROOT:
        if not 2 <= meta.root_page <= meta.last_page:
            raise StoreError(
                f"{path}: its meta page is damaged: root page {meta.root_page}, last page "
                f"{meta.last_page}; restore or load it again"
            )
        if (meta.root_page + 1) * page_bytes > meta.file_bytes:
            raise StoreError(
                f"{path} was cut: {meta.file_bytes} bytes, and the root of its records is at "
                f"{meta.root_page * page_bytes}; restore or load it again"
            )
    return meta


def _page(head: bytes, offset: int, path: Path) -> tuple[int, ...]:
    """Return the fields of one meta page."""
    (flags,) = struct.unpack_from("<H", head, offset + 10)
    page = _META.unpack_from(head, offset + _HEADER_BYTES)
    if page[0] != MAGIC or not flags & _P_META:
        what = "is not an LMDB data file" if offset == 0 else "has a damaged second meta page"
        raise StoreError(f"{path} {what}: correct the path, or restore or load it again")
    if page[1] != VERSION:
        raise StoreError(
            f"{path}: LMDB data format {page[1]}, not {VERSION}: write it with LMDB 0.9"
        )
    return page
