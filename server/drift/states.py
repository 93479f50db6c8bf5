"""The states of a monitor, and the rules by which one follows another.

warming   fewer rows, or a shorter span, than a window needs: nothing is said, not even 0
broken    a missing, unseen or fallback rate changed by 0.1 or more, or a number stands still:
          repair the pipeline; a model trained on such rows would learn the fault
retrain   the score has been at least 0.3 in every evaluation from one window to another that
          shares no row with it, and the slow window says so too
warning   the score is at least 0.1
stable    none of these

The first rule that fits decides. What has been high is forgotten as soon as one evaluation is
below, is broken, or cannot be made.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from server.drift.settings import DriftSettings

State = Literal["warming", "stable", "warning", "retrain", "broken"]
STATES: tuple[State, ...] = ("warming", "stable", "warning", "retrain", "broken")
NEVER = -1


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A state and what it remembers."""

    state: State = "warming"
    high_end: int = NEVER  # the row number behind the first window of those that were all high


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation found."""

    is_ready: bool
    is_broken: bool = False
    score: float = 0.0
    slow_agrees: bool = False
    first_row: int = 0  # number of the window's oldest row
    end_row: int = 0  # number behind its newest


def advance(machine: Machine, seen: Observed, settings: DriftSettings) -> Machine:
    """Return the next machine."""
    if not seen.is_ready:
        return Machine(state="warming")
    if seen.is_broken:
        return Machine(state="broken")
    if seen.score < settings.retrain:
        return Machine(state="warning" if seen.score >= settings.warn else "stable")
    if machine.high_end == NEVER:
        return Machine(state="warning", high_end=seen.end_row)
    confirmed = seen.first_row >= machine.high_end
    state: State = "retrain" if confirmed and seen.slow_agrees else "warning"
    return Machine(state=state, high_end=machine.high_end)
