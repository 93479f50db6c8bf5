"""Changes that move no traffic: thresholds, overrides and labels.

Rules
-----
* An arm has its bundle's thresholds, or others that an operator set: the same names in the same
  order, strictly ascending, as raw scores that float32 holds exactly (decisions compare those).
* An override pins a routing key to an arm, whatever the key's bucket says.
* A label names a version, whether that takes part or not: whether it exists is the caller's to
  know, who can look.

As everywhere in `changes`: pure; a change that makes no sense raises ChangeError.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping

import numpy as np
from msgspec.structs import replace

from server.errors import ChangeError
from server.rollout.arms import (
    Changed,
    check_name,
    describe_arms,
    find_model,
    resolve_arm,
    with_model,
)
from server.rollout.state import ArmState, ModelState, PlanState, ThresholdState

MAX_OVERRIDES = 10_000  # of a model: they are written down whole with every change
MAX_KEY_BYTES = 1024  # of a routing key, UTF-8; requests cannot carry longer ones
MAX_LABELS = 100  # of a model


def set_thresholds(
    state: PlanState,
    model: str,
    arm_or_version: str,
    thresholds: Mapping[str, ThresholdState] | None,
) -> Changed:
    """Set an arm's thresholds instead of its bundle's.

    Parameters
    ----------
    model
        Empty: the default model.
    arm_or_version
        Empty: the only arm, or every arm where `thresholds` is None (raw scores mean something
        in one bundle only, so several arms cannot be set at once).
    thresholds
        All that the bundle has, by name, in its order. None: the bundle's own again.

    Raises
    ------
    ChangeError
        A score that is no finite float32, scores that do not ascend, other names than those that
        are set already, an unknown arm.
    """
    before = find_model(state, model)
    if thresholds is None:
        wanted = [resolve_arm(before, arm_or_version)] if arm_or_version else list(before.arms)
        after = _with_arms(before, [replace(arm, thresholds=None) for arm in wanted])
        return Changed(with_model(state, after))
    if not arm_or_version and len(before.arms) > 1:
        raise ChangeError(
            f"model {before.name}: say which arm's thresholds to set; {describe_arms(before)}"
        )
    arm = resolve_arm(before, arm_or_version or before.arms[0].name)
    checked = _checked(arm, thresholds, f"model {before.name}, arm {arm.name} ({arm.version})")
    return Changed(with_model(state, _with_arms(before, [replace(arm, thresholds=checked)])))


def set_overrides(
    state: PlanState,
    model: str,
    set: Mapping[str, str],  # noqa: A002 - as the request calls it
    remove: Collection[str] = (),
    clear: bool = False,
) -> Changed:
    """Pin routing keys to arms.

    Parameters
    ----------
    model
        Empty: the default model.
    set
        Arm or version by routing key.
    remove
        Keys to pin no longer.
    clear
        Remove all, before `set`.

    Raises
    ------
    ChangeError
        An unknown arm, a key that cannot be a routing key, that is both set and removed, or that
        is not pinned; too many keys.
    """
    before = find_model(state, model)
    where = f"model {before.name}"
    _refuse_both(set, remove, f"{where}: override")
    kept = dict(before.overrides)
    for key in remove:
        if key not in before.overrides:
            raise ChangeError(f"{where}: no override pins {key!r}, so there is none to remove")
        del kept[key]
    if clear:
        kept = {}
    for key, name in set.items():
        n_bytes = len(key.encode())
        if not 1 <= n_bytes <= MAX_KEY_BYTES:
            raise ChangeError(
                f"{where}: a routing key is 1 to {MAX_KEY_BYTES} bytes of UTF-8; "
                f"{key[:40]!r} has {n_bytes}"
            )
        kept[key] = resolve_arm(before, name).name
    if len(kept) > MAX_OVERRIDES:
        raise ChangeError(
            f"{where}: {len(kept)} overrides are more than the {MAX_OVERRIDES} that a model can "
            "have; to move many keys, deploy with a share of the traffic"
        )
    return Changed(with_model(state, replace(before, overrides=dict(sorted(kept.items())))))


def set_labels(
    state: PlanState,
    model: str,
    set: Mapping[str, str],  # noqa: A002 - as the request calls it
    remove: Collection[str] = (),
) -> Changed:
    """Give versions names such as "stable".

    Parameters
    ----------
    model
        Empty: the default model.
    set
        Version by label.
    remove
        Labels to drop.

    Raises
    ------
    ChangeError
        A label or version that is no name, a label that is a version's name, that is both set and
        removed, or that is not there.
    """
    before = find_model(state, model)
    where = f"model {before.name}"
    _refuse_both(set, remove, f"{where}: label")
    kept = dict(before.labels)
    for label in remove:
        if label not in kept:
            known = ", ".join(kept) or "none"
            raise ChangeError(f"{where}: no label {label!r} to remove; there are: {known}")
        del kept[label]
    for label, version in set.items():
        check_name(label, f"{where}: label")
        check_name(version, f"{where}: version of label {label}")
        kept[label] = version
    versions = {arm.version for arm in before.arms} | {*kept.values()}
    for label in set:
        if label in versions:
            raise ChangeError(
                f"{where}: {label!r} is a version, and a label of that name would hide it"
            )
    if len(kept) > MAX_LABELS:
        raise ChangeError(f"{where}: {len(kept)} labels; a model can have {MAX_LABELS}")
    return Changed(with_model(state, replace(before, labels=dict(sorted(kept.items())))))


def _checked(
    arm: ArmState, thresholds: Mapping[str, ThresholdState], where: str
) -> tuple[ThresholdState, ...]:
    names = [threshold.name for threshold in thresholds.values()]
    if names != list(thresholds):
        raise ValueError(f"thresholds {', '.join(names)} were given as {', '.join(thresholds)}")
    if not names:
        raise ChangeError(f"{where}: no thresholds given")
    if arm.thresholds is not None and names != [threshold.name for threshold in arm.thresholds]:
        raise ChangeError(
            f"{where}: the thresholds are {', '.join(one.name for one in arm.thresholds)}, in this "
            f"order; got {', '.join(names)}"
        )
    for one in thresholds.values():
        if not math.isfinite(one.score):
            raise ChangeError(f"{where}: threshold {one.name}: score {one.score!r} is not finite")
        with np.errstate(over="ignore"):
            as_float32 = float(np.float32(one.raw_score))
        if not (math.isfinite(as_float32) and as_float32 == one.raw_score):
            raise ChangeError(
                f"{where}: threshold {one.name}: raw score {one.raw_score!r} is not a "
                "finite float32"
            )
    for low, high in itertools.pairwise(thresholds.values()):
        if not low.raw_score < high.raw_score:
            raise ChangeError(
                f"{where}: thresholds have to ascend; {high.name} ({high.score:g}) is not above "
                f"{low.name} ({low.score:g})"
            )
    return tuple(thresholds.values())


def _with_arms(model: ModelState, changed: Collection[ArmState]) -> ModelState:
    by_name = {arm.name: arm for arm in changed}
    return replace(model, arms=tuple(by_name.get(arm.name, arm) for arm in model.arms))


def _refuse_both(set: Mapping[str, str], remove: Collection[str], what: str) -> None:  # noqa: A002
    both = sorted({*set} & {*remove})
    if both:
        raise ChangeError(f"{what} {both[0]!r} is both set and removed")
