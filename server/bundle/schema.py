"""`schema.json` of a bundle: the model's features, in order.

Besides what the engine compiles (see `fastpath.spec`), a feature says how drift watches it.
JSON has no NaN and no infinity: a null default is NaN, a null bound is none.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from fastpath.errors import SchemaError
from fastpath.spec import FeatureSpec, check_specs
from server.bundle.manifest import decode_json
from server.errors import BundleError


class FeatureEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One feature of `schema.json`, in the model's order."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    type: Literal["numeric", "boolean", "categorical"]
    source: Annotated[str, msgspec.Meta(min_length=1)] = "request"
    default: float | None = None  # null: NaN, which is passed to the model
    minimum: float | None = None  # null: no bound
    maximum: float | None = None
    required: bool = False
    vocabulary: list[str] = []
    monitor: Literal["auto", "off", "calendar"] = "auto"  # how drift watches the feature
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0  # in the drift score


class SchemaFile(msgspec.Struct, kw_only=True):
    """The whole of `schema.json`."""

    features: Annotated[list[FeatureEntry], msgspec.Meta(min_length=1, max_length=1024)]


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
        Not JSON, or a feature that cannot be served; the message names it.
    """
    schema = decode_json(data, SchemaFile, where)
    try:
        check_specs(feature_specs(schema))
    except SchemaError as error:
        raise BundleError(f"{where}: {error}") from error
    return schema


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
        )
        for feature in schema.features
    ]
