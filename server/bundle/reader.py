"""Reads a bundle directory: bounded, hashed, nothing executed.

`read_bundle` returns only after every listed file had the size and the SHA-256 that the manifest
says. The files that an engine is built from are kept in memory as the very bytes that were
hashed: what is loaded later is what was verified, whatever happens to the directory.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from server.bundle.arrays import decode_arrays
from server.bundle.manifest import (
    GOLDEN,
    MANIFEST,
    MODEL,
    SCHEMA,
    FileEntry,
    Manifest,
    decode_manifest,
)
from server.bundle.schema import SchemaFile, decode_schema
from server.errors import BundleError

MAX_MANIFEST_BYTES = 4 << 20
MAX_FILE_BYTES = 1 << 30
MAX_TOTAL_BYTES = 2 << 30
KEPT = frozenset({MODEL, SCHEMA, GOLDEN})
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its manifest, its schema and the bytes of the files for loading.

    `sha256` is the digest of the manifest file (32 bytes); since the manifest holds the digests of
    all other files, it identifies the bundle.
    """

    path: Path
    manifest: Manifest
    schema: SchemaFile
    sha256: bytes
    content: dict[str, bytes]

    def read(self, name: str) -> bytes:
        """Return one file's bytes, read and verified again where they were not kept.

        Raises
        ------
        BundleError
            The manifest does not list it, or it is not what was verified.
        """
        data = self.content.get(name)
        if data is None:
            entry = self.manifest.files.get(name)
            if entry is None:
                raise BundleError(f"{self.path / name}: the manifest lists no such file")
            data = _read_file(self.path / name, entry, keep=True)
        return data

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of one `.npz` file."""
        return decode_arrays(self.read(name), str(self.path / name))


def read_bundle(path: Path | str) -> Bundle:
    """Read and verify a bundle.

    Parameters
    ----------
    path : path
        The bundle's directory, `<repository>/<model>/<version>`.

    Raises
    ------
    BundleError
        Unreadable, of a newer format, incomplete, or with a file whose size or digest differs.
    """
    path = Path(path)
    manifest, raw = read_manifest(path)
    total = sum(entry.bytes for entry in manifest.files.values())
    if total > MAX_TOTAL_BYTES:
        raise BundleError(
            f"{path / MANIFEST}: the files add up to {total} bytes, over {MAX_TOTAL_BYTES}"
        )
    content = {}
    for name, entry in manifest.files.items():
        data = _read_file(path / name, entry, keep=name in KEPT)
        if name in KEPT:
            content[name] = data
    return Bundle(
        path=path,
        manifest=manifest,
        schema=decode_schema(content[SCHEMA], str(path / SCHEMA)),
        sha256=hashlib.sha256(raw).digest(),
        content=content,
    )


def read_manifest(path: Path | str) -> tuple[Manifest, bytes]:
    """Return a bundle's manifest and its bytes; the files are not looked at."""
    path = Path(path)
    if not path.is_dir():
        raise BundleError(f"{path}: not a bundle: no such directory")
    where = path / MANIFEST
    raw = _read_bounded(where, MAX_MANIFEST_BYTES)
    return decode_manifest(raw, str(where)), raw


def file_states(path: Path | str, manifest: Manifest) -> dict[str, str]:
    """Return, for each listed file, "ok" or what is wrong with it.

    For people who look at a bundle that `read_bundle` refuses.
    """
    path = Path(path)
    states = {}
    for name, entry in manifest.files.items():
        try:
            _read_file(path / name, entry, keep=False)
            states[name] = "ok"
        except BundleError as error:
            states[name] = str(error).removeprefix(f"{path / name}: ")
    return states


def _open(path: Path) -> int:
    """Open a regular file for reading."""
    try:
        # O_NONBLOCK: a FIFO in a bundle must not hang the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise BundleError(f"{path}: the file is missing") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(f"{path}: not a regular file")
    return descriptor


def _read_bounded(path: Path, limit: int) -> bytes:
    with os.fdopen(_open(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{path}: larger than {limit} bytes")
    return data


def _read_file(path: Path, entry: FileEntry, *, keep: bool) -> bytes:
    """Verify one file; return its bytes where they are kept, else nothing."""
    if entry.bytes > MAX_FILE_BYTES:
        raise BundleError(f"{path}: {entry.bytes} bytes listed, over {MAX_FILE_BYTES}")
    digest = hashlib.sha256()
    chunks: list[bytes] = []
    with os.fdopen(_open(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.bytes:
            raise BundleError(f"{path}: holds {size} bytes, the manifest says {entry.bytes}")
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            if keep:
                chunks.append(chunk)
    if digest.hexdigest() != entry.sha256:
        raise BundleError(
            f"{path}: the content was changed: SHA-256 is {digest.hexdigest()}, "
            f"the manifest says {entry.sha256}"
        )
    return b"".join(chunks)
