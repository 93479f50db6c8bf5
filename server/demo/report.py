"""What the demo shows: steps, a live panel on a terminal, lines elsewhere, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from server.demo.drift_words import drift_news
from server.demo.summary import line, table
from server.demo.traffic import INCOMPLETE_SHARE, NAMED_SHARE

LINE_EVERY_S = 2.0
NAMED = f"{NAMED_SHARE:.0%} of the requests name their features instead of sending them dense"
WITHOUT_STORE = (
    f"On purpose, {NAMED}, and {INCOMPLETE_SHARE:.0%} come without the terminal's: those fall "
    "back to defaults."
)
WITH_STORE = (
    f"Requests carry the amount and the time; the rest is in the store. On purpose, {NAMED}."
)
LATENCY = (
    "Latency counts from when a call was due, and includes the Python client's own time "
    "(a few tenths of a millisecond)."
)


class Steps:
    """Says what is being done, and how long it took.

    Parameters
    ----------
    console : rich.console.Console
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, words: str) -> Iterator[Any]:
        """Show a step while it lasts; what it yields is called with the words of sub-steps."""
        start = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(words) as status:
                yield lambda detail: status.update(f"{words}: {detail}")
        else:
            yield lambda detail: self.say(f"  {detail}")
        self.say(f"{words}: {time.monotonic() - start:.1f} s")

    def say(self, words: str) -> None:
        """Print a line."""
        self._console.print(words, highlight=False, markup=False, soft_wrap=True)


class Summary:
    """The live summary: a panel on a terminal, a plain line every two seconds elsewhere.

    Parameters
    ----------
    console : rich.console.Console
    title : str
    addresses : dict of str to str
        The three ports, by door.
    store : str
        The kind of store: "lmdb", "redis" or "none".
    """

    def __init__(self, console: Console, title: str, addresses: dict[str, str], store: str) -> None:
        self._console = console
        self._title = title
        self._addresses = addresses
        self._note = WITHOUT_STORE if store == "none" else WITH_STORE
        self._said = ""
        self._news: set[str] = set()
        self._next_line_s = LINE_EVERY_S
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        for place in _places(self._addresses):
            if self._live is None:
                self._console.print(place, highlight=False, soft_wrap=True)
        # Not in the panel, which has to fit on a small screen.
        self._console.print(self._note, LATENCY, sep="\n", highlight=False, soft_wrap=True)
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            # The panel disappears: the final table says it all.
            self._live.update(Text(""), refresh=True)
            self._live.stop()

    def update(self, state: dict[str, Any], process: str) -> None:
        """Show the newest state of the client, and a line on the store's process."""
        self._say_changes(process)
        if not state:
            return
        self._say_news(state)
        if self._live is not None:
            body = Group(*map(Text, _places(self._addresses)), table(state, process, live=True))
            panel = Panel(body, title=self._title, subtitle="Ctrl-C ends")
            self._live.update(panel, refresh=True)
        elif state["elapsed_s"] >= self._next_line_s:
            self._next_line_s = state["elapsed_s"] + LINE_EVERY_S
            self._console.print(line(state), highlight=False, soft_wrap=True)

    def _say_changes(self, process: str) -> None:
        """Print what became of the store's process, where there is no panel to show it."""
        # Without what counts down, or every second would be a change.
        words = process.partition(",")[0]
        if self._live is None and self._said and words != self._said:
            self._console.print(f"  {process}", highlight=False, soft_wrap=True)
        self._said = words

    def _say_news(self, state: dict[str, Any]) -> None:
        """Print what has happened with drift since the last time; above the panel, if any."""
        for words in drift_news(state):
            if words not in self._news:
                self._news.add(words)
                self._console.print(words, highlight=False, markup=False, soft_wrap=True)

    def finish(self, state: dict[str, Any], process: str) -> None:
        """Print the table of the whole run."""
        self._console.print(table(state, process, live=False))


def _places(addresses: dict[str, str]) -> list[str]:
    """Return the three ports as lines."""
    return [
        f"fast door  {addresses['fast']}  gRPC scoring",
        f"control    {addresses['control']}  gRPC scoring, status, health, reflection",
        f"sidecar    http://{addresses['sidecar']}/metrics  also /healthz and /readyz",
    ]
