"""Beginning again where nothing is in force: no plan of the journal can be served.

As everywhere in `changes`: pure; a change that makes no sense raises ChangeError. A deployment or
another default model then makes a plan of what can be served; what cannot leaves it, and a note
says so. Nobody loses by that: every call was refused. A rollback still is all or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from server.errors import ChangeError
from server.rollout.arms import (
    CHAMPION,
    ArmSource,
    Changed,
    describe_arms,
    drop_overrides,
    find_model,
    new_model,
    percent,
    with_model,
)
from server.rollout.split import ALL_BASIS_POINTS
from server.rollout.state import PlanState


def begin_again(
    state: PlanState, model: str, source: ArmSource, basis_points: int, problem: str, arm: str = ""
) -> Changed:
    """Let a model that cannot be served begin again, with one version and all of its traffic.

    Its salt and its labels stay; its arms leave, and with them their thresholds and overrides.

    Parameters
    ----------
    model
        Empty: the default model.
    source
        The version's bundle; the version may have taken part, with another content.
    basis_points
        All of them.
    problem
        Why the model cannot be served as it was.
    arm
        The version's arm; empty: "champion".

    Raises
    ------
    ChangeError
        A part of the traffic cannot be served.
    """
    before = find_model(state, model)
    if basis_points != ALL_BASIS_POINTS:
        raise ChangeError(
            f"nothing is in force, and model {before.name} cannot be served as it was: {problem}. "
            f"Deploy a version that can be with {percent(ALL_BASIS_POINTS)}, not "
            f"{percent(basis_points)}: the model begins again with it"
        )
    _, notes = drop_overrides(before, {one.name for one in before.arms})
    after = replace(
        new_model(before.name, source, arm or CHAMPION), salt=before.salt, labels=before.labels
    )
    again = (
        f"model {before.name} begins again with {source.version}; former {describe_arms(before)}"
    )
    return Changed(with_model(state, after), (again, *notes))


def leave_out(state: PlanState, problems: Mapping[str, str]) -> Changed:
    """Let models that cannot be served leave a plan.

    Parameters
    ----------
    problems
        Why, by model.

    Raises
    ------
    ChangeError
        The default model is among them: requests that name none must not go to another unasked.
    """
    default = problems.get(state.default_model)
    if default is not None:
        raise ChangeError(
            f"nothing is in force, and the default model {state.default_model} cannot be served: "
            f"{default}. `scoregate deploy {state.default_model} VERSION --traffic 100` first, or "
            "`scoregate models default` makes another the default"
        )
    notes = tuple(
        f"model {name} cannot be served and does not take part: {problem}"
        for name, problem in problems.items()
    )
    left = tuple(model for model in state.models if model.name not in problems)
    return Changed(replace(state, models=left), notes)
