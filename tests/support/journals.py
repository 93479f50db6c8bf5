"""Journals for tests: plans that change at random, entries, and what to compare."""

from __future__ import annotations

import random
from collections.abc import Iterator

from msgspec.structs import replace

from server.rollout import changes
from server.rollout.changes import ArmSource
from server.rollout.entry import Entry
from server.rollout.state import PlanState


def first_plan() -> PlanState:
    state = changes.initial({"fraud": ArmSource("1", "1" * 64, ())}).state
    return changes.deploy(state, "fraud", ArmSource("2", "2" * 64, ()), 1_000).state


def random_changes(rng: random.Random) -> Iterator[tuple[str, PlanState]]:
    """Endless: a verb and the plan after it."""
    state = first_plan()
    for i in range(1 << 62):
        model = state.models[0]
        verb = rng.choice(["deploy", "traffic", "promote", "overrides", "labels", "freeze"])
        if verb == "deploy" and len(model.arms) < 5:
            source = ArmSource(f"v{i}", f"{i:064x}", ())
            state = changes.deploy(state, "", source, rng.randrange(10_001)).state
        elif verb == "promote":
            state = changes.promote(state, "", rng.choice(model.arms).name).state
        elif verb == "overrides":
            pins = {f"key-{rng.random()}": rng.choice(model.arms).name for _ in range(20)}
            state = changes.set_overrides(state, "", pins, clear=rng.random() < 0.5).state
        elif verb == "labels":
            state = changes.set_labels(state, "", {"stable": rng.choice(model.arms).version}).state
        elif verb == "freeze":
            state = changes.freeze(state, f"because {i}").state
        else:
            cuts = sorted(rng.choices(range(10_001), k=len(model.arms) - 1))
            weights = [b - a for a, b in zip([0, *cuts], [*cuts, 10_000], strict=True)]
            named = {arm.name: w for arm, w in zip(model.arms, weights, strict=True)}
            state = changes.set_traffic(state, "", named).state
        yield verb, state


def entry_of(
    generation: int, state: PlanState, *, verb: str = "traffic", why: str = "", time_ms: int = 0
) -> Entry:
    """Return an entry of which a journal changes nothing, if its time is not before the last."""
    return Entry(
        generation=generation,
        time_ms=time_ms or generation,
        who="tester",
        is_verified=True,
        verb=verb,
        arguments={"basis_points": {"a": 1}, "list": [1, None, "ü"]},
        why=why,
        before_generation=generation - 1,
        state=replace(state, generation=generation),
    )
