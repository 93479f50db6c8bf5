"""What GetModel answers: a served model as an encoded GetModelResponse.

Built once per plan; both doors send these bytes.
"""

from __future__ import annotations

import math
from contextlib import suppress

from fastpath.errors import SchemaError
from fastpath.schema import Gather
from fastpath.spec import Columns, layout_fingerprint
from server.layouts import Layout, layouts_of
from server.pb.scoregate.v1 import scoring_pb2 as pb
from server.rollout.plans import ServedArm, ServedModel

TYPES = {
    "numeric": pb.FEATURE_TYPE_NUMERIC,
    "boolean": pb.FEATURE_TYPE_BOOLEAN,
    "categorical": pb.FEATURE_TYPE_CATEGORICAL,
}
KINDS = {"probability": pb.SCORE_KIND_PROBABILITY, "value": pb.SCORE_KIND_VALUE}


def describe_model(served: ServedModel, is_default: bool, generation: int) -> bytes:
    """Return the encoded answer, in the official runtime's deterministic form."""
    answer = pb.GetModelResponse(
        model=served.name,
        is_default=is_default,
        plan_generation=generation,
        arms=[_arm(arm) for arm in served.arms],
        layouts=[
            pb.Layout(fingerprint=layout_fingerprint(columns), columns=_columns(columns))
            for columns in accepted_layouts(served)
        ],
        routing_entity=served.routing_entity,
    )
    return answer.SerializeToString(deterministic=True)


def _arm(served: ServedArm) -> pb.ArmDescription:
    schema = served.loaded.content.schema
    manifest = served.loaded.content.manifest
    arm = pb.ArmDescription(
        arm=served.name,
        version=served.version,
        sha256=served.sha256,
        weight_basis_points=served.weight_basis_points,
        layout=schema.fingerprint,
        score_kind=KINDS[manifest.outputs.score_kind],
        thresholds=[
            pb.Threshold(name=name, raw_score=raw_score, score=score)
            for name, raw_score, score in served.thresholds
        ],
        default_decision=manifest.default_decision,
        engine=served.engine,
    )
    for spec in schema.specs:
        feature = arm.features.add(
            name=spec.name,
            type=TYPES[spec.type],
            required=spec.required,
            default_value=spec.default,
            vocabulary=spec.vocabulary,
            source=spec.source,
        )
        if math.isfinite(spec.minimum):
            feature.minimum = spec.minimum
        if math.isfinite(spec.maximum):
            feature.maximum = spec.maximum
    for group in schema.groups:
        stored = arm.groups.add(
            name=group.name,
            entity=group.entity,
            role=group.role,
            fingerprint=group.fingerprint,
            columns=_columns(group.columns),
            read_budget_us=group.read_budget_us,
            online=group.online,
            batch=group.batch,
        )
        if math.isfinite(group.ttl_s):
            stored.ttl_s = group.ttl_s
        if math.isfinite(group.batch_max_age_s):
            stored.batch_max_age_s = group.batch_max_age_s
    return arm


def accepted_layouts(served: ServedModel) -> list[Layout]:
    """Return every layout that dense requests may use, the champion's own first.

    Those of the arms, which `Plan` accepts or is not built, and of former ones those that every arm
    can read.
    """
    schemas = [arm.loaded.content.schema for arm in served.arms]
    layouts = {columns: None for schema in schemas for columns in layouts_of(schema)}
    for columns in served.former_layouts:
        with suppress(SchemaError):
            for schema in schemas:
                Gather(schema, columns)
            layouts[columns] = None
    return list(layouts)


def _columns(columns: Columns) -> list[pb.LayoutColumn]:
    return [pb.LayoutColumn(name=name, type=TYPES[kind]) for name, kind in columns]
