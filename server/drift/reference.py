"""The reference that a bundle brings: read, checked against the schema, and put in columns.

`server/export/reference.py` says what `reference.npz` holds. Arrays that only newer exports write
may be missing: what needs them is off, and `Reference.notes` says so. Arrays that are there but do
not fit the schema refuse the reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastpath.spec import layout_fingerprint
from server.bundle.manifest import REFERENCE
from server.bundle.reader import Bundle
from server.drift.columns import Columns, Counts, Float32Array
from server.drift.critical import CriticalTable, table_of
from server.drift.hours import HOURS
from server.drift.settings import MonitoredFeature, monitored_features
from server.errors import BundleError

MAX_VALUES = 100_000  # of a column
MAX_BINS = 4096  # of a column
VALIDATION_ROWS = "the export's validation rows"


@dataclass(frozen=True)
class Reference:
    """What windows are compared with; immutable.

    Attributes
    ----------
    features : tuple of MonitoredFeature
        In the model's order; column F is the raw score.
    columns : Columns
    values : tuple of F + 1 arrays of float32
        Sorted present values, thinned to at most 10,000 by the export.
    counts : array of int64, shape (columns.size,)
        Bins, missing values and fallbacks of the reference's rows.
    n_rows : int
    critical : CriticalTable or None
    hours : dict of int to array of int64, shape (168, n_bins of the column)
        Bins by hour of the week of calendar features, and with them of the raw score.
    design_effect : array of float64, shape (F + 1,)
    null_quantiles : dict of float to float
        Probability to quantile of the aggregate, over chunks of the validation rows.
    null_chunk_rows, n_null_chunks : int
        What those come from; 0 where there are none.
    time_ms : int or None
        When the reference was made.
    newest_ms : int or None
        Event time of its newest row, where its rows had times.
    name : str
        What rows it was made of, for people.
    digest : bytes
        Identifies it: windows kept for another reference are not taken up.
    notes : tuple of str
        What is off, and why.
    """

    features: tuple[MonitoredFeature, ...]
    columns: Columns
    values: tuple[Float32Array, ...]
    counts: Counts
    n_rows: int
    critical: CriticalTable | None
    hours: Mapping[int, NDArray[np.int64]]
    design_effect: NDArray[np.float64]
    null_quantiles: Mapping[float, float]
    null_chunk_rows: int
    n_null_chunks: int
    time_ms: int | None
    newest_ms: int | None
    digest: bytes
    name: str = VALIDATION_ROWS
    notes: tuple[str, ...] = field(default=())

    @property
    def fingerprint(self) -> int:
        """Return the fingerprint of the features' names and types, in order."""
        return layout_fingerprint([(f.name, f.type) for f in self.features])


def load_reference(bundle: Bundle) -> Reference:
    """Read a verified bundle's reference.

    Raises
    ------
    BundleError
        Damaged, or made for another schema; the message says which array does not fit.
    """
    return reference_from_arrays(
        bundle.arrays(REFERENCE),
        monitored_features(bundle.schema.features),
        where=str(bundle.path / REFERENCE),
        time_ms=_milliseconds(bundle.manifest.created),
        name=bundle.manifest.reference or VALIDATION_ROWS,
    )


