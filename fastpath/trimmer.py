"""Giving memory that was freed back to the system.

Rules: the loops give blocks that they no longer need back to malloc; malloc keeps them. This thread
looks now and then how much that was, and asks malloc to let go of it when it was a lot and the
loops are done with it. Never on a loop's thread: malloc_trim walks every heap, which takes
milliseconds, and holds its lock meanwhile; a loop in steady state asks malloc for nothing.

What it does not do: anything where the C library is not glibc.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

PERIOD_S = 2.0
WORTH_BYTES = 8 << 20  # returned since the last trim: less can wait for the end
LAST_BYTES = 1 << 16  # the same at the end: few bytes may free many pages
FLOOD_BYTES = 8 << 20  # returned in a period: more says that yet more is on its way


class Trimmer:
    """A thread that trims malloc's heaps after the loops have given much back.

    Parameters
    ----------
    returned_bytes : callable
        How much the loops have given back to malloc since their start. Called on the
        thread.
    period_s : float
        Seconds between two looks.
    """

    def __init__(self, returned_bytes: Callable[[], int], period_s: float = PERIOD_S) -> None:
        self._returned_bytes = returned_bytes
        self._period_s = period_s
        self._ended = threading.Event()
        self._malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._thread = threading.Thread(target=self._run, name="scoregate-trim", daemon=True)
        self.n_trims = 0

    def start(self) -> None:
        """Start to look."""
        if self._malloc_trim is not None:
            self._thread.start()

    def stop(self) -> None:
        """End the thread. Harmless when repeated, or when it never ran."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        trimmed = last = self._returned_bytes()
        while not self._ended.wait(self._period_s):
            now = self._returned_bytes()
            worth = LAST_BYTES if now == last else WORTH_BYTES
            if now - trimmed >= worth and now - last < FLOOD_BYTES:
                assert self._malloc_trim is not None
                self._malloc_trim(0)  # ctypes releases the GIL
                self.n_trims += 1
                trimmed = now
            last = now
