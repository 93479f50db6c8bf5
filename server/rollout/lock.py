"""A file that one process holds: who comes second learns who was first.

The lock is the kernel's (flock), so it ends with the process, however that ends. The file stays,
and what it says is only a hint for people.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from server.errors import JournalError

ADVICE = "one server has one journal; stop that one, or give this one another"


class ProcessLock:
    """Held from construction to `release`.

    Parameters
    ----------
    path
        Of the lock file; made if it is not there.
    what
        What the lock protects, for messages.
    advice
        What to do where another process holds it.

    Raises
    ------
    JournalError
        Another process holds it, or the file cannot be made.
    """

    def __init__(self, path: Path, what: str, advice: str = ADVICE) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(
                f"{what}: its lock file {path.name} cannot be opened: {error.strerror}; the "
                "directory has to be there and writable"
            ) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 64, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            if isinstance(error, BlockingIOError):
                raise JournalError(
                    f"{what} is in use by process {holder or '(unknown)'}: {advice}"
                ) from None
            raise JournalError(
                f"{what}: its file system has no locks ({error.strerror}): put it on a local disk"
            ) from None
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # a full disk: the lock holds without the hint

    def release(self) -> None:
        """Let the next process in. Does nothing the second time."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
