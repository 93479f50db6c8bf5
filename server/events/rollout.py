"""From changes of what serves to events.

Rules: one event for each entry of the journal. An event names the model that changed, where it was
one, and the version that gained the most by it. Arguments of a change are not in it, nor are
overrides: they hold routing keys. The journal has them.
"""

from __future__ import annotations

from typing import Any

from server.events.log import EventLog
from server.rollout.entry import Entry
from server.rollout.journal import Journal
from server.rollout.state import ModelState, PlanState

KINDS = {"rollback": "rollout.rollback", "recover": "server.fallback"}


class RolloutEvents:
    """Listens to a rollout: `take` is called on the changing thread, one change at a time.

    Parameters
    ----------
    events
        Where to.
    journal
        Where the state before the first change is read.
    """

    def __init__(self, events: EventLog, journal: Journal) -> None:
        self._events = events
        self._journal = journal
        self._last: PlanState | None = None

    def take(self, entry: Entry) -> None:
        """Tell of a change."""
        before, self._last = self._before(entry), entry.state
        changed = _changed(before, entry.state)
        model = changed[0] if len(changed) == 1 else ""
        version = "" if not model else _gained(_model(before, model), _model(entry.state, model))
        self._events.emit(
            KINDS.get(entry.verb, "rollout.change"),
            summarise(entry, changed),
            model=model,
            version=version,
            details=_details(entry, changed),
        )

    def _before(self, entry: Entry) -> PlanState | None:
        wanted = entry.before_generation
        if not wanted:
            return None
        if self._last is not None and self._last.generation == wanted:
            return self._last
        found = self._journal.get(wanted)
        return None if found is None else found.state


def summarise(entry: Entry, changed: list[str]) -> str:
    """Return a change as a line: "generation 7: rollback by ann (bad canary): fraud 1 100 %"."""
    why = f" ({entry.why})" if entry.why else ""
    plans = "; ".join(f"{name} {_arms(_model(entry.state, name))}" for name in changed)
    return f"generation {entry.generation}: {entry.verb} by {entry.who}{why}" + (
        f": {plans}" if plans else ""
    )


def _details(entry: Entry, changed: list[str]) -> dict[str, Any]:
    details: dict[str, Any] = {
        "generation": entry.generation,
        "before_generation": entry.before_generation,
        "verb": entry.verb,
        "who": entry.who,
        "is_verified": entry.is_verified,
        "why": entry.why,
        "models": [_plan(name, _model(entry.state, name)) for name in changed],
    }
    if entry.verb in KINDS:
        details["to_generation"] = entry.arguments.get("generation", 0)
    return details


def _plan(name: str, model: ModelState | None) -> dict[str, Any]:
    arms = () if model is None else model.arms
    return {
        "model": name,
        "arms": [
            {"arm": arm.name, "version": arm.version, "basis_points": arm.weight_basis_points}
            for arm in arms
        ],
    }


def _arms(model: ModelState | None) -> str:
    if model is None:
        return "left"
    return ", ".join(f"{arm.version} {arm.weight_basis_points / 100:g} %" for arm in model.arms)


def _changed(before: PlanState | None, after: PlanState) -> list[str]:
    """Return the names of the models that are not as they were, by name."""
    then = {} if before is None else {model.name: model for model in before.models}
    now = {model.name: model for model in after.models}
    return sorted(name for name in {*then, *now} if then.get(name) != now.get(name))


def _model(state: PlanState | None, name: str) -> ModelState | None:
    return None if state is None else state.model(name)


def _gained(before: ModelState | None, after: ModelState | None) -> str:
    """Return the version whose share grew the most; empty where none grew."""
    then = {} if before is None else {arm.version: arm.weight_basis_points for arm in before.arms}
    arms = () if after is None else after.arms
    gains = [(arm.weight_basis_points - then.get(arm.version, 0), arm.version) for arm in arms]
    gain, version = max(gains, default=(0, ""))
    return version if gain > 0 else ""
