"""How the demo makes drift visible within a minute: when the fault comes, and windows to match.

The replay sends a week in a few minutes, so the clock of its transactions runs thousands of times
too fast, and a real server's ten minutes, a day and 5,000 rows would not do. Windows go by event
time and by rows; here they are given in seconds of the demo and scaled:

    fast window   WINDOW_S of calls, and at least a third of that in event time
    slow window   SLOW_WINDOWS of those, in event time
    fault         after CALM_WINDOWS of those: by then the slow window is full, and all is stable

A retrain needs two fast windows that share no row, so it comes some two WINDOW_S after the fault.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.demo.faults import FAULTS, Fault, FaultKind

WINDOW_S = 3.0
SLOW_WINDOWS = 4.0
CALM_WINDOWS = 5.0
INTERVAL_S = 0.5
DRAIN_S = 0.25
# Rows beyond are left out: at a high rate, windows are of as many rows as they need to be.
MAX_ROWS_PER_S = 1000.0
LEAST_ROWS = 600  # what a window needs to say anything
# Lengths of the slow window's steps: they have to divide an hour.
PANES_S = (3600, 1800, 1200, 900, 600, 300, 120, 60, 30, 10, 1)
LEAST_PANES = 12
# What the settings allow.
LEAST_SLOW_S, MOST_SLOW_S = 60.0, 31_536_000.0
MOST_MIN_SPAN_S = 86_400.0


@dataclass(frozen=True)
class DriftStory:
    """A demo with drift: what is injected, when, and how the server looks at it.

    Attributes
    ----------
    kind : FaultKind
    rate : float
        Calls a second.
    speed : float
        Seconds of event time in a second of the demo.
    given_after_s : float or None
        When the fault comes, as the user wants it.
    """

    kind: FaultKind
    rate: float
    speed: float
    given_after_s: float | None = None

    @property
    def fault(self) -> Fault:
        """What is injected."""
        return FAULTS[self.kind]

    @property
    def rows_per_s(self) -> float:
        """Rows that are looked at in a second."""
        return min(self.rate, MAX_ROWS_PER_S)

    @property
    def window_rows(self) -> int:
        """Rows of the fast window."""
        return max(LEAST_ROWS, round(self.rows_per_s * WINDOW_S))

    @property
    def window_s(self) -> float:
        """How long it takes to fill it."""
        return self.window_rows / self.rows_per_s

    @property
    def after_s(self) -> float:
        """When the fault comes, in seconds of replaying."""
        after_s = self.given_after_s
        return CALM_WINDOWS * self.window_s if after_s is None else after_s

    @property
    def serve_options(self) -> list[str]:
        """Options of `scoregate serve` for windows of the demo's clock."""
        window_s = self.window_s * self.speed
        slow_s = min(max(LEAST_SLOW_S, SLOW_WINDOWS * window_s), MOST_SLOW_S)
        min_span_s = min(window_s / 3, MOST_MIN_SPAN_S)
        pane_s = next(pane for pane in PANES_S if pane * LEAST_PANES <= slow_s or pane == 1)
        return [
            *("--drift-rows-per-s", f"{MAX_ROWS_PER_S:g}"),
            *("--drift-window-rows", str(self.window_rows)),
            *("--drift-min-span-s", f"{_round(min_span_s):.10g}"),
            *("--drift-slow-span-s", f"{_round(slow_s):.10g}"),
            *("--drift-pane-s", str(pane_s)),
            *("--drift-interval-s", f"{INTERVAL_S:g}"),
            *("--drift-drain-s", f"{DRAIN_S:g}"),
        ]

    @property
    def replay_options(self) -> list[str]:
        """Options of the client that replays."""
        return ["--drift", self.kind, "--drift-after", repr(self.after_s)]

    def lines(self, where: str, sidecar: str) -> list[str]:
        """Return, for people, what will happen and what to type in another terminal.

        Parameters
        ----------
        where : str
            The option that says where the control port is; empty: where it usually is.
        sidecar : str
            The sidecar's address.
        """
        when = f"after {self.after_s:g} s, " if self.fault.feature else ""
        return [
            f"Drift: {when}{self.fault.words}; to be expected: {self.fault.expected}.",
            f"  A second of the replay is {_clock(self.speed)} of the transactions' time; drift is",
            f"  judged on the newest {self.window_rows:,} rows, {self.window_s:.1f} s.",
            "  Look at it from another terminal:",
            f"    scoregate drift report{where}",
            f"    curl -s http://{sidecar}/metrics | grep -E '^ml_(data|feature)_drift_score'",
        ]


def _round(seconds: float) -> float:
    """Round to minutes, as people read durations, where seconds do not matter."""
    return float(round(seconds / 60) * 60) if seconds >= 600 else round(seconds, 1)


def _clock(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
