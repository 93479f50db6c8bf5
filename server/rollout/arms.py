"""What changes of a plan have in common: finding models and arms, results, refusals.

Every change is a pure function from a plan's state to a `Changed`: the next state, still with the
same generation (who puts it in force gives it the next one), and notes for the operator. A change
that makes no sense raises ChangeError and says which arms there are. Whether changes are frozen is
for whoever puts them in force to look at.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from msgspec.structs import replace

from server.bundle.manifest import NAME_PATTERN
from server.errors import ChangeError
from server.rollout.split import ALL_BASIS_POINTS
from server.rollout.state import ArmState, ModelState, PlanState, pack_table

# Of the keys in a note; the journal has them all.
MAX_SHOWN_KEYS = 5
CHAMPION = "champion"


class ArmSource(NamedTuple):
    """What a change needs to know about a version's bundle."""

    version: str
    sha256: str  # of the manifest, hex
    thresholds: tuple[tuple[str, float, float], ...]  # (name, raw score, score), ascending
    routing_entity: str = ""


class Changed(NamedTuple):
    """What a change comes to."""

    state: PlanState
    notes: tuple[str, ...] = ()  # what an operator should know about it


def check_name(name: str, what: str) -> None:
    """Refuse a name that bundles, URLs and metrics could not carry.

    Raises
    ------
    ChangeError
        It is not such a name.
    """
    if re.fullmatch(NAME_PATTERN, name) is None or name.endswith("\n"):
        raise ChangeError(
            f"{what}: {name!r} is not a name: 1 to 100 letters, digits, '.', '_' and '-', "
            "the first a letter or a digit"
        )


def new_model(model: str, source: ArmSource, arm: str = CHAMPION) -> ModelState:
    """Return a model that starts to serve: one arm, with all of its traffic."""
    check_name(model, "model")
    check_name(source.version, "version")
    champion = ArmState(
        name=arm,
        version=source.version,
        sha256=source.sha256,
        weight_basis_points=ALL_BASIS_POINTS,
    )
    # The name is the salt: servers beside each other split alike without being told to.
    return ModelState(
        name=model, arms=(champion,), table=pack_table(bytes(ALL_BASIS_POINTS)), salt=model
    )


def find_model(state: PlanState, name: str) -> ModelState:
    """Return a model by name; empty: the default one.

    Raises
    ------
    ChangeError
        It does not take part.
    """
    model = state.model(name)
    if model is None:
        raise ChangeError(
            f"model {name!r} does not serve; models that do: "
            f"{', '.join(one.name for one in state.models) or 'none'}"
        )
    return model


def resolve_arm(model: ModelState, name: str) -> ArmState:
    """Return an arm by its name, else by the version that it serves.

    Raises
    ------
    ChangeError
        There is none, or several arms serve the version.
    """
    for arm in model.arms:
        if arm.name == name:
            return arm
    found = [arm for arm in model.arms if arm.version == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ChangeError(
            f"model {model.name}: version {name!r} is ambiguous: arms "
            f"{', '.join(arm.name for arm in found)} serve it; name the arm"
        )
    raise ChangeError(f"model {model.name}: no arm or version {name!r}; {describe_arms(model)}")


def describe_arms(model: ModelState) -> str:
    """Return a model's arms for a message: "arms: champion (1.0, 90 %), canary (1.1, 10 %)"."""
    return "arms: " + ", ".join(
        f"{arm.name} ({arm.version}, {percent(arm.weight_basis_points)})" for arm in model.arms
    )


def percent(basis_points: int) -> str:
    """Return a weight for people: "12.5 %"."""
    return f"{basis_points / 100:g} %"


def with_model(state: PlanState, model: ModelState) -> PlanState:
    """Return a state with one model put in, or in the place of the one of its name."""
    others = [one for one in state.models if one.name != model.name]
    return replace(state, models=tuple(sorted((*others, model), key=lambda one: one.name)))


def drop_overrides(model: ModelState, leaving: Collection[str]) -> tuple[ModelState, list[str]]:
    """Return a model without the overrides that pin keys to arms that leave, and notes of them."""
    dropped: dict[str, list[str]] = {}
    for key, arm in model.overrides.items():
        if arm in leaving:
            dropped.setdefault(arm, []).append(key)
    kept = {key: arm for key, arm in model.overrides.items() if arm not in leaving}
    notes = [
        f"model {model.name}: arm {arm} leaves, and so do the overrides that pinned "
        f"{_some(keys)} to it"
        for arm, keys in dropped.items()
    ]
    return replace(model, overrides=kept), notes


def _some(keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    shown = ", ".join(repr(key) for key in ordered[:MAX_SHOWN_KEYS])
    more = len(ordered) - MAX_SHOWN_KEYS
    return f"{shown} and {more} more" if more > 0 else shown