def reference_from_arrays(
    arrays: Mapping[str, NDArray[Any]],
    features: Sequence[MonitoredFeature],
    *,
    where: str = REFERENCE,
    time_ms: int | None = None,
    name: str = VALIDATION_ROWS,
) -> Reference:
    """Check the arrays of a `reference.npz` and return them as a reference.

    Parameters
    ----------
    arrays : mapping of str to array
    features : sequence of MonitoredFeature
        The schema that the reference must be of.
    where : str
        For messages.
    time_ms : int or None
        When it was made.
    name : str
        What rows it was made of, for people.
    """
    reader = _Reader(arrays, where)
    n = len(features) + 1
    n_rows = reader.whole("n_rows")
    if len(n_rows) != n:
        raise BundleError(
            f"{where}: made for {len(n_rows) - 1} features, the schema has {n - 1}: it belongs to "
            "another model; export again, or build a reference for this bundle"
        )
    expected = layout_fingerprint([(f.name, f.type) for f in features])
    known = arrays.get("schema_fingerprint")
    if known is not None and (known.size != 1 or known.ravel()[0] != expected):
        raise BundleError(
            f"{where}: made for features of other names or types (fingerprint "
            f"{known.ravel()[0] if known.size else 0}, the schema's is {expected}): it "
            "belongs to another model; export again, or build a reference for this bundle"
        )
    values = reader.ragged("values", n, np.float32, MAX_VALUES)
    bounds = reader.ragged("bin_upper", n, np.float32, MAX_BINS)
    bins = reader.ragged("bin_count", n, np.int64, MAX_BINS + 1)
    categories = reader.ragged("category_count", n, np.int64, MAX_BINS)
    missing = reader.whole("missing_count", n)
    notes: list[str] = []
    for j in range(n):
        column = features[j].name if j < n - 1 else "the raw score"
        reader.ascending(values[j], f"values of {column}", strictly=False)
        reader.ascending(bounds[j], f"bin_upper of {column}", strictly=True)
        if len(bins[j]) != len(bounds[j]) + 1:
            raise BundleError(
                f"{where}: bin_count of {column}: {len(bins[j])} bins for {len(bounds[j])} bounds"
            )
        if bins[j].min() < 0 or bins[j].sum() + missing[j] != n_rows[j] or n_rows[j] != n_rows[0]:
            raise BundleError(f"{where}: the counts of {column} do not add up to its rows")
    columns = Columns(features, bounds)
    counts = np.zeros(columns.size, np.int64)
    columns.missing(counts)[:] = missing
    for j in range(n):
        own = columns.bins(counts, j)
        if not columns.is_category[j]:
            own[:] = bins[j]
        elif len(categories[j]) == columns.n_categories[j]:
            own[:-1] = categories[j]
            own[-1] = bins[j].sum() - categories[j].sum()  # not a code: unseen
            if own.min() < 0:
                raise BundleError(f"{where}: category_count of {features[j].name} is wrong")
        elif len(categories[j]):
            raise BundleError(
                f"{where}: category_count of {features[j].name}: {len(categories[j])} categories, "
                f"the schema has {columns.n_categories[j]}: it belongs to another model"
            )
        else:
            notes.append(f"{features[j].name}: no category counts: its distribution is not watched")
    fallback = columns.fallback(counts)
    if "fallback_count" in arrays:
        fallback[:] = reader.whole("fallback_count", n - 1)
    else:  # an export knows no stores: what was missing or unseen would have been a default
        fallback[:] = missing[:-1]
        fallback += [
            columns.bins(counts, j)[-1] if columns.is_category[j] else 0 for j in range(n - 1)
        ]
    times = reader.whole("time_ms", 2) if "time_ms" in arrays else None
    hours = _hours(reader, columns, notes)
    effect = reader.optional("design_effect", n)
    if effect is None:
        notes.append("no design effects: rows count as independent")
        effect = np.ones(n)
    quantiles, chunk_rows, n_chunks = _null(reader, notes)
    return Reference(
        features=tuple(features),
        columns=columns,
        values=values,
        counts=counts,
        n_rows=int(n_rows[0]),
        critical=_critical(reader, notes),
        hours=hours,
        design_effect=np.maximum(effect.astype(np.float64), 1.0),
        null_quantiles=quantiles,
        null_chunk_rows=chunk_rows,
        n_null_chunks=n_chunks,
        time_ms=time_ms,
        newest_ms=None if times is None else int(times[1]),
        digest=_digest(arrays, expected),
        name=name,
        notes=tuple(notes),
    )


def _hours(reader: _Reader, columns: Columns, notes: list[str]) -> dict[int, NDArray[np.int64]]:
    wanted = [j for j, f in enumerate(columns.features) if f.monitor == "calendar"]
    found: dict[int, NDArray[np.int64]] = {}
    if "hour_column" in reader.arrays:
        start = 0
        listed, table = reader.whole("hour_column"), reader.whole("hour_bin_count")
        for j in listed.tolist():
            if not 0 <= j <= columns.n_features:
                raise BundleError(f"{reader.where}: hour_column names feature {j}")
            size = int(columns.offsets[j + 1] - columns.offsets[j])
            part = table[start * HOURS : (start + size) * HOURS]
            start += size
            if len(part) == size * HOURS and part.min() >= 0:
                found[j] = part.reshape(HOURS, size)
        if len(table) != start * HOURS:
            raise BundleError(f"{reader.where}: hour_bin_count does not fit hour_column")
    notes.extend(
        f"{columns.features[j].name}: a calendar feature, but the reference has no hours of the "
        "week (export with times): reported, and kept out of the drift score"
        for j in wanted
        if j not in found
    )
    # The score is compared by hours where a feature is, and by the whole week elsewhere.
    used = [*wanted, columns.n_features] if any(j in found for j in wanted) else wanted
    return {j: found[j] for j in used if j in found}


