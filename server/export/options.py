"""What a user can choose about an export, and the file that says it of features.

A `--defaults` file is a JSON object from feature name to `FeatureOptions`; or, where its member
`groups` is a list, an object of `features` (the same), `groups` and `fallback` as `schema.json`
has them. No feature's options are a list, so no file can mean both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from fastpath.spec import REQUEST, FallbackLimits, GroupSpec
from server.bundle.schema import (
    FallbackEntry,
    GroupEntry,
    SchemaFile,
    fallback_limits,
    group_specs,
)
from server.errors import InputError

# Above what a default GradientBoosting with clipped leaves needs (2.8e-4 on the handbook's week).
DEFAULT_TOLERANCE = 1e-3
DEFAULT_MAX_AP_LOSS = 1e-3


class FeatureOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One feature's entry in a `--defaults` file; what is left out keeps its usual value.

    `default: null` passes NaN to the model; a null bound is no bound; a null `ttl_s` is the
    group's.
    """

    default: float | msgspec.UnsetType | None = msgspec.UNSET
    minimum: float | None = None
    maximum: float | None = None
    on_range: Literal["missing", "clip", "reject"] = "missing"
    required: bool = False
    source: str = REQUEST  # or the name of a group
    column: str = ""  # in the group's record; empty: the feature's own name
    ttl_s: float | None = None
    monitor: Literal["auto", "off", "calendar"] = "auto"  # how drift watches it
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0  # in the drift score


@dataclass(frozen=True)
class ExportOptions:
    """Options of `export_model`; the command line's options have the same names."""

    thresholds: Mapping[str, float] = field(default_factory=dict)  # name -> score
    default_decision: str = "approve"
    prior: float | None = None  # prevalence at serving; None: as in training
    features: Mapping[str, FeatureOptions] = field(default_factory=dict)
    groups: Sequence[GroupSpec] = ()  # no columns: those of the features that it is the source of
    fallback: FallbackLimits = field(default_factory=FallbackLimits)
    routing_entity: str = ""
    tolerance: float = DEFAULT_TOLERANCE  # max |scikit-learn - quantized| probability
    select_features: int | None = None
    max_trees: int | Literal["auto"] | None = None
    max_ap_loss: float = DEFAULT_MAX_AP_LOSS  # what "auto" may lose
    name: str | None = None  # None: the name of out's parent folder
    version: str | None = None  # None: the name of out
    target: str = "target"  # the target column's name, for the manifest
    model_file: Path | None = None  # for the report's sizes
    fingerprint: str | None = None  # of the training data; None: of the arrays given
    valid_time_ms: NDArray[np.int64] | None = None  # event times of the validation rows


@dataclass(frozen=True)
class FeatureFile:
    """What a `--defaults` file says; the fields are those of ExportOptions."""

    features: Mapping[str, FeatureOptions] = field(default_factory=dict)
    groups: Sequence[GroupSpec] = ()
    fallback: FallbackLimits = field(default_factory=FallbackLimits)


class _LongForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    groups: list[GroupEntry]
    features: dict[str, FeatureOptions] = {}
    fallback: FallbackEntry | None = None


def read_feature_file(path: Path) -> FeatureFile:
    """Read a `--defaults` file of either form."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        plain = msgspec.json.decode(data)
        if not (isinstance(plain, dict) and isinstance(plain.get("groups"), list)):
            features = msgspec.json.decode(data, type=dict[str, FeatureOptions])
            return FeatureFile(features=features)
        long = msgspec.json.decode(data, type=_LongForm)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    # Columns that are left out stay so: only the model knows the order of its features.
    schema = SchemaFile(features=[], groups=long.groups, fallback=long.fallback)
    return FeatureFile(
        features=long.features, groups=group_specs(schema), fallback=fallback_limits(schema)
    )
