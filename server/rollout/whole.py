"""Changes of the plan as a whole: its beginning, its default model, going back, freezing.

And how two plans differ.

As everywhere in `changes`: pure; a change that makes no sense raises ChangeError.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from server.errors import ChangeError
from server.rollout.arms import ArmSource, Changed, find_model, new_model
from server.rollout.split import n_moved
from server.rollout.state import STATE_FORMAT, PlanState


def initial(models: Mapping[str, ArmSource], default_model: str = "") -> Changed:
    """Return the first state: one champion per model, with all its traffic.

    Parameters
    ----------
    models
        What serves, by name.
    default_model
        Model of requests that name none; empty: the only one.

    Raises
    ------
    ChangeError
        No models, several and none the default, or a default that is not among them.
    """
    if not models:
        raise ChangeError("a plan needs at least one model")
    if not default_model and len(models) > 1:
        raise ChangeError(
            f"default_model: say which of {', '.join(sorted(models))} answers requests that "
            "name none"
        )
    default = default_model or next(iter(models))
    if default not in models:
        raise ChangeError(
            f"default_model: {default!r} is not among the models that serve: "
            f"{', '.join(sorted(models))}"
        )
    first = tuple(new_model(name, source) for name, source in sorted(models.items()))
    return Changed(PlanState(generation=0, default_model=default, models=first))


def set_default_model(state: PlanState, model: str) -> Changed:
    """Let another model answer requests that name none.

    Raises
    ------
    ChangeError
        It does not serve, or none is named.
    """
    if not model:
        serving = ", ".join(one.name for one in state.models)
        raise ChangeError(f"default model: say which; models that serve: {serving}")
    return Changed(replace(state, default_model=find_model(state, model).name))


def freeze(state: PlanState, why: str) -> Changed:
    """Refuse changes from now on, except rollbacks.

    Raises
    ------
    ChangeError
        It does not say why.
    """
    if not why.strip():
        raise ChangeError("freeze: say why, so that whoever is refused knows whom to ask")
    notes = (f"changes were frozen before: {state.frozen}",) if state.frozen else ()
    return Changed(replace(state, frozen=why), notes)


def unfreeze(state: PlanState) -> Changed:
    """Allow changes again."""
    notes = () if state.frozen else ("changes were not frozen",)
    return Changed(replace(state, frozen=""), notes)


def restore(current: PlanState, earlier: PlanState) -> Changed:
    """Bring back all of an earlier state: models, arms, weights, tables, thresholds, overrides.

    Changes that are frozen stay so; a rollback comes through all the same.
    """
    restored = replace(
        earlier, generation=current.generation, frozen=current.frozen, format=STATE_FORMAT
    )
    now = {model.name for model in current.models}
    then = {model.name for model in earlier.models}
    notes = [f"model {name} serves again" for name in sorted(then - now)]
    notes += [f"model {name} stops serving" for name in sorted(now - then)]
    if current.default_model != earlier.default_model:
        notes.append(f"requests that name no model go to {earlier.default_model} again")
    return Changed(restored, tuple(notes))


def same_content(state: PlanState, other: PlanState) -> bool:
    """Return whether two states serve the same, whenever they did and whether frozen or not."""
    return replace(state, generation=other.generation, frozen=other.frozen) == other


def n_buckets_moved(before: PlanState, after: PlanState) -> int:
    """Return how many buckets another bundle scores than before, over the models in both.

    A model has 10,000. Renamed arms and other thresholds move nothing.
    """
    pairs = ((model, after.model(model.name)) for model in before.models)
    return sum(n_moved(model, other) for model, other in pairs if other is not None)
