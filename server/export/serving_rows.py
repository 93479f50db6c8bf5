"""Rows of a file as the server would resolve them, by a bundle's schema.

What counts as missing is what does in a request (docs/features.md): no value, an infinity, a number
outside its range that is not clipped, a boolean that is neither 0 nor 1, a category that the
vocabulary does not know. Missing values are filled with the schema's defaults before the model
scores them; what drift counts keeps them missing, and categories unseen. Rows that the server would
refuse (a required feature is missing, a value is out of a range that refuses) are left out.

A column stands in for a feature wherever the server would have it from: request or store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from server.bundle.schema import FeatureEntry, SchemaFile
from server.errors import InputError

Float32Array = NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ServingRows:
    """Resolved rows.

    Attributes
    ----------
    scored : array of float32, shape (n, n_features)
        What the model gets: defaults filled in.
    observed : array of float32, shape (n, n_features)
        What drift counts: NaN where a default stands in, a code past the vocabulary where a
        category is unseen.
    kept : array of bool, shape (n_rows of the file,)
        Which rows those are: the others would have been refused.
    refusals : dict of str to int
        Why the others would have been, and how many.
    """

    scored: Float32Array
    observed: Float32Array
    kept: NDArray[np.bool_]
    refusals: dict[str, int]


def resolve_rows(frame: pd.DataFrame, schema: SchemaFile, where: str) -> ServingRows:
    """Resolve a table's rows.

    Parameters
    ----------
    frame : pandas.DataFrame
        A column per feature, by name; others are not looked at.
    schema : SchemaFile
    where : str
        The file, for messages.

    Raises
    ------
    InputError
        Columns are missing, or hold what the feature's type cannot be.
    """
    _check_columns(frame, schema.features, where)
    n = len(frame)
    scored = np.empty((n, len(schema.features)), np.float32)
    observed = np.empty_like(scored)
    kept = np.ones(n, np.bool_)
    refusals: dict[str, int] = {}
    for j, feature in enumerate(schema.features):
        values, unseen = _values(frame[feature.name], feature, where)
        missing = ~_usable(values, feature)
        if feature.on_range == "clip":
            values = _clipped(values, feature)
            missing &= ~np.isfinite(values)
        elif feature.on_range == "reject":
            _refuse(kept, refusals, missing & np.isfinite(values), f"{feature.name} out of range")
        if feature.required:
            _refuse(kept, refusals, missing, f"{feature.name} missing")
        default = math.nan if feature.default is None else feature.default
        scored[:, j] = np.where(missing, np.float32(default), values)
        seen = np.where(missing, np.float32(np.nan), values)
        observed[:, j] = np.where(unseen, np.float32(len(feature.vocabulary)), seen)
    return ServingRows(
        scored=np.ascontiguousarray(scored[kept]),
        observed=np.ascontiguousarray(observed[kept]),
        kept=kept,
        refusals=refusals,
    )


def _refuse(
    kept: NDArray[np.bool_], refusals: dict[str, int], rows: NDArray[np.bool_], why: str
) -> None:
    if rows.any():
        refusals[why] = int(rows.sum())
        kept &= ~rows


def _check_columns(frame: pd.DataFrame, features: Sequence[FeatureEntry], where: str) -> None:
    there = [str(column) for column in frame.columns]
    lacking = [feature.name for feature in features if feature.name not in there]
    if lacking:
        raise InputError(
            f"{where}: no column {_some(lacking)}, of {len(features)} features of the model, "
            f"stored ones among them; there are {_some(there)}"
        )
    twice = [feature.name for feature in features if there.count(feature.name) > 1]
    if twice:
        raise InputError(f"{where}: the column {_some(twice)} stands twice")


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:12])}{' …' if len(names) > 12 else ''}"


def _values(
    column: Any, feature: FeatureEntry, where: str
) -> tuple[Float32Array, NDArray[np.bool_]]:
    """Return a column as float32, NaN where there is no value, and which are unseen."""
    nothing = np.zeros(len(column), np.bool_)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    plain = pd.api.types.is_numeric_dtype(column.dtype) and column.dtype.kind != "c"
    if plain or kind in ("boolean", "empty"):
        wide = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
        with np.errstate(over="ignore"):
            values = wide.astype(np.float32)
        if feature.type != "categorical":
            return values, nothing
        return values, np.isfinite(values) & ~_usable(values, feature)
    if feature.type == "categorical" and kind == "string":
        codes = {text: code for code, text in enumerate(feature.vocabulary)}
        values = column.map(codes).to_numpy(dtype=np.float32, na_value=np.nan)
        return values, np.isnan(values) & column.notna().to_numpy(dtype=np.bool_)
    wanted = {
        "numeric": "numbers",
        "boolean": "true and false, or 0 and 1",
        "categorical": "texts of its vocabulary, or codes",
    }[feature.type]
    row = int(column.notna().to_numpy().argmax())
    raise InputError(
        f"{where}: column {feature.name} holds {kind} values, as {column.iloc[row]!r} in row "
        f"{column.index[row]}; the feature is {feature.type}: {wanted} are needed"
    )


def _bounds(feature: FeatureEntry) -> tuple[np.float32, np.float32]:
    """Return the least and the largest value that is usable."""
    if feature.type == "boolean":
        return np.float32(0), np.float32(1)
    if feature.type == "categorical":
        return np.float32(0), np.float32(len(feature.vocabulary) - 1)
    low = -LARGEST if feature.minimum is None else feature.minimum
    high = LARGEST if feature.maximum is None else feature.maximum
    return np.float32(low), np.float32(high)


def _usable(values: Float32Array, feature: FeatureEntry) -> NDArray[np.bool_]:
    low, high = _bounds(feature)
    fits: NDArray[np.bool_] = (values >= low) & (values <= high)  # NaN does not
    if feature.type != "numeric":
        fits &= values == np.floor(values)
    return fits


def _clipped(values: Float32Array, feature: FeatureEntry) -> Float32Array:
    low, high = _bounds(feature)
    return np.where(np.isfinite(values), np.clip(values, low, high), values).astype(np.float32)
