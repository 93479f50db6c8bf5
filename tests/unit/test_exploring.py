"""Exploration as a change: pure, checked, and carried over by what does not touch it."""

from __future__ import annotations

import math

import pytest

from server.errors import ChangeError
from server.rollout import changes
from server.rollout.arms import ArmSource
from server.rollout.state import PlanState, decode_state, encode_state

SOURCE = ArmSource("1", "ab" * 32, (("block", 1.0, 0.7),), "customer")


def plan() -> PlanState:
    return changes.initial({"fraud": SOURCE}, "fraud").state


def share(state: PlanState) -> float:
    return state.models[0].explore_share


def test_a_share_is_set_and_taken_back() -> None:
    state = changes.set_exploration(plan(), "", 0.05).state
    assert share(state) == 0.05
    assert share(decode_state(encode_state(state))) == 0.05
    assert changes.set_exploration(state, "fraud", 0.0).state == plan()
    assert changes.restore(state, plan()).state.models == plan().models


def test_other_changes_leave_it() -> None:
    state = changes.set_exploration(plan(), "", 0.05).state
    deployed = changes.deploy(state, "", SOURCE._replace(version="2"), 1_000).state
    assert share(deployed) == share(changes.promote(deployed, "", "2").state) == 0.05


def test_much_of_it_is_worth_a_note() -> None:
    assert not changes.set_exploration(plan(), "", 0.1).notes
    [note] = changes.set_exploration(plan(), "", 0.25).notes
    assert "25% of what model fraud would stop passes" in note


@pytest.mark.parametrize("wrong", [-0.01, 0.51, math.nan, math.inf])
def test_what_cannot_be_explored_is_refused(wrong: float) -> None:
    with pytest.raises(ChangeError, match=r"model fraud: a share of .* cannot be explored"):
        changes.set_exploration(plan(), "", wrong)


def test_states_of_before_there_was_exploration_are_read() -> None:
    document = encode_state(plan()).replace(b',"explore_share":0.0', b"")
    assert b"explore" not in document
    assert decode_state(document) == plan()
