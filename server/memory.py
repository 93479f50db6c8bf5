"""Memory of this process: how much is resident, and giving back what loading a model left."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

M_ARENA_MAX = -8  # <malloc.h>


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def limit_arenas() -> None:
    """Let threads share two heaps, where the C library would give each its own.

    Which thread carries out a change, loads or evaluates is chance; with a heap of its own each
    would in time hold the most that any of these has ever taken. Loops do not mind: they allocate
    from pools. To be called before there are threads.
    """
    with suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def trim() -> None:
    """Give freed memory back to the system, where the C library can.

    Verifying a bundle takes many times the memory that its engine keeps (parsed graph,
    onnxruntime session, parity rows): a forest of 100 deep trees leaves 155 MB of freed pages
    that glibc would hold on to. Takes milliseconds; scoring allocates nothing, so it does not wait.
    """
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:
        return  # not glibc
    malloc_trim(0)
