"""Small plans for engine tests: known coefficients, so that scores can be said in advance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fastpath.linear import Linear
from fastpath.metrics import Metrics
from fastpath.plan import Plan, PlanArm, PlanModel
from fastpath.routing import BucketTable
from fastpath.schema import Schema
from fastpath.spec import FallbackLimits, FeatureSpec, GroupSpec
from fastpath.store import BatchTable

SPECS = (
    FeatureSpec("amount", "numeric", default=0.0, minimum=0.0, maximum=1e6),
    FeatureSpec("night", "boolean", default=0.0),
    FeatureSpec("country", "categorical", default=0.0, vocabulary=("BE", "FR", "DE")),
    FeatureSpec("age_days", "numeric", required=True),
)
COEFFICIENTS = (0.25, 1.0, -0.5, 0.125)


def expected_raw(row: Sequence[float], intercept: float = 0.0) -> float:
    """Raw score of a row under COEFFICIENTS; the numbers are dyadic, so any order is exact."""
    return math.fsum(c * x for c, x in zip(COEFFICIENTS, row, strict=True)) + intercept


def linear_arm(
    metrics: Metrics,
    *,
    model: str = "fraud",
    name: str = "champion",
    version: str = "1",
    intercept: float = 0.0,
    specs: Sequence[FeatureSpec] = SPECS,
    groups: Sequence[GroupSpec] = (),
    limits: FallbackLimits | None = None,
    thresholds: tuple[tuple[str, float], ...] = (("review", 0.0), ("block", 2.0)),
    link: str = "logit",
    prior_shift: float = 0.0,
) -> PlanArm:
    """Make an arm whose model is a linear one with known coefficients."""
    coefficients = np.resize(np.array(COEFFICIENTS), len(specs))
    decisions = ["approve", *(decision for decision, _ in thresholds)]
    return PlanArm(
        name=name,
        version=version,
        sha256=bytes(range(32)),
        model=Linear(
            coefficients=coefficients,
            intercept=intercept,
            fill=np.full(len(specs), np.nan, dtype=np.float32),
        ),
        schema=Schema(specs, groups, limits),
        slot=metrics.register(model, version, decisions, [group.name for group in groups]),
        link=link,
        prior_shift=prior_shift,
        thresholds=thresholds,
    )


def make_plan(
    metrics: Metrics,
    *,
    generation: int = 1,
    arms: Sequence[PlanArm] | None = None,
    weights: Sequence[int] = (10_000,),
    routing_entity: str = "customer",
    overrides: Mapping[str, int] | None = None,
    former_layouts: tuple[tuple[tuple[str, str], ...], ...] = (),
    batch: Mapping[str, BatchTable] | None = None,
) -> Plan:
    """Make a plan of one model named "fraud"."""
    model = PlanModel(
        name="fraud",
        arms=tuple(arms) if arms is not None else (linear_arm(metrics),),
        table=BucketTable.from_weights(b"fraud", weights),
        routing_entity=routing_entity,
        description=b"described",
        overrides=dict(overrides or {}),
        former_layouts=former_layouts,
    )
    return Plan(generation, [model], batch=batch)
