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
from rich.table import Table
from rich.text import Text

from server.demo.traffic import INCOMPLETE_SHARE, NAMED_SHARE

LINE_EVERY_S = 2.0
MIX = (
    f"On purpose, {NAMED_SHARE:.0%} of the requests name their features instead of sending them "
    f"dense, and {INCOMPLETE_SHARE:.0%} come without the terminal's: those fall back to defaults."
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
    """

    def __init__(self, console: Console, title: str, addresses: dict[str, str]) -> None:
        self._console = console
        self._title = title
        self._addresses = addresses
        self._next_line_s = LINE_EVERY_S
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        for line in _places(self._addresses):
            if self._live is None:
                self._console.print(line, highlight=False, soft_wrap=True)
        if self._live is None:
            self._console.print(MIX, LATENCY, sep="\n", highlight=False, soft_wrap=True)
        else:
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

    def update(self, state: dict[str, Any]) -> None:
        """Show the newest state of the client."""
        if not state:
            return
        if self._live is not None:
            note = Text(f"{MIX} {LATENCY} Ctrl-C ends.", style="dim")
            body = Group(*map(Text, _places(self._addresses)), "", _table(state, live=True), note)
            self._live.update(Panel(body, title=self._title), refresh=True)
        elif state["elapsed_s"] >= self._next_line_s:
            self._next_line_s = state["elapsed_s"] + LINE_EVERY_S
            self._console.print(line(state), highlight=False, soft_wrap=True)

    def finish(self, state: dict[str, Any]) -> None:
        """Print the table of the whole run."""
        self._console.print(_table(state, live=False))


def _places(addresses: dict[str, str]) -> list[str]:
    """Return the three ports as lines."""
    return [
        f"fast door  {addresses['fast']}  gRPC scoring",
        f"control    {addresses['control']}  gRPC scoring, status, health, reflection",
        f"sidecar    http://{addresses['sidecar']}/metrics  also /healthz and /readyz",
    ]


def _ms(latencies_us: dict[str, float], name: str) -> str:
    return f"{latencies_us[name] / 1000:.2f}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def line(state: dict[str, Any]) -> str:
    """Return the state as one line."""
    latency = state["recent_us"]
    decisions = ", ".join(f"{name} {n}" for name, n in sorted(state["decisions"].items()))
    fraud, caught = state.get("fraud", 0), state.get("caught", 0)
    failed = sum(state["errors"].values())
    return (
        f"{state['elapsed_s']:6.1f} s  {state['recent_calls_per_s']:.0f} calls/s  "
        f"p50 {_ms(latency, 'p50')}  p99 {_ms(latency, 'p99')}  p99.9 {_ms(latency, 'p99.9')} ms  "
        f"{decisions or 'no decisions yet'}  fallbacks {state.get('fallback_calls', 0)}  "
        f"fraud caught {caught}, missed {fraud - caught}  errors {failed}"
    )


def _table(state: dict[str, Any], *, live: bool) -> Table:
    """Lay out everything that the client has counted."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()

    def row(name: str, words: str, style: str = "") -> None:
        table.add_row(name, Text(words, style=style))

    elapsed, sent = state["elapsed_s"], state["sent"]
    answered, fraud = state.get("answered", 0), state.get("fraud", 0)
    if live:
        calls = f"{state['recent_calls_per_s']:,.0f} a second now, {sent:,} in {elapsed:.0f} s"
    else:
        calls = f"{sent:,} in {elapsed:.1f} s, {sent / max(elapsed, 1e-9):,.0f} a second"
    if state["turn"] > 1:
        calls += f" (time {state['turn']} through the test week)"
    row("calls", calls)
    for name, key in (("latency now", "recent_us"), ("latency", "latency_us")):
        if live or key == "latency_us":
            found = state[key]
            words = "  ".join(
                f"{part} {_ms(found, part)}" for part in ("p50", "p99", "p99.9", "max")
            )
            row(name, f"{words} ms")
    if state["behind_s"] > 0.5:
        row("", f"the client is {state['behind_s']:.1f} s behind its schedule: lower --rate", "red")
    parts = [f"{n} {c:,} ({_share(c, answered)})" for n, c in sorted(state["decisions"].items())]
    row("decisions", "  ".join(parts) or "none yet")
    caught = state.get("caught", 0)
    row(
        "fraud",
        f"{caught:,} caught, {fraud - caught:,} missed of {fraud:,} "
        f"({_share(caught, fraud)} caught)",
    )
    alarms = state.get("false_alarms", 0)
    row("false alarms", f"{alarms:,} ({_share(alarms, answered - fraud)} of genuine transactions)")
    row(
        "fallbacks",
        f"{state.get('fallback_calls', 0):,} calls, {state.get('fallback_values', 0):,} features "
        f"by default (sent incomplete: {state['incomplete']:,}; named: {state['named']:,})",
    )
    failed = sum(state["errors"].values())
    if failed:
        kinds = ", ".join(f"{name} {n}" for name, n in sorted(state["errors"].items()))
        row("errors", f"{failed:,}: {kinds}; the first: {state['first_error']}", "red")
    else:
        row("errors", "none")
    return table
