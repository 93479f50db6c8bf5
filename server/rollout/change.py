"""Who makes a change, when it is refused, what it did, and how long the past stays in memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from server.errors import ConflictError
from server.rollout.state import PlanState

# Verbs that are allowed while changes are frozen.
ALWAYS = frozenset({"rollback", "freeze", "unfreeze", "start", "features", "recover"})


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change, and under which conditions.

    Attributes
    ----------
    who
        Name for the journal.
    is_verified
        A token said so, not only the caller.
    why
        For the journal.
    expected_generation
        The generation that the change was decided on; 0: any.
    dry_run
        Say what would happen, change nothing.
    """

    who: str
    is_verified: bool = False
    why: str = ""
    expected_generation: int = 0
    dry_run: bool = False


SERVER = Author("scoregate", is_verified=True)


def check_conditions(
    author: Author, state: PlanState, verb: str, *, ignore_freeze: bool = False
) -> None:
    """Refuse a change that its author did not decide on this state, or that a freeze forbids.

    Raises
    ------
    ConflictError
        Another generation is in force than expected, or changes are frozen.
    """
    if author.expected_generation not in (0, state.generation):
        raise ConflictError(
            f"generation {state.generation} is in force, the change was decided on "
            f"{author.expected_generation}: look at what changed (`scoregate history`), then "
            "decide again"
        )
    if state.frozen and verb not in ALWAYS and not ignore_freeze:
        raise ConflictError(
            f"changes are frozen: {state.frozen}; a rollback is allowed, and `scoregate unfreeze` "
            "ends it"
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change did, or would do."""

    before: PlanState | None
    after: PlanState
    n_buckets_moved: int
    notes: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass(slots=True)
class Retention:
    """How long the models of earlier plans stay in memory.

    Attributes
    ----------
    n_plans
        So many earlier plans, ...
    keep_s
        ... each for so long after it was replaced.
    """

    n_plans: int = 3
    keep_s: float = 3600.0
    _plans: list[tuple[float, PlanState]] = field(default_factory=list)

    def replaced(self, state: PlanState) -> None:
        """Remember a state that has just been replaced."""
        if self.n_plans:
            self._plans = [*self._plans, (time.monotonic(), state)][-self.n_plans :]

    def states(self) -> list[PlanState]:
        """Return the states whose models are kept."""
        oldest = time.monotonic() - self.keep_s
        self._plans = [(since, state) for since, state in self._plans if since >= oldest]
        return [state for _, state in self._plans]
