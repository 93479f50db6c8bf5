"""What a change did, or would do, in words: before and after of every arm that it touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from server.cli.lines import NONE, percent, plain, table
from server.cli.remote import Change, Remote, to_json

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from server.pb.scoregate.v1 import control_pb2 as pb

N_BUCKETS = 10_000
# Of the overrides that came or went; --json has them all.
MAX_OVERRIDES = 10


def make_change(remote: Remote, change: Change, method: str, request: Message) -> None:
    """Call a method that changes what serves, and print what came of it."""
    from server.pb.scoregate.v1 import control_pb2 as pb

    answer = remote.call(method, request, pb.ChangeResponse)
    click.echo(to_json(answer) if change.as_json else render(answer))


def render(answer: pb.ChangeResponse) -> str:
    """Return the answer to a change as lines."""
    before, after = answer.before, answer.after
    lines = ["dry run: this would happen, nothing was changed"] if answer.dry_run else []
    lines += list(_differences(before, after))
    moved = f"{answer.n_buckets_moved:,} of {N_BUCKETS:,} buckets"
    if answer.dry_run:
        lines.append(f"generation {before.generation} stays; {moved} would move")
    elif before.generation == after.generation:
        lines.append(f"generation {before.generation} stays")
    else:
        lines.append(f"generation {before.generation} -> {after.generation}, {moved} moved")
    lines += [f"note: {note}" for note in answer.notes]
    return "\n".join(lines)


def describe_arms(plan: pb.PlanDescription, *, names: bool = True) -> str:
    """Return who serves, in one line: "fraud: champion 1.0 90 %, canary 2.0 10 %"."""
    return "; ".join(
        (f"{model.model}: " if names else "")
        + ", ".join(
            f"{arm.arm} {arm.version} {percent(arm.weight_basis_points)}" for arm in model.arms
        )
        for model in plan.models
    )


def _differences(before: pb.PlanDescription, after: pb.PlanDescription) -> Iterator[str]:
    old = {model.model: model for model in before.models}
    new = {model.model: model for model in after.models}
    rows: list[tuple[str, ...]] = []
    more: list[str] = []
    for name in sorted({*old, *new}):
        model, then = old.get(name), new.get(name)
        if model == then:
            continue
        rows += _arm_rows(name, model, then)
        more += _thresholds(name, model, then)
        more += _pairs("label", name, _map(model, "labels"), _map(then, "labels"))
        more += _pairs("override", name, _map(model, "overrides"), _map(then, "overrides"))
        was, is_ = (one.explore_share if one else 0.0 for one in (model, then))
        if was != is_:
            more.append(f"{name}: explored share: {was:.4g} -> {is_:.4g}")
    if rows:
        yield table(rows, right=(3, 6))
    yield from more
    if before.default_model != after.default_model:
        yield f"default model: {before.default_model or NONE} -> {after.default_model}"
    if before.frozen != after.frozen:
        yield f"changes are frozen: {after.frozen}" if after.frozen else "changes are allowed again"


def _arm_rows(
    name: str, before: pb.ModelPlan | None, after: pb.ModelPlan | None
) -> Iterator[tuple[str, ...]]:
    """Return a row for each version, those of before first; none where arms stay as they are."""
    old, new = _cells(before), _cells(after)
    if old == new:
        return
    for key in dict.fromkeys((*old, *new)):
        yield (name, key[0], *old.get(key, (NONE, NONE)), "->", *new.get(key, (NONE, NONE)))


def _cells(model: pb.ModelPlan | None) -> dict[tuple[str, bytes], tuple[str, str]]:
    """Return what is shown of every version of a model."""
    return {
        (arm.version, arm.sha256): (arm.arm, percent(arm.weight_basis_points))
        for arm in (model.arms if model else ())
    }


def _thresholds(
    name: str, before: pb.ModelPlan | None, after: pb.ModelPlan | None
) -> Iterator[str]:
    """Say which thresholds are others; of arms that came or went there is nothing to compare."""
    old = {(arm.version, arm.sha256): arm for arm in (before.arms if before else ())}
    for arm in after.arms if after else ():
        former = old.get((arm.version, arm.sha256))
        was = {one.name: one for one in (former.thresholds if former else arm.thresholds)}
        for one in arm.thresholds:
            then = was.get(one.name)
            if then is None or then == one:
                continue
            whose = "" if one.is_override else ", the bundle's own"
            yield (
                f"threshold {one.name} of {name} {arm.version} ({arm.arm}): "
                f"{then.score:.6g} -> {one.score:.6g}{whose}"
            )


def _map(model: pb.ModelPlan | None, field: str) -> Mapping[str, str]:
    return {} if model is None else dict(getattr(model, field))


def _pairs(
    what: str, name: str, before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[str]:
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    for key in changed[:MAX_OVERRIDES]:
        yield f"{what} {plain(key)} of {name}: {before.get(key, NONE)} -> {after.get(key, NONE)}"
    if len(changed) > MAX_OVERRIDES:
        yield f"and {len(changed) - MAX_OVERRIDES:,} more; --json shows all"
