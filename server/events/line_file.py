"""A file of lines that grows at its end: each line is there whole, or not at all.

Rules
-----
* A line is one write to the end of the file (O_APPEND). What a full disk took only half of is cut
  off again; a file that was left in mid-line (the machine lost power) goes on with a new line.
* Whoever rotates the file away need not tell us: before each line we look whether the path still
  names what we have open, and open it anew where it does not.
* A file per server. Two that share one keep their lines whole, but for a full disk.

What it does not do: rotate, compress, or sync. A line is the system's once it is written.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MODE = 0o640
FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class LineFile:
    """The open file. Not for several threads at once.

    Parameters
    ----------
    path
        Where; the folder has to be there.

    Raises
    ------
    OSError
        It cannot be opened, or is no plain file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._open()

    def append(self, line: bytes) -> None:
        """Write one line; the newline is added.

        Raises
        ------
        OSError
            It is not written, not even in part.
        """
        if self._is_gone():
            self.close()
            self._open()
        data = line + b"\n"
        if not self._ends_a_line():
            data = b"\n" + data
        n_written = os.write(self._descriptor, data)
        if n_written < len(data):
            self._take_back(n_written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        descriptor = os.open(self._path, FLAGS, MODE)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a plain file")
        self._descriptor = descriptor

    def _is_gone(self) -> bool:
        if self._descriptor < 0:
            return True
        ours = os.fstat(self._descriptor)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def _ends_a_line(self) -> bool:
        size = os.fstat(self._descriptor).st_size
        return size == 0 or os.pread(self._descriptor, 1, size - 1) == b"\n"

    def _take_back(self, n_bytes: int) -> None:
        # Unless somebody else wrote behind it: then the fragment stays, on a line of its own.
        end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if os.fstat(self._descriptor).st_size == end:
            os.ftruncate(self._descriptor, end - n_bytes)
