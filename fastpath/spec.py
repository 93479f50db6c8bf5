"""What a feature is: the plain record that schemas are compiled from, and its rules.

A bundle's `schema.json` becomes a list of `FeatureSpec`, with `GroupSpec`s for what is stored and
`FallbackLimits`; `check_specs` refuses what cannot be served, naming the feature or the group;
`fastpath.schema.Schema` compiles it. All values of a feature are float32 on the serving path,
so a default or a bound is rounded to float32 first and the rules hold for the rounded numbers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from fastpath.errors import SchemaError
from fastpath.group_spec import (
    MAX_GROUPS,
    REQUEST,
    FallbackLimits,
    GroupSpec,
    check_age,
    check_group,
    check_groups,
    check_limits,
)
from fastpath.layouts import (
    MAX_FEATURES,
    MAX_NAME_BYTES,
    TYPE_CODES,
    Columns,
    FeatureType,
    check_columns,
    describe_difference,
    group_fingerprint,
    layout_fingerprint,
)

__all__ = [
    "MAX_FEATURES",
    "MAX_GROUPS",
    "MAX_NAME_BYTES",
    "MAX_VOCABULARY",
    "ON_RANGE_CODES",
    "REQUEST",
    "TYPE_CODES",
    "Columns",
    "FallbackLimits",
    "FeatureSpec",
    "FeatureType",
    "GroupSpec",
    "OnRange",
    "check_columns",
    "check_group",
    "check_specs",
    "describe_difference",
    "group_fingerprint",
    "layout_fingerprint",
    "to_float32",
]

OnRange = Literal["missing", "clip", "reject"]
ON_RANGE_CODES = {"missing": 0, "clip": 1, "reject": 2}

# Codes travel as float32, which is exact up to 2**24.
MAX_VOCABULARY = 1 << 20


class FeatureSpec(NamedTuple):
    """One feature of a schema, as a bundle declares it.

    Attributes
    ----------
    name : str
        Unique in its schema.
    type : {"numeric", "boolean", "categorical"}
    default : float
        Used where no source has a value: NaN is passed to the model. Categorical: a code.
    minimum, maximum : float
        Numeric only; what becomes of a value outside is `on_range`.
    required : bool
        Missing everywhere is an error of the caller instead of the default.
    vocabulary : tuple of str
        Categorical only: the code of a value is its index.
    source : str
        "request", or the group of stored features that it is read from where the request has no
        value for it.
    ttl_s : float
        Stored features only: how old a value of an online record may be. NaN: the group's.
    on_range : {"missing", "clip", "reject"}
        A finite value outside the range counts as missing, becomes the nearer bound, or refuses
        the request (a stored value counts as missing then: the caller cannot mend it).
    column : str
        Stored features only: its column in the group's record. Empty: its own name.
    """

    name: str
    type: FeatureType
    default: float = math.nan
    minimum: float = -math.inf
    maximum: float = math.inf
    required: bool = False
    vocabulary: tuple[str, ...] = ()
    source: str = REQUEST
    ttl_s: float = math.nan
    on_range: OnRange = "missing"
    column: str = ""

    @property
    def is_stored(self) -> bool:
        """Whether a group holds the feature."""
        return self.source != REQUEST

    @property
    def record_column(self) -> str:
        """Name of the column of the group's record that holds a stored feature."""
        return self.column or self.name


