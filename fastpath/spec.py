"""What a feature is: the plain record that schemas are compiled from, and its rules.

A bundle's `schema.json` becomes a list of `FeatureSpec`; `check_specs` refuses a list that
cannot be served, naming the feature; `fastpath.schema.Schema` compiles it. All values of a
feature are float32 on the serving path, so a default or a bound is rounded to float32 first and
the rules hold for the rounded numbers.

A *layout* is an ordered list of (name, type): what a dense request holds. Its fingerprint does
not cover vocabularies, ranges or defaults.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

from fastpath.errors import SchemaError

FeatureType = Literal["numeric", "boolean", "categorical"]

# Values of scoregate.v1.FeatureType.
TYPE_CODES = {"numeric": 1, "boolean": 2, "categorical": 3}

MAX_FEATURES = 1024
MAX_NAME_BYTES = 256
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
        Numeric only: a value outside counts as missing.
    required : bool
        Missing everywhere is an error of the caller instead of the default.
    vocabulary : tuple of str
        Categorical only: the code of a value is its index.
    source : str
        "request", or the group of stored features that it is read from.
    """

    name: str
    type: FeatureType
    default: float = math.nan
    minimum: float = -math.inf
    maximum: float = math.inf
    required: bool = False
    vocabulary: tuple[str, ...] = ()
    source: str = "request"


def to_float32(value: float) -> float:
    """Round to the nearest float32; what lies beyond its range becomes infinite."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(rounded)


def check_columns(columns: Sequence[tuple[str, str]]) -> None:
    """Refuse a layout whose names or types cannot be compiled.

    Raises
    ------
    SchemaError
        The number of columns, a name or a type is not allowed, or a name stands twice.
    """
    if not 1 <= len(columns) <= MAX_FEATURES:
        raise SchemaError(f"{len(columns)} features: a schema has 1 to {MAX_FEATURES}; drop some")
    seen: dict[str, int] = {}
    for index, (name, kind) in enumerate(columns):
        _check_name(name, index)
        if name in seen:
            raise SchemaError(
                f"feature {name!r} stands twice, at {seen[name]} and {index}: rename one"
            )
        seen[name] = index
        if kind not in TYPE_CODES:
            raise SchemaError(
                f"feature {name!r}: type {kind!r} is unknown; it is one of {', '.join(TYPE_CODES)}"
            )


def check_specs(specs: Sequence[FeatureSpec]) -> None:
    """Refuse a schema that cannot be served.

    Raises
    ------
    SchemaError
        The message names the feature, what is wrong with it and what would be right.
    """
    check_columns([(spec.name, spec.type) for spec in specs])
    for spec in specs:
        _check_vocabulary(spec)
        _check_range(spec)
        _check_default(spec)
        if not spec.source:
            raise SchemaError(
                f"feature {spec.name!r}: the source is empty; write 'request' or a group's name"
            )


def layout_fingerprint(columns: Sequence[tuple[str, str]]) -> int:
    r"""Return the fingerprint of a layout.

    Parameters
    ----------
    columns : sequence of (name, type)
        In the order of the values of a dense request.

    Returns
    -------
    int
        The first 8 bytes, little endian, of SHA-256 over UTF-8 name, ``\\0``, type and
        ``\\n`` of every column: 0 to 2**64 - 1.
    """
    digest = hashlib.sha256()
    for name, kind in columns:
        digest.update(name.encode() + b"\0" + kind.encode() + b"\n")
    return int.from_bytes(digest.digest()[:8], "little")


def _check_name(name: str, index: int) -> None:
    if not isinstance(name, str) or not name:
        raise SchemaError(f"feature {index} has no name: every feature needs one")
    try:
        n_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise SchemaError(f"feature {index}: the name {name!r} is not valid Unicode") from None
    if n_bytes > MAX_NAME_BYTES:
        raise SchemaError(
            f"feature {name[:40]!r}...: the name has {n_bytes} bytes, at most {MAX_NAME_BYTES} fit"
        )
    # Both would make two different layouts share the text that is fingerprinted.
    if "\0" in name or "\n" in name:
        raise SchemaError(f"feature {name!r}: a name cannot hold a NUL or a line break")


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
