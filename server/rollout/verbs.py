"""The verbs: deploy, split, promote, take back. Each is one change of a `Rollout`.

What a verb does to a state is in `changes`; here it learns what it needs of bundles and of the
journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.errors import ChangeError
from server.rollout import changes
from server.rollout.arms import ArmSource, Changed, find_model, resolve_arm
from server.rollout.change import Author, Outcome
from server.rollout.past import plan_before
from server.rollout.plans import ServedArm
from server.rollout.rollout import Rollout, version_of
from server.rollout.state import ArmState, PlanState, ThresholdState
from server.rollout.thresholds import threshold_states


class Verbs:
    """What operators can do.

    Parameters
    ----------
    rollout
        What is changed. Every verb raises what `Rollout.change` raises.
    """

    def __init__(self, rollout: Rollout) -> None:
        self._rollout = rollout

    def deploy(
        self, author: Author, model: str, version: str, basis_points: int, arm: str = ""
    ) -> Outcome:
        """Let a version take part, with so many basis points of the traffic.

        Where nothing is in force, and the model cannot be served, it begins again with all of it.
        """
        arguments = {
            "model": model,
            "version": version,
            "traffic_basis_points": basis_points,
            "arm": arm,
        }

        # Loaded before the change takes its turn: a rollback never waits for a load.
        self._source(self._rollout.state(), model, version)

        def change(state: PlanState) -> Changed:
            name = model or state.default_model
            source = self._source(state, name, version)
            problem = self._rollout.problem_of(state.model(name))
            if problem:
                return changes.begin_again(state, name, source, basis_points, problem, arm)
            default = state.default_model
            problem = self._rollout.problem_of(state.model(default))
            if problem:
                return changes.leave_out(state, {default: problem})  # which refuses: it comes first
            return changes.deploy(state, name, source, basis_points, arm)

        return self._rollout.change(author, "deploy", arguments, change, mends=True)

    def set_traffic(self, author: Author, model: str, weights: Mapping[str, int]) -> Outcome:
        """Set the weights of a model's arms, in basis points."""
        arguments = {"model": model, "basis_points": dict(weights)}
        return self._rollout.change(
            author,
            "traffic",
            arguments,
            lambda state: changes.set_traffic(state, model or state.default_model, weights),
        )

    def promote(self, author: Author, model: str, arm: str = "") -> Outcome:
        """Give one arm all the traffic; the others leave."""
        return self._rollout.change(
            author,
            "promote",
            {"model": model, "arm": arm},
            lambda state: changes.promote(state, model or state.default_model, arm),
        )

    def retire(self, author: Author, model: str, arm: str = "") -> Outcome:
        """Let an arm, or a whole model, stop taking part."""
        return self._rollout.change(
            author,
            "retire",
            {"model": model, "arm": arm},
            lambda state: changes.retire(state, model or state.default_model, arm),
        )

    def set_thresholds(
        self, author: Author, model: str, arm: str, scores: Mapping[str, float]
    ) -> Outcome:
        """Set thresholds as scores, of one arm or all; none: the bundle's own again."""

        def change(state: PlanState) -> Changed:
            name = model or state.default_model
            found = find_model(state, name)
            notes: tuple[str, ...] = ()
            for one in [resolve_arm(found, arm)] if arm else found.arms:
                made = None if not scores else self._thresholds(name, one, scores)
                state, more = changes.set_thresholds(state, name, one.name, made)
                notes += more
            return Changed(state, notes)

        arguments = {"model": model, "arm": arm, "scores": dict(scores)}
        return self._rollout.change(author, "thresholds", arguments, change)

    def set_overrides(
        self,
        author: Author,
        model: str,
        pinned: Mapping[str, str],
        removed: Sequence[str] = (),
        *,
        clear: bool = False,
    ) -> Outcome:
        """Pin routing keys to arms, or let them go."""
        arguments = {"model": model, "set": dict(pinned), "remove": list(removed), "clear": clear}
        return self._rollout.change(
            author,
            "overrides",
            arguments,
            lambda state: changes.set_overrides(
                state, model or state.default_model, pinned, removed, clear
            ),
        )

    def set_labels(
        self,
        author: Author,
        model: str,
        labels: Mapping[str, str],
        removed: Sequence[str] = (),
    ) -> Outcome:
        """Name versions: "stable", "canary"."""
        arguments = {"model": model, "set": dict(labels), "remove": list(removed)}

        def change(state: PlanState) -> Changed:
            name = model or state.default_model
            for version in labels.values():
                self._rollout.repository.find(name, version)
            return changes.set_labels(state, name, labels, removed)

        return self._rollout.change(author, "labels", arguments, change)

    def set_default_model(self, author: Author, model: str) -> Outcome:
        """Let another model answer requests that name none."""
        return self._rollout.change(
            author,
            "default",
            {"model": model},
            lambda state: changes.set_default_model(state, model),
            mends=True,
        )

    def set_exploration(self, author: Author, model: str, share: float) -> Outcome:
        """Let a share of what a model would stop pass."""
        return self._rollout.change(
            author,
            "explore",
            {"model": model, "share": share},
            lambda state: changes.set_exploration(state, model or state.default_model, share),
        )

    def freeze(self, author: Author, *, frozen: bool) -> Outcome:
        """Refuse changes, or allow them again."""
        verb = "freeze" if frozen else "unfreeze"
        why = author.why or f"frozen by {author.who}"
        return self._rollout.change(
            author,
            verb,
            {},
            lambda state: changes.freeze(state, why) if frozen else changes.unfreeze(state),
        )

    def rollback(self, author: Author, generation: int = 0) -> Outcome:
        """Put the whole plan of an earlier generation in force again.

        Parameters
        ----------
        author
            Who, why, and under which conditions.
        generation
            Whose plan; 0: the one before the one in force, and with each call one farther back.

        Raises
        ------
        ChangeError
            There is no earlier plan, or no such generation.
        """
        journal = self._rollout.journal

        def change(state: PlanState) -> Changed:
            if not generation:
                return changes.restore(state, plan_before(journal))
            entry = journal.get(generation)
            if entry is None:
                raise ChangeError(
                    f"the journal has no generation {generation}; `scoregate history` lists them"
                )
            return changes.restore(state, entry.state)

        return self._rollout.change(author, "rollback", {"generation": generation}, change)

    def _source(self, state: PlanState, model: str, version: str) -> ArmSource:
        """Return a version as changes know it, loaded and proven."""
        name = model or state.default_model
        return self._rollout.models.get(name, version_of(state.model(name), version)).source

    def _thresholds(
        self, model: str, arm: ArmState, scores: Mapping[str, float]
    ) -> dict[str, ThresholdState]:
        loaded = self._rollout.models.get(model, arm.version, arm.sha256)
        served = ServedArm(model, arm, loaded)
        where = f"model {model}, arm {arm.name}"
        made = threshold_states(loaded, served.thresholds, scores, where)
        return {threshold.name: threshold for threshold in made}