def to_float32(value: float) -> float:
    """Round to the nearest float32; what lies beyond its range becomes infinite."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(rounded)


def check_specs(
    specs: Sequence[FeatureSpec],
    groups: Sequence[GroupSpec] = (),
    limits: FallbackLimits | None = None,
) -> None:
    """Refuse a schema that cannot be served.

    Parameters
    ----------
    specs : sequence of FeatureSpec
        In the model's order.
    groups : sequence of GroupSpec
        Every group that a feature's source names.
    limits : FallbackLimits, optional

    Raises
    ------
    SchemaError
        The message names the feature or the group, what is wrong and what would be right.
    """
    check_columns([(spec.name, spec.type) for spec in specs])
    check_groups(groups)
    members: dict[str, dict[str, str]] = {group.name: {} for group in groups}
    types = {group.name: dict(group.columns) for group in groups}
    for spec in specs:
        _check_vocabulary(spec)
        _check_range(spec)
        _check_default(spec)
        _check_source(spec, types)
        if spec.is_stored:
            other = members[spec.source].setdefault(spec.record_column, spec.name)
            if other != spec.name:
                raise SchemaError(
                    f"features {other!r} and {spec.name!r} both read column "
                    f"{spec.record_column!r} of group {spec.source!r}: drop one"
                )
    for name, used in members.items():
        if not used:
            raise SchemaError(
                f"group {name!r}: no feature is read from it; drop it, or name it as a source"
            )
    if limits is not None:
        check_limits(limits, {spec.name for spec in specs})


def _check_vocabulary(spec: FeatureSpec) -> None:
    if spec.type != "categorical":
        if spec.vocabulary:
            raise SchemaError(
                f"feature {spec.name!r} is {spec.type}: only a categorical feature has a vocabulary"
            )
        return
    if not spec.vocabulary:
        raise SchemaError(f"feature {spec.name!r} is categorical: its vocabulary is empty")
    if len(spec.vocabulary) > MAX_VOCABULARY:
        raise SchemaError(
            f"feature {spec.name!r}: the vocabulary has {len(spec.vocabulary)} values, "
            f"at most {MAX_VOCABULARY} fit"
        )
    seen: set[str] = set()
    for value in spec.vocabulary:
        if not isinstance(value, str):
            raise SchemaError(f"feature {spec.name!r}: vocabulary value {value!r} is not a text")
        if value in seen:
            raise SchemaError(f"feature {spec.name!r}: {value!r} stands twice in its vocabulary")
        seen.add(value)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SchemaError(
                f"feature {spec.name!r}: vocabulary value {value!r} is not valid Unicode"
            ) from None


def _check_range(spec: FeatureSpec) -> None:
    low, high = spec.minimum, spec.maximum
    if spec.on_range not in ON_RANGE_CODES:
        raise SchemaError(
            f"feature {spec.name!r}: on_range {spec.on_range!r} is unknown; "
            f"it is one of {', '.join(ON_RANGE_CODES)}"
        )
    if spec.on_range != "missing" and low == -math.inf and high == math.inf:
        raise SchemaError(
            f"feature {spec.name!r}: on_range {spec.on_range!r} needs a numeric feature with a "
            "minimum or a maximum"
        )
    if spec.type != "numeric":
        if low != -math.inf or high != math.inf:
            raise SchemaError(
                f"feature {spec.name!r} is {spec.type}: only a numeric feature has a range"
            )
        return
    for label, bound, absent in (("minimum", low, -math.inf), ("maximum", high, math.inf)):
        if math.isnan(bound) or (bound != absent and math.isinf(to_float32(bound))):
            raise SchemaError(
                f"feature {spec.name!r}: {label} {bound} is not a finite float32; "
                f"leave it out ({absent}) for no bound"
            )
    if low > high:
        raise SchemaError(f"feature {spec.name!r}: minimum {low} is above maximum {high}")


def _check_default(spec: FeatureSpec) -> None:
    default = to_float32(spec.default)
    if math.isnan(default):
        return
    if math.isinf(default):
        raise SchemaError(
            f"feature {spec.name!r}: default {spec.default} is not a finite float32; "
            "use NaN to pass 'missing' to the model"
        )
    if spec.type == "boolean" and default not in (0.0, 1.0):
        raise SchemaError(f"feature {spec.name!r}: default {spec.default} is not 0, 1 or NaN")
    if spec.type == "categorical" and default not in range(len(spec.vocabulary)):
        raise SchemaError(
            f"feature {spec.name!r}: default {spec.default} is not a code of its vocabulary "
            f"(0 to {len(spec.vocabulary) - 1}) or NaN"
        )
    if spec.type == "numeric" and not (
        to_float32(spec.minimum) <= default <= to_float32(spec.maximum)
    ):
        raise SchemaError(
            f"feature {spec.name!r}: default {spec.default} is outside "
            f"{spec.minimum} to {spec.maximum}"
        )


def _check_source(spec: FeatureSpec, groups: Mapping[str, Mapping[str, str]]) -> None:
    """Check what only a stored feature may have; `groups` is name -> column -> type."""
    where = f"feature {spec.name!r}"
    if not spec.source:
        raise SchemaError(f"{where}: the source is empty; write 'request' or a group's name")
    if not spec.is_stored:
        if not math.isnan(spec.ttl_s):
            raise SchemaError(f"{where} comes from the request: only a stored one has a ttl_s")
        if spec.column:
            raise SchemaError(f"{where} comes from the request: only a stored one has a column")
        return
    if spec.source not in groups:
        declared = ", ".join(groups) or "none"
        raise SchemaError(
            f"{where}: its source {spec.source!r} is not a declared group ({declared}); "
            "declare it, or write 'request'"
        )
    if not math.isnan(spec.ttl_s):
        check_age(spec.ttl_s, f"{where}: ttl_s")
    kind = groups[spec.source].get(spec.record_column)
    if kind is None:
        raise SchemaError(
            f"{where}: group {spec.source!r} has no column {spec.record_column!r}; "
            "name one of its columns"
        )
    if kind != spec.type:
        raise SchemaError(
            f"{where} is {spec.type}, but column {spec.record_column!r} of group "
            f"{spec.source!r} is {kind}: make them equal"
        )
