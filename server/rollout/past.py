"""Which plan was before: what a rollback goes back to.

Rules: the past is a stack. A change with another content goes on top of it; a rollback, to
wherever, takes everything above its target off again. So each rollback goes one plan farther back,
and never to the one that was just left: whoever types it again in an incident means "farther". A
plan that was left so is reached by its generation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from msgspec.structs import replace

from server.errors import ChangeError
from server.rollout.changes import same_content
from server.rollout.entry import Entry
from server.rollout.journal import Journal
from server.rollout.state import PlanState, encode_state

# Changes that the past is made of; what is older is reached by its generation.
MAX_CHANGES = 1000
BACKWARDS = frozenset({"rollback", "recover"})


class Step(NamedTuple):
    """A change, without its plan: a thousand plans would be too much to hold."""

    generation: int
    is_backwards: bool
    content: bytes  # digest of what serves after it


def plan_before(journal: Journal) -> PlanState:
    """Return the plan before the one in force.

    Raises
    ------
    ChangeError
        There is none.
    """
    found = _just_before(journal)
    if found is not None:
        return found
    newest_first = [_step(entry) for entry in islice(journal.walk(), MAX_CHANGES)]
    past = stack_of(reversed(newest_first))
    entry = journal.get(past[-2].generation) if len(past) > 1 else None
    if entry is None:
        raise ChangeError(
            "there is no plan before the one in force: deploy another version, then promote it; or "
            "name a generation of `scoregate history`"
        )
    return entry.state


def stack_of(steps: Iterable[Step]) -> list[Step]:
    """Return the steps to the plans that lead to the one in force, the oldest first."""
    stack: list[Step] = []
    for step in steps:
        if step.is_backwards and any(one.content == step.content for one in stack):
            while stack[-1].content != step.content:
                stack.pop()
        elif not stack or stack[-1].content != step.content:
            stack.append(step)
    return stack


def _just_before(journal: Journal) -> PlanState | None:
    """Return the plan before, where nobody went back lately: then it is not far."""
    newer: Entry | None = None
    for entry in islice(journal.walk(), MAX_CHANGES):
        if newer is not None and not same_content(newer.state, entry.state):
            return entry.state
        if entry.verb in BACKWARDS:
            return None
        newer = entry
    return None


def _step(entry: Entry) -> Step:
    content = encode_state(replace(entry.state, generation=0, frozen=""))
    return Step(entry.generation, entry.verb in BACKWARDS, hashlib.sha256(content).digest())
