"""From a state and the models in memory to the plan that serves it.

A plan is a pure function of the state, the bundles that it names and the batch tables: built twice
it answers twice the same, which is what a restart and a rollback rely on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastpath.errors import PlanError
from fastpath.plan import Plan, PlanArm, PlanModel
from fastpath.routing import BucketTable
from fastpath.store import BatchTable
from server.layouts import Layout, former_layouts
from server.repository import Repository
from server.rollout.loaded import Key, Loaded
from server.rollout.state import ArmState, ModelState, PlanState, unpack_table


@dataclass(frozen=True, slots=True)
class ServedArm:
    """One version of a model, as it serves."""

    model: str
    state: ArmState
    loaded: Loaded

    @property
    def name(self) -> str:
        """The arm: "champion", "canary"."""
        return self.state.name

    @property
    def version(self) -> str:
        """Which version it is."""
        return self.state.version

    @property
    def weight_basis_points(self) -> int:
        """Its share of the buckets."""
        return self.state.weight_basis_points

    @property
    def engine(self) -> str:
        """Which engine scores: "forest", "linear" or "onnx"."""
        return self.loaded.content.engine

    @property
    def sha256(self) -> bytes:
        """Digest of the bundle's manifest: 32 bytes."""
        return self.loaded.content.sha256

    @property
    def resident_bytes(self) -> int:
        """Memory that the engine holds."""
        return self.loaded.content.resident_bytes

    @property
    def thresholds(self) -> tuple[tuple[str, float, float], ...]:
        """The thresholds in force, ascending: name, raw score, score."""
        if self.state.thresholds is not None:
            return tuple((t.name, t.raw_score, t.score) for t in self.state.thresholds)
        return self.loaded.source.thresholds


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model, as it serves."""

    state: ModelState
    arms: tuple[ServedArm, ...]
    table: BucketTable
    former_layouts: tuple[Layout, ...]  # of versions that do not serve

    @property
    def name(self) -> str:
        """The model's name."""
        return self.state.name

    @property
    def routing_entity(self) -> str:
        """Type of the entity whose id is the routing key: the champion's."""
        return self.arms[0].loaded.content.manifest.routing_entity


# Encodes a GetModelResponse: (model, is it the default, generation). Injected, because only the
# control plane knows protobuf.
Describe = Callable[[ServedModel, bool, int], bytes]


@dataclass(frozen=True, slots=True)
class Served:
    """A state, and the plan that serves it."""

    state: PlanState
    models: tuple[ServedModel, ...]
    plan: Plan

    @property
    def arms(self) -> list[ServedArm]:
        """Every arm of every model."""
        return [arm for model in self.models for arm in model.arms]


def keys_of(states: Iterable[PlanState]) -> set[Key]:
    """Return the models that states need."""
    return {
        Key(model.name, arm.version, arm.sha256)
        for state in states
        for model in state.models
        for arm in model.arms
    }


def build(
    state: PlanState,
    load: Callable[[str, str, str], Loaded],
    repository: Repository,
    describe: Describe,
    batch: Mapping[str, BatchTable],
) -> Served:
    """Build the plan of a state.

    Parameters
    ----------
    state
        With the generation that the plan shall have.
    load
        Returns a model by name, version and content (`LoadedModels.get`).
    repository
        Whose further versions say which layouts clients may still use.
    describe
        What GetModel answers.
    batch
        Batch tables of stored features, by group.

    Raises
    ------
    StartError, BundleError
        A model is not there, or cannot be served.
    PlanError
        The models do not fit together.
    """
    models = tuple(_serve(model, load, repository) for model in state.models)
    plan = Plan(
        state.generation,
        [
            _plan_model(model, describe(model, model.name == state.default_model, state.generation))
            for model in models
        ],
        state.default_model,
        batch,
    )
    return Served(state, models, plan)


def _serve(
    state: ModelState, load: Callable[[str, str, str], Loaded], repository: Repository
) -> ServedModel:
    arms = tuple(
        ServedArm(state.name, arm, load(state.name, arm.version, arm.sha256)) for arm in state.arms
    )
    entities = {arm.version: arm.loaded.content.manifest.routing_entity for arm in arms}
    if len(set(entities.values())) > 1:
        raise PlanError(
            f"model {state.name}: its versions split traffic by different entities "
            f"({', '.join(f'{v}: {e or chr(34) * 2}' for v, e in entities.items())}), so that one "
            "customer could be in two arms; export the new one with the other's --routing-entity"
        )
    schemas = [arm.loaded.content.schema for arm in arms]
    return ServedModel(
        state=state,
        arms=arms,
        table=BucketTable(state.salt.encode(), unpack_table(state.table)),
        former_layouts=former_layouts(
            Path(repository.path, state.name), repository.versions(state.name), schemas
        ),
    )


def _plan_model(model: ServedModel, description: bytes) -> PlanModel:
    names = [arm.name for arm in model.arms]
    return PlanModel(
        name=model.name,
        arms=tuple(_plan_arm(arm, model.state.explore_share) for arm in model.arms),
        table=model.table,
        routing_entity=model.routing_entity,
        description=description,
        former_layouts=model.former_layouts,
        overrides={key: names.index(arm) for key, arm in model.state.overrides.items()},
    )


def _plan_arm(arm: ServedArm, explore_share: float) -> PlanArm:
    content = arm.loaded.content
    outputs = content.manifest.outputs
    return PlanArm(
        name=arm.name,
        version=arm.version,
        sha256=content.sha256,
        model=content.model,
        schema=content.schema,
        slot=arm.loaded.slot,
        link=outputs.link,
        prior_shift=outputs.prior_log_odds_shift,
        score_kind=outputs.score_kind,
        thresholds=tuple((name, raw_score) for name, raw_score, _ in arm.thresholds),
        default_decision=content.manifest.default_decision,
        explore_share=explore_share,
    )