def _critical(reader: _Reader, notes: list[str]) -> CriticalTable | None:
    sizes, tails = reader.optional("ks_n"), reader.optional("ks_tail")
    distances = reader.arrays.get("ks_tail_critical")
    if sizes is None or tails is None or distances is None:
        notes.append("no critical values of D for all tests: a bound is used, a little larger")
        return None
    if distances.shape != (len(sizes), len(tails)) or not len(sizes) or not len(tails):
        raise BundleError(f"{reader.where}: ks_tail_critical has the shape {distances.shape}")
    if not (np.isfinite(distances).all() and (np.diff(sizes) > 0).all() and sizes[0] > 0):
        raise BundleError(f"{reader.where}: ks_tail_critical: sizes must ascend, values be finite")
    if not ((tails > 0) & (tails < 1)).all():
        raise BundleError(f"{reader.where}: ks_tail: probabilities are needed")
    return table_of(sizes, tails, distances)


def _null(reader: _Reader, notes: list[str]) -> tuple[dict[float, float], int, int]:
    probabilities = reader.optional("null_probability")
    quantiles = reader.optional("null_quantile")
    chunks = reader.optional("null_chunks", 2)
    if probabilities is None or quantiles is None or chunks is None:
        notes.append("too few validation rows for null quantiles of the drift score")
        return {}, 0, 0
    if len(probabilities) != len(quantiles):
        raise BundleError(f"{reader.where}: null_quantile does not fit null_probability")
    pairs = zip(probabilities.tolist(), quantiles.tolist(), strict=True)
    return dict(pairs), int(chunks[0]), int(chunks[1])


class _Reader:
    """Takes arrays out of a mapping; every refusal names the array."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], where: str) -> None:
        self.arrays = arrays
        self.where = where

    def take(self, name: str) -> NDArray[Any]:
        """Return an array that every reference has."""
        if name not in self.arrays:
            raise BundleError(f"{self.where}: the array {name!r} is missing: not a reference")
        return self.arrays[name]

    def whole(self, name: str, length: int | None = None) -> NDArray[np.int64]:
        """Return a flat array of counts."""
        array = self.take(name).ravel()
        if array.dtype.kind not in "iu" or (length is not None and len(array) != length):
            raise BundleError(
                f"{self.where}: {name}: {len(array)} {array.dtype}, not "
                f"{'some' if length is None else length} integers"
            )
        return array.astype(np.int64)

    def optional(self, name: str, length: int | None = None) -> NDArray[np.float64] | None:
        """Return a flat array of finite numbers, or None where there is none."""
        if name not in self.arrays:
            return None
        array = self.arrays[name].ravel().astype(np.float64)
        if not np.isfinite(array).all() or (length is not None and len(array) != length):
            raise BundleError(f"{self.where}: {name}: not {length or ''} finite numbers")
        return array

    def ragged(self, name: str, n: int, dtype: Any, most: int) -> tuple[NDArray[Any], ...]:
        """Return the parts of a concatenated array."""
        data, offsets = self.take(name).ravel(), self.whole(f"{name}_offsets")
        if (
            len(offsets) != n + 1
            or offsets[0] != 0
            or offsets[-1] != len(data)
            or (np.diff(offsets) < 0).any()
        ):
            raise BundleError(f"{self.where}: {name}_offsets does not fit {name} and {n} columns")
        if np.dtype(dtype).kind == "i" and data.dtype.kind not in "iu":
            raise BundleError(f"{self.where}: {name}: {data.dtype}, not integers")
        if np.diff(offsets).max() > most:
            raise BundleError(f"{self.where}: {name}: a column holds more than {most}")
        data = np.ascontiguousarray(data, dtype)
        return tuple(data[offsets[j] : offsets[j + 1]] for j in range(n))

    def ascending(self, values: Float32Array, what: str, *, strictly: bool) -> None:
        """Refuse values that are not finite or not in order."""
        steps = values[1:] > values[:-1] if strictly else values[1:] >= values[:-1]
        if not steps.all() or np.isnan(values).any():
            raise BundleError(f"{self.where}: {what} are not in ascending order")


def _digest(arrays: Mapping[str, NDArray[Any]], fingerprint: int) -> bytes:
    digest = hashlib.sha256(fingerprint.to_bytes(8, "little"))
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.digest()


def _milliseconds(created: str) -> int | None:
    try:
        return int(datetime.fromisoformat(created).timestamp() * 1000)
    except ValueError:
        return None
