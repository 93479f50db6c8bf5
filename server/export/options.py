"""What a user can choose about an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from server.errors import InputError

# Above what a default GradientBoosting with clipped leaves needs (2.8e-4 on the handbook's week).
DEFAULT_TOLERANCE = 1e-3
DEFAULT_MAX_AP_LOSS = 1e-3


class FeatureOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One feature's entry in a `--defaults` file; what is left out keeps its usual value.

    `default: null` passes NaN to the model; a null bound is no bound.
    """

    default: float | msgspec.UnsetType | None = msgspec.UNSET
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False


@dataclass(frozen=True)
class ExportOptions:
    """Options of `export_model`; the command line's options have the same names."""

    thresholds: Mapping[str, float] = field(default_factory=dict)  # name -> score
    default_decision: str = "approve"
    prior: float | None = None  # prevalence at serving; None: as in training
    features: Mapping[str, FeatureOptions] = field(default_factory=dict)
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


def read_feature_options(path: Path) -> dict[str, FeatureOptions]:
    """Read a `--defaults` file: a JSON object from feature name to options."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(data, type=dict[str, FeatureOptions])
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: {error}") from error
