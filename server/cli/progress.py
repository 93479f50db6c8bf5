"""What runs now, on stderr, for people who wait at a terminal."""

from __future__ import annotations

import sys


class Progress:
    """A spinner with the running step; silent where stderr is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._status = Console(stderr=True).status("starting") if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def step(self, text: str) -> None:
        """Say what runs now."""
        if self._status:
            self._status.update(text)
