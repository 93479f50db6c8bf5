"""What a run shows while it goes on: one live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from bench.generator import Progress

EVERY_S = 5.0  # where nobody can redraw a line


class Display:
    """Says what is done, and how the running load is doing, on standard error."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._quiet = quiet
        self._started = time.monotonic()
        self._drawn = False
        self._last = time.monotonic()
        self._label = ""

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._quiet:
            return
        self._clear()
        elapsed = time.monotonic() - self._started
        self._stream.write(f"[{elapsed:6.1f} s] {text}\n")
        self._stream.flush()

    def begin(self, label: str) -> None:
        """Name the load that starts now."""
        self._label = label
        self._last = time.monotonic()
        if not self._live:
            self.say(label)

    def show(self, progress: Progress) -> None:
        """Take the load's progress; some ten times a second."""
        if self._quiet:
            return
        if self._live:
            self._clear()
            self._stream.write(self._line(progress)[:118])
            self._stream.flush()
            self._drawn = True
        elif time.monotonic() - self._last >= EVERY_S:
            self._last = time.monotonic()
            self.say("  " + self._line(progress))

    def end(self) -> None:
        """Remove the live line."""
        self._clear()
        self._stream.flush()

    def _line(self, progress: Progress) -> str:
        if progress.elapsed_s < 0:
            return f"{self._label}: warming up"
        text = f"{self._label}: {progress.elapsed_s:5.1f} s, {progress.n_answered:,} answers"
        if progress.last is not None:
            last = progress.last
            text += f", {last.calls:,}/s, p50 {last.p50_us:.0f} µs, p99 {last.p99_us:.0f} µs"
        return text + (f", {progress.n_errors:,} errors" if progress.n_errors else "")

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._drawn = False
