"""Exploration: a share of a model's strictest decisions is not carried out, to see what comes.

A transaction that is blocked never shows whether it was fraud: a model that is measured on what it
let through is measured on what it thinks harmless. So a small share passes, chosen by the request
id, and every answer says with which probability; who counts weighs by its inverse.

As everywhere in `changes`: pure; a change that makes no sense raises ChangeError.
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from fastpath.ledger import MAX_EXPLORE_SHARE
from server.errors import ChangeError
from server.rollout.arms import Changed, find_model, with_model
from server.rollout.state import PlanState


def set_exploration(state: PlanState, model: str, share: float) -> Changed:
    """Set the share of a model's strictest decisions that is answered with the default one.

    Parameters
    ----------
    model
        Empty: the default model.
    share
        0 (none) to MAX_EXPLORE_SHARE.

    Raises
    ------
    ChangeError
        An unknown model, or no such share.
    """
    before = find_model(state, model)
    if not (math.isfinite(share) and 0.0 <= share <= MAX_EXPLORE_SHARE):
        raise ChangeError(
            f"model {before.name}: a share of {share} cannot be explored; it is 0 to "
            f"{MAX_EXPLORE_SHARE} (0.01: one in a hundred)"
        )
    after = with_model(state, replace(before, explore_share=share))
    if share <= 0.1:
        return Changed(after)
    note = f"{share:.0%} of what model {before.name} would stop passes, with the default decision"
    return Changed(after, (note,))
