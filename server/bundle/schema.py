"""`schema.json` of a bundle: the model's features in order.

With them the groups that store some of them, and how far they may fall back. Besides what the
engine compiles (see `fastpath.spec`), a feature says how drift watches it. JSON has no NaN and no
infinity: a null default is NaN, a null bound or age is none. Everything but a feature's name and
type, and a group's name and entity, may be left out. docs/features.md is the reference.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from fastpath.errors import SchemaError
from fastpath.group_spec import check_age
from fastpath.schema import Schema
from fastpath.spec import REQUEST, FallbackLimits, FeatureSpec, GroupSpec, check_specs
from server.bundle.manifest import FALLBACK_LIMITS, FEATURE_GROUPS, RANGE_RULES, decode_json
from server.errors import BundleError

Kind = Literal["numeric", "boolean", "categorical"]


class FeatureEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One feature of `schema.json`, in the model's order."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    type: Kind
    source: Annotated[str, msgspec.Meta(min_length=1)] = REQUEST  # or the name of a group
    column: str = ""  # in the group's record; empty: the feature's own name
    ttl_s: float | None = None  # of a stored value; null: the group's
    default: float | None = None  # null: NaN, which is passed to the model
    minimum: float | None = None  # null: no bound
    maximum: float | None = None
    on_range: Literal["missing", "clip", "reject"] = "missing"
    required: bool = False
    vocabulary: list[str] = []
    monitor: Literal["auto", "off", "calendar"] = "auto"  # how drift watches the feature
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0  # in the drift score


class ColumnEntry(msgspec.Struct, kw_only=True):
    """One column of a group's records."""

    name: str
    type: Kind


class GroupEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One group of stored features."""

    name: str
    entity: str
    role: str = ""
    columns: list[ColumnEntry] | None = None  # null: the features of this source, in order
    online: bool = True
    batch: bool = True
    ttl_s: float | None = None  # null: for ever
    batch_max_age_s: float | None = None
    read_budget_us: int = 5000


class LimitEntry(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is too much falling back."""

    more_than: Annotated[int, msgspec.Meta(ge=0)] | None = None  # features; null: no number is
    features: list[str] = []  # each of these is by itself


class FallbackEntry(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What marks an answer as degraded, and what refuses the request."""

    degrade: LimitEntry = msgspec.field(default_factory=LimitEntry)
    reject: LimitEntry = msgspec.field(default_factory=LimitEntry)


class SchemaFile(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The whole of `schema.json`."""

    features: Annotated[list[FeatureEntry], msgspec.Meta(min_length=1, max_length=1024)]
    groups: list[GroupEntry] = []
    fallback: FallbackEntry | None = None  # null: nothing is degraded, nothing refused


def decode_schema(data: bytes, where: str) -> SchemaFile:
    """Decode and check a `schema.json`.

    Parameters
    ----------
    data : bytes
        The file's content.
    where : str
        The file's path, for messages.

    Raises
    ------
    BundleError
        Not JSON, or a feature or group that cannot be served; the message names it.
    """
    schema = decode_json(data, SchemaFile, where)
    try:
        check_specs(feature_specs(schema), group_specs(schema), fallback_limits(schema))
    except SchemaError as error:
        raise BundleError(f"{where}: {error}") from error
    return schema


def compile_schema(schema: SchemaFile) -> Schema:
    """Return the compiled schema that the engine serves.

    Raises
    ------
    SchemaError
        As `decode_schema`, which has checked whatever it returned.
    """
    return Schema(feature_specs(schema), group_specs(schema), fallback_limits(schema))


def feature_specs(schema: SchemaFile) -> list[FeatureSpec]:
    """Return the features as `fastpath.schema.Schema` takes them."""
    return [
        FeatureSpec(
            name=feature.name,
            type=feature.type,
            default=math.nan if feature.default is None else feature.default,
            minimum=-math.inf if feature.minimum is None else feature.minimum,
            maximum=math.inf if feature.maximum is None else feature.maximum,
            required=feature.required,
            vocabulary=tuple(feature.vocabulary),
            source=feature.source,
            ttl_s=math.nan if feature.ttl_s is None else feature.ttl_s,
            on_range=feature.on_range,
            column=feature.column,
        )
        for feature in schema.features
    ]


def group_specs(schema: SchemaFile) -> list[GroupSpec]:
    """Return the groups as `fastpath.schema.Schema` takes them, their columns filled in."""
    return [
        GroupSpec(
            name=group.name,
            entity=group.entity,
            columns=tuple(
                (column.name, column.type)
                for column in (
                    _own_columns(schema, group.name) if group.columns is None else group.columns
                )
            ),
            role=group.role,
            online=group.online,
            batch=group.batch,
            ttl_s=math.inf if group.ttl_s is None else group.ttl_s,
            batch_max_age_s=math.inf if group.batch_max_age_s is None else group.batch_max_age_s,
            read_budget_us=group.read_budget_us,
        )
        for group in schema.groups
    ]


def group_entry(group: GroupSpec) -> GroupEntry:
    """Return a group as `schema.json` has it; without columns: those of its features.

    Raises
    ------
    SchemaError
        An age is not positive. It must be found here: in JSON a NaN would read as no limit.
    """
    check_age(group.ttl_s, f"group {group.name!r}: ttl_s")
    check_age(group.batch_max_age_s, f"group {group.name!r}: batch_max_age_s")
    return GroupEntry(
        name=group.name,
        entity=group.entity,
        role=group.role,
        columns=[
            ColumnEntry(name=name, type=kind)  # type: ignore[arg-type]  # checked on decoding
            for name, kind in group.columns
        ]
        or None,
        online=group.online,
        batch=group.batch,
        ttl_s=None if math.isinf(group.ttl_s) else group.ttl_s,
        batch_max_age_s=None if math.isinf(group.batch_max_age_s) else group.batch_max_age_s,
        read_budget_us=group.read_budget_us,
    )


def fallback_limits(schema: SchemaFile) -> FallbackLimits:
    """Return the limits as `fastpath.schema.Schema` takes them."""
    entry = schema.fallback or FallbackEntry()
    degrade, reject = entry.degrade, entry.reject
    return FallbackLimits(
        degrade_over=degrade.more_than,
        degrade_features=tuple(degrade.features),
        reject_over=reject.more_than,
        reject_features=tuple(reject.features),
    )


def fallback_entry(limits: FallbackLimits) -> FallbackEntry | None:
    """Return limits as `schema.json` has them; None where nothing is limited."""
    if limits == FallbackLimits():
        return None
    return FallbackEntry(
        degrade=LimitEntry(more_than=limits.degrade_over, features=list(limits.degrade_features)),
        reject=LimitEntry(more_than=limits.reject_over, features=list(limits.reject_features)),
    )


def requirements(schema: SchemaFile) -> list[str]:
    """Return what a manifest must require of the readers of a schema.

    A program that does not know these would ignore them and score other values.
    """
    words = []
    if schema.groups:
        words.append(FEATURE_GROUPS)
    if any(feature.on_range != "missing" for feature in schema.features):
        words.append(RANGE_RULES)
    if fallback_limits(schema) != FallbackLimits():
        words.append(FALLBACK_LIMITS)
    return words


def _own_columns(schema: SchemaFile, group: str) -> list[ColumnEntry]:
    return [
        ColumnEntry(name=feature.column or feature.name, type=feature.type)
        for feature in schema.features
        if feature.source == group
    ]
