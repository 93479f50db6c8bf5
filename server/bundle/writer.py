"""Writes a bundle directory: aside, fsynced, then renamed into place.

A version is immutable: an existing directory is never overwritten. A crash at any moment leaves
either no bundle or a whole one (and perhaps a hidden `.…` directory, which no reader looks at).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from server.bundle.manifest import MANIFEST, FileEntry, Manifest, decode_manifest, encode
from server.errors import BundleError


def check_vacant(out: Path | str) -> None:
    """Raise BundleError where a bundle cannot be written because something is there already."""
    if os.path.lexists(out):
        raise BundleError(
            f"{out}: exists already; a version is immutable: choose another version, or remove it"
        )


def write_bundle(out: Path | str, manifest: Manifest, content: Mapping[str, bytes]) -> bytes:
    """Write a bundle.

    Parameters
    ----------
    out : path
        The new directory, `<repository>/<model>/<version>`; parents are made.
    manifest : Manifest
        Complete but for `files`, which is filled in from `content`.
    content : mapping of str to bytes
        Every file of the bundle except the manifest.

    Returns
    -------
    bytes
        SHA-256 of the manifest as written: the bundle's identity.

    Raises
    ------
    BundleError
        `out` exists, the manifest is not consistent, or the directory cannot be written.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() would follow symbolic links
    check_vacant(out)
    files = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in content.items()
    }
    raw = encode(msgspec.structs.replace(manifest, files=files))
    decode_manifest(raw, str(out / MANIFEST))  # what is written must be readable
    try:
        _make_parents(out.parent)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise BundleError(f"{out.parent}: cannot be written: {error.strerror}") from error
    try:
        for name, data in {**content, MANIFEST: raw}.items():
            _write_synced(aside / name, data)
        aside.chmod(0o755)
        _sync_directory(aside)
        check_vacant(out)
        aside.rename(out)
        _sync_directory(out.parent)
    except OSError as error:
        raise BundleError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return hashlib.sha256(raw).digest()


def _make_parents(path: Path) -> None:
    """Create directories, each made durable in its own parent."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        _sync_directory(directory.parent)


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
