"""Between the proto's messages and the rollout's values. Converts; decides nothing.

The thresholds of an arm that has none of its own are its bundle's; whoever converts says how to
find them. Where a bundle is neither in memory nor on disk any more, they are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
import msgspec

from server.control.tokens import Token
from server.errors import InputError
from server.pb.scoregate.v1 import control_pb2 as pb
from server.rollout.arms import check_name
from server.rollout.change import Author, Outcome
from server.rollout.entry import Entry
from server.rollout.loaded import Key
from server.rollout.state import ArmState, ModelState, PlanState

MAX_WHO = 300  # a user and a host's name
MAX_WHY = 1000

# (name, raw score, score), ascending.
Thresholds = Sequence[tuple[str, float, float]]


class Converter:
    """Makes messages of states.

    Parameters
    ----------
    thresholds_of
        Returns the thresholds of a bundle; empty where it is not known any more.
    """

    def __init__(self, thresholds_of: Callable[[Key], Thresholds]) -> None:
        self._thresholds_of = thresholds_of

    def plan(self, state: PlanState) -> pb.PlanDescription:
        """Return what is, was or would be in force."""
        return pb.PlanDescription(
            generation=state.generation,
            default_model=state.default_model,
            models=[self._model(model) for model in state.models],
            frozen=state.frozen,
        )

    def outcome(self, outcome: Outcome) -> pb.ChangeResponse:
        """Return the answer to a change."""
        return pb.ChangeResponse(
            before=None if outcome.before is None else self.plan(outcome.before),
            after=self.plan(outcome.after),
            dry_run=outcome.dry_run,
            n_buckets_moved=outcome.n_buckets_moved,
            notes=outcome.notes,
        )

    def change(self, entry: Entry) -> pb.Change:
        """Return an entry of the journal."""
        return pb.Change(
            generation=entry.generation,
            time_ms=entry.time_ms,
            who=entry.who,
            is_verified=entry.is_verified,
            verb=entry.verb,
            arguments=msgspec.json.encode(entry.arguments).decode(),
            why=entry.why,
            before_generation=entry.before_generation,
            after=self.plan(entry.state),
        )

    def _model(self, model: ModelState) -> pb.ModelPlan:
        return pb.ModelPlan(
            model=model.name,
            arms=[self._arm(model.name, arm) for arm in model.arms],
            overrides=model.overrides,
            labels=model.labels,
            salt=model.salt,
            explore_share=model.explore_share,
        )

    def _arm(self, model: str, arm: ArmState) -> pb.ArmPlan:
        own = self._thresholds_of(Key(model, arm.version, arm.sha256))
        scores = {name: score for name, _, score in own}
        in_force: Thresholds = own
        if arm.thresholds is not None:
            in_force = [(t.name, t.raw_score, t.score) for t in arm.thresholds]
        return pb.ArmPlan(
            arm=arm.name,
            version=arm.version,
            sha256=bytes.fromhex(arm.sha256),
            weight_basis_points=arm.weight_basis_points,
            thresholds=[
                pb.ThresholdPlan(
                    name=name,
                    score=score,
                    raw_score=raw_score,
                    # Setting one sets the arm's others to what they were.
                    is_override=arm.thresholds is not None and scores.get(name) != score,
                )
                for name, raw_score, score in in_force
            ],
        )


def author(options: pb.ChangeOptions, token: Token | None, context: grpc.ServicerContext) -> Author:
    """Return who makes a change, and under which conditions.

    Parameters
    ----------
    options
        What the caller says.
    token
        Who the caller is; None where no tokens are known: then it is who it says that it is.
    context
        Of the call: its address stands in for a name that is not given.

    Raises
    ------
    InputError
        A text is too long, or holds control characters.
    """
    _check_text(options.who, MAX_WHO, "options.who")
    _check_text(options.why, MAX_WHY, "options.why")
    return Author(
        who=token.name if token is not None else options.who or context.peer(),
        is_verified=token is not None,
        why=options.why,
        expected_generation=options.expected_generation,
        dry_run=options.dry_run,
    )


def check_names(**names: str) -> None:
    """Refuse names that none can have; empty ones are not given.

    Raises
    ------
    ChangeError
        One is not a name.
    """
    for what, name in names.items():
        if name:
            check_name(name, what)


def _check_text(text: str, limit: int, where: str) -> None:
    # Control characters would garble logs and terminals.
    if len(text) > limit or not text.isprintable():
        raise InputError(
            f"{where}: up to {limit} printable characters on one line, not {text[:40]!r}"
        )
