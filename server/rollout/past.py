"""Which plan was before: what a rollback goes back to.

Rules: the past is a stack. A change with another content goes on top of it; a rollback, to
wherever, takes everything above its target off again. So each rollback goes one plan farther back,
and never to the one that was just left: whoever types it again in an incident means "farther". A
plan that was left so is reached by its generation.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from server.errors import ChangeError
from server.rollout.changes import same_content
from server.rollout.entry import Entry
from server.rollout.journal import Journal
from server.rollout.state import PlanState

# Changes that the past is made of; what is older is reached by its generation.
MAX_CHANGES = 1000
BACKWARDS = frozenset({"rollback", "recover"})


def plan_before(journal: Journal) -> PlanState:
    """Return the plan before the one in force.

    Raises
    ------
    ChangeError
        There is none.
    """
    newest_first = list(islice(journal.walk(), MAX_CHANGES))
    past = stack_of(reversed(newest_first))
    if len(past) < 2:
        raise ChangeError(
            "there is no plan before the one in force: deploy another version, then promote it; or "
            "name a generation of `scoregate history`"
        )
    return past[-2]


def stack_of(entries: Iterable[Entry]) -> list[PlanState]:
    """Return the plans that lead to the one in force, the oldest first."""
    stack: list[PlanState] = []
    for entry in entries:
        state = entry.state
        if entry.verb in BACKWARDS and any(same_content(one, state) for one in stack):
            while not same_content(stack[-1], state):
                stack.pop()
        elif not stack or not same_content(stack[-1], state):
            stack.append(state)
    return stack
