"""Windows on disk: one file for each content of a version, beside the journal.

Files are whole or not there. A disk that takes nothing is told once, until it takes something
again. What a process that was killed left half written is removed at the next start, and so is
what is older than any window can use; the journal sees to it that there is no second process.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from server.files import write_whole
from server.rollout.loaded import Key

SUFFIX = ".drift"

log = logging.getLogger(__name__)


class KeptWindows:
    """The windows of versions that serve, or did.

    Parameters
    ----------
    directory
        Where they are; None: nothing is kept.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._not_kept: set[Key] = set()

    @property
    def is_off(self) -> bool:
        """Whether nothing is kept."""
        return self._directory is None

    def read(self, key: Key) -> bytes | None:
        """Return what is kept of a version, or None.

        Raises
        ------
        OSError
            It cannot be read.
        """
        if self._directory is None:
            return None
        try:
            return self._path(self._directory, key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, key: Key, data: bytes) -> None:
        """Keep this of a version; where that cannot be, say so once."""
        if self._directory is None:
            return
        path = self._path(self._directory, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            if not self._not_kept:
                log.warning(
                    "drift windows cannot be kept in %s: %s; told once until they can",
                    path,
                    error.strerror or error,
                )
            self._not_kept.add(key)
        else:
            self._not_kept.discard(key)

    def sweep(self, older_than_s: float) -> None:
        """Remove what was left half written, and what was not written for so long."""
        if self._directory is None:
            return
        for path in self._directory.glob(f"*/.*{SUFFIX}.*"):
            path.unlink(missing_ok=True)
        for path in self._directory.glob(f"*/*{SUFFIX}"):
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink(missing_ok=True)

    @staticmethod
    def _path(directory: Path, key: Key) -> Path:
        return directory / key.model / f"{key.version}-{key.sha256[:16]}{SUFFIX}"
