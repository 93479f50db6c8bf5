"""What the drift score does on rows that have not drifted: chunks of the validation rows.

Rows that are next to each other come from the same hours and the same customers, so they differ
from the rest by more than chance between independent rows says. Each chunk of 1,000 rows, in the
rows' order, is held against all others as a window is held against the reference; what comes of it
is kept as quantiles of the drift score, and per column as a design effect: by how much n D^2 is
larger than its mean for independent rows. Under five chunks nothing is kept.

With event times, calendar features are also counted by hour of the week, and with them the
raw score, which follows them through the model. Numbers are counted on the reference's own bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastpath.spec import layout_fingerprint
from server.drift.clusters import chunk_design_effect
from server.drift.comparison import compare
from server.drift.critical import effective_size
from server.drift.distances import histogram_distance
from server.drift.hours import count_by_hour, hour_of_week
from server.drift.reference import Reference, reference_from_arrays
from server.drift.settings import DriftSettings, MonitoredFeature

CHUNK_ROWS = 1000
LEAST_CHUNKS = 5
MAX_CHUNKS = 200
NULL_PROBABILITIES = np.array([0.5, 0.9, 0.95, 0.99])


def baseline_arrays(
    arrays: Mapping[str, NDArray[Any]],
    rows: NDArray[np.float32],
    raw: NDArray[np.float32],
    features: Sequence[MonitoredFeature],
    time_ms: NDArray[np.int64] | None,
) -> dict[str, NDArray[Any]]:
    """Return the arrays that `build_reference` adds.

    Parameters
    ----------
    arrays : mapping
        What `reference_arrays` made of the same rows.
    rows, raw, features, time_ms
        As `build_reference` has them, in the order of time.
    """
    fingerprint = layout_fingerprint([(f.name, f.type) for f in features])
    found: dict[str, NDArray[Any]] = {"schema_fingerprint": np.array([fingerprint], np.uint64)}
    reference = reference_from_arrays(arrays, features)
    columns = reference.columns
    values, fallback = columns.tidy(rows, raw, None)
    hours = None if time_ms is None else hour_of_week(time_ms)
    if time_ms is not None and hours is not None and len(time_ms):
        calendar = [j for j, f in enumerate(features) if f.monitor == "calendar"]
        if calendar:  # the raw score follows them through the model
            calendar.append(len(features))
        tables = [_hour_table(reference, j, values[j], hours).ravel() for j in calendar]
        found["hour_column"] = np.array(calendar, np.int64)
        found["hour_bin_count"] = np.concatenate([*tables, np.empty(0)]).astype(np.int64)
        found["time_ms"] = np.array([time_ms[0], time_ms[-1]], np.int64)
    n_chunks = len(raw) // CHUNK_ROWS
    if n_chunks < LEAST_CHUNKS:
        return found
    settings = DriftSettings()
    kept = np.unique(np.linspace(0, n_chunks - 1, min(n_chunks, MAX_CHUNKS)).astype(int))
    scores, distances, sizes = [], [], []
    for chunk in kept:
        part = slice(chunk * CHUNK_ROWS, (chunk + 1) * CHUNK_ROWS)
        counts = columns.count(values[:, part], fallback[:, part])
        rest = reference.counts - counts
        # Without hours calendar features are out of the score, as they are when it is served.
        scores.append(compare(reference, counts, settings, baseline=rest).largest)
        pairs = [_distance(reference, j, counts, rest) for j in range(columns.n_columns)]
        distances.append([distance for distance, _ in pairs])
        sizes.append([size for _, size in pairs])
    by_column, size = np.array(distances).T, np.array(sizes).T
    found["design_effect"] = np.array(
        [chunk_design_effect(d, s) for d, s in zip(by_column, size, strict=True)]
    )
    for j, feature in enumerate(features):
        if feature.monitor == "calendar":  # its own hours are what it is compared with
            found["design_effect"][j] = 1.0
    found["null_probability"] = NULL_PROBABILITIES
    found["null_quantile"] = np.quantile(scores, NULL_PROBABILITIES, method="higher")
    found["null_chunks"] = np.array([CHUNK_ROWS, len(kept)], np.int64)
    return found


def _hour_table(
    reference: Reference, j: int, values: NDArray[np.float32], hours: NDArray[np.int64]
) -> NDArray[np.int64]:
    columns = reference.columns
    present = ~np.isnan(values)
    size = int(columns.offsets[j + 1] - columns.offsets[j])
    return count_by_hour(hours[present], columns.place(j, values[present]), size)


def _distance(
    reference: Reference, j: int, counts: NDArray[np.int64], rest: NDArray[np.int64]
) -> tuple[float, float]:
    """Return D of a chunk and its effective size; categories in the order of their codes."""
    now, before = reference.columns.bins(counts, j), reference.columns.bins(rest, j)
    n, m = int(now.sum()), int(before.sum())
    if not n or not m:
        return 0.0, 0.0
    return histogram_distance(now, before), effective_size(n, m)
