"""Changes of what serves: which versions take part, and with which share of the traffic.

Rules
-----
* A change is a function from a state to a `Changed`: it does nothing, reads no clock and no disk,
  and leaves the generation to whoever puts the state in force. What it refuses, and how, is
  told in `arms`; weights and bucket tables are `split`'s; thresholds, overrides and labels are in
  `attributes`; what changes the plan as a whole is in `whole`,
  what brings one in force where none is in `mend`. All are meant to be used from here.
* The first arm of a model is "champion". A newcomer is "canary", then "canary-2" and so on.
* A newcomer gets exactly its share; the others keep what is left, in proportion. An arm that
  leaves gives its share to the others in proportion. Either way exactly that share of the buckets
  moves, and nobody else's.
* Overrides leave with the arm that they pin keys to, and a note says so.

A state that comes out is one that can be served, if its bundles can: models by name, at least one
arm each, weights and table in agreement, overrides that name arms.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from server.errors import ChangeError
from server.rollout.arms import (
    CHAMPION,
    ArmSource,
    Changed,
    check_name,
    describe_arms,
    drop_overrides,
    find_model,
    new_model,
    percent,
    resolve_arm,
    with_model,
)
from server.rollout.attributes import set_labels, set_overrides, set_thresholds
from server.rollout.exploring import set_exploration
from server.rollout.mend import begin_again, leave_out
from server.rollout.split import (
    ALL_BASIS_POINTS,
    MAX_ARMS,
    check_basis_points,
    in_proportion,
    with_weights,
    without_arms,
)
from server.rollout.state import ArmState, ModelState, PlanState
from server.rollout.whole import (
    freeze,
    initial,
    n_buckets_moved,
    restore,
    same_content,
    set_default_model,
    unfreeze,
)

__all__ = [
    "ArmSource",
    "Changed",
    "begin_again",
    "deploy",
    "find_model",
    "freeze",
    "initial",
    "leave_out",
    "n_buckets_moved",
    "promote",
    "resolve_arm",
    "restore",
    "retire",
    "same_content",
    "set_default_model",
    "set_exploration",
    "set_labels",
    "set_overrides",
    "set_thresholds",
    "set_traffic",
    "unfreeze",
]

CANARY = "canary"


def deploy(
    state: PlanState, model: str, source: ArmSource, basis_points: int, arm: str = ""
) -> Changed:
    """Let a version take part.

    Parameters
    ----------
    model
        Empty: the default model. One that does not serve yet starts to, and its first version
        takes all of its traffic.
    source
        The version's bundle.
    basis_points
        The newcomer's weight, exactly; 0: only overrides reach it.
    arm
        The newcomer's name; empty: "canary", or "canary-2" and so on.

    Raises
    ------
    ChangeError
        The version takes part already, the name is taken or none, there are 255 arms, or the
        weight is outside its range.
    """
    check_basis_points(basis_points, f"deploy {source.version}")
    check_name(source.version, "version")
    if arm:
        check_name(arm, "arm")
    before = state.model(model)
    if before is None:
        if basis_points != ALL_BASIS_POINTS:
            raise ChangeError(
                f"model {model!r} does not serve yet, so its first version takes all of its "
                f"traffic: deploy it with {percent(ALL_BASIS_POINTS)}, not {percent(basis_points)}"
            )
        after = new_model(model, source, arm or CHAMPION)
        return Changed(with_model(state, after), (f"model {model} starts to serve",))
    name = _newcomer(before, source, arm)
    others = in_proportion(
        [one.weight_basis_points for one in before.arms], ALL_BASIS_POINTS - basis_points
    )
    newcomer = ArmState(
        name=name, version=source.version, sha256=source.sha256, weight_basis_points=basis_points
    )
    after = with_weights(before, [*others, basis_points], [newcomer])
    return Changed(with_model(state, after))


def set_traffic(state: PlanState, model: str, weights: Mapping[str, int]) -> Changed:
    """Give arms other weights.

    Parameters
    ----------
    model
        Empty: the default model.
    weights
        Basis points by arm or version. Arms that are not named keep theirs; in the end they all
        add up to 10,000.

    Raises
    ------
    ChangeError
        They do not add up, a weight is outside its range, or an arm is unknown or named twice.
    """
    before = find_model(state, model)
    if not weights:
        raise ChangeError(f"model {before.name}: no weights given; {describe_arms(before)}")
    named: dict[str, int] = {}
    for name, basis_points in weights.items():
        arm = resolve_arm(before, name)
        check_basis_points(basis_points, f"model {before.name}, arm {name}")
        if arm.name in named:
            raise ChangeError(
                f"model {before.name}: arm {arm.name} ({arm.version}) is given two weights"
            )
        named[arm.name] = basis_points
    after = [named.get(arm.name, arm.weight_basis_points) for arm in before.arms]
    if sum(after) != ALL_BASIS_POINTS:
        kept = [
            f"{arm.name} {arm.weight_basis_points}"
            for arm in before.arms
            if arm.name not in named and arm.weight_basis_points
        ]
        hint = f" (not named, so they keep theirs: {', '.join(kept)})" if kept else ""
        raise ChangeError(
            f"model {before.name}: weights have to add up to {ALL_BASIS_POINTS} basis points, "
            f"not {sum(after)}{hint}"
        )
    return Changed(with_model(state, with_weights(before, after)))


def promote(state: PlanState, model: str, arm_or_version: str = "") -> Changed:
    """Give one arm all of a model's traffic and make it the champion; the others leave.

    Overrides that pin keys to the promoted arm stay with it under its new name.

    Parameters
    ----------
    model
        Empty: the default model.
    arm_or_version
        Empty: the only one beside the champion.

    Raises
    ------
    ChangeError
        The arm is unknown, or is not named and there is not exactly one beside the champion.
    """
    before = find_model(state, model)
    promoted = resolve_arm(before, arm_or_version) if arm_or_version else _challenger(before)
    leaving = {arm.name for arm in before.arms if arm.name != promoted.name}
    weights = [ALL_BASIS_POINTS if arm is promoted else 0 for arm in before.arms]
    after, notes = drop_overrides(without_arms(with_weights(before, weights), leaving), leaving)
    champion = replace(after.arms[0], name=CHAMPION)
    after = replace(after, arms=(champion,), overrides=dict.fromkeys(after.overrides, CHAMPION))
    return Changed(with_model(state, after), tuple(notes))


def retire(state: PlanState, model: str, arm_or_version: str = "") -> Changed:
    """Let an arm, or a whole model, leave.

    Parameters
    ----------
    model
        Empty: the default model.
    arm_or_version
        Its share goes to the other arms in proportion; if none of them has any, to the only other
        one. Empty: the whole model leaves.

    Raises
    ------
    ChangeError
        The arm is unknown or the model's only one, nothing says who takes its share, or the model
        is the default one.
    """
    before = find_model(state, model)
    if not arm_or_version:
        return _retire_model(state, before)
    leaving = resolve_arm(before, arm_or_version)
    others = [0 if arm is leaving else arm.weight_basis_points for arm in before.arms]
    if len(others) == 1:
        raise ChangeError(
            f"model {before.name}: {leaving.name} ({leaving.version}) is its only arm; deploy "
            "another version and promote that, or retire the whole model"
        )
    if not any(others):
        if len(others) > 2:
            raise ChangeError(
                f"model {before.name}: {leaving.name} has all the traffic, and nothing says which "
                f"other arm takes it: set their weights first; {describe_arms(before)}"
            )
        others = [int(arm is not leaving) for arm in before.arms]
    weights = in_proportion(others, ALL_BASIS_POINTS)
    after = without_arms(with_weights(before, weights), {leaving.name})
    after, notes = drop_overrides(after, {leaving.name})
    if leaving.name == CHAMPION:
        notes.append(
            f"model {before.name}: no arm is called {CHAMPION} any more, until one is promoted; "
            f"{describe_arms(after)}"
        )
    return Changed(with_model(state, after), tuple(notes))


def _newcomer(model: ModelState, source: ArmSource, wanted: str) -> str:
    """Name of the arm that a version becomes; ChangeError where it cannot."""
    for arm in model.arms:
        if arm.version == source.version:
            raise ChangeError(
                f"model {model.name}: version {arm.version} takes part already, as {arm.name} with "
                f"{percent(arm.weight_basis_points)}; use `scoregate traffic set` for its weight"
            )
    if len(model.arms) >= MAX_ARMS:
        raise ChangeError(
            f"model {model.name}: {len(model.arms)} versions take part, and no more can; retire one"
        )
    taken = {arm.name for arm in model.arms}
    if not wanted:
        # A version may be called "canary" too; an arm's name would hide it.
        taken |= {arm.version for arm in model.arms}
        names = (CANARY if i == 1 else f"{CANARY}-{i}" for i in range(1, 2 * MAX_ARMS + 2))
        return next(name for name in names if name not in taken)
    if wanted in taken:
        raise ChangeError(
            f"model {model.name}: there is an arm {wanted} already; {describe_arms(model)}"
        )
    for arm in model.arms:
        if arm.version == wanted:
            raise ChangeError(
                f"model {model.name}: {wanted} is the version that arm {arm.name} serves; give the "
                "newcomer another name"
            )
    return wanted


def _challenger(model: ModelState) -> ArmState:
    beside = [arm for arm in model.arms if arm.name != CHAMPION]
    if len(beside) == 1:
        return beside[0]
    if not beside:
        raise ChangeError(
            f"model {model.name}: nothing to promote beside the champion; {describe_arms(model)}"
        )
    raise ChangeError(f"model {model.name}: say which arm to promote; {describe_arms(model)}")


def _retire_model(state: PlanState, model: ModelState) -> Changed:
    if model.name == state.default_model:
        raise ChangeError(
            f"model {model.name} is the default one: requests that name no model go to it, so it "
            "cannot leave; `scoregate models default` makes another the default first"
        )
    left = tuple(one for one in state.models if one is not model)
    return Changed(replace(state, models=left), (f"model {model.name} stops serving",))
