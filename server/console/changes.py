"""The newest changes of what serves, from the journal.

Rules: arguments and overrides of an entry hold routing keys, so nothing of them is told but what
`server.events` would tell: the models that changed and their split. An entry may hold a whole plan
with megabytes of overrides: each is read once, and only its line is kept.
"""

from __future__ import annotations

from msgspec import Struct

from server.console.words import text
from server.rollout.arms import percent
from server.rollout.entry import Entry
from server.rollout.journal import Journal
from server.rollout.state import ModelState

N_CHANGES = 20


class Change(Struct, frozen=True):
    """One entry of the journal."""

    generation: int
    time_ms: int
    who: str
    is_verified: bool  # proven by a token, not only said
    verb: str
    why: str
    plan: str  # what serves since then
    is_frozen: bool


class RecentChanges:
    """Lines of the newest entries. Not safe from several threads: its owner locks.

    Parameters
    ----------
    journal
        Where they are read.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lines: list[Change] = []  # newest first
        self._plan = -1  # in force when the journal was read last

    def read(self, generation: int) -> list[Change]:
        """Return the lines; the journal is read where another plan is in force than at the last.

        Raises
        ------
        JournalError
            It cannot be read.
        """
        if generation != self._plan:
            newest = self._lines[0].generation if self._lines else 0
            fresh: list[Change] = []
            for entry in self._journal.walk():
                if entry.generation <= newest or len(fresh) == N_CHANGES:
                    break
                fresh.append(_line(entry))
            self._lines = [*fresh, *self._lines][:N_CHANGES]
            self._plan = generation
        return self._lines


def _line(entry: Entry) -> Change:
    return Change(
        generation=entry.generation,
        time_ms=entry.time_ms,
        who=text(entry.who, 60),
        is_verified=entry.is_verified,
        verb=text(entry.verb, 40),
        why=text(entry.why, 200),
        plan=text("; ".join(f"{model.name}: {_split(model)}" for model in entry.state.models), 200),
        is_frozen=bool(entry.state.frozen),
    )


def _split(model: ModelState) -> str:
    return ", ".join(
        f"{arm.name} ({arm.version}) {percent(arm.weight_basis_points)}" for arm in model.arms
    )
