"""A new reference for an existing bundle, from other rows: a new version of the same model.

A bundle is immutable, and its manifest's digest is its identity: so the result is another version,
whose model, schema, thresholds, golden rows and calibration are the old one's, byte for byte. Only
`reference.npz` is new: what drift compares with. The calibration stays, because it needs outcomes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fastpath.model import Model
from server.bundle import Bundle, check_vacant, load_model, read_bundle, write_bundle
from server.bundle.arrays import encode_arrays
from server.bundle.manifest import MANIFEST, REFERENCE
from server.drift.reference import Reference, reference_from_arrays
from server.drift.settings import DriftSettings, monitored_features
from server.errors import InputError
from server.export.frame import read_frame, take_column
from server.export.reference import build_reference
from server.export.serving_rows import ServingRows, resolve_rows
from server.export.times import event_times_ms
from server.repository import Repository

CHUNK_ROWS = 65_536
LEAST_ROWS = DriftSettings().min_rows  # a reference smaller than a window decides nothing
SUFFIX = "-ref"


@dataclass(frozen=True)
class Rebuilt:
    """What was made."""

    path: Path
    sha256: bytes  # of the manifest
    model: str
    version: str
    former: Path  # the bundle that it was made from
    n_rows: int  # of the file
    rows: ServingRows
    reference: Reference


def find_bundle(path: Path) -> Path:
    """Return a bundle's directory: the path itself, or the newest version of a model's directory.

    Raises
    ------
    StartError, InputError
        It is neither.
    """
    if (path / MANIFEST).exists():
        return path
    whole = path.absolute()
    found = Repository(whole.parent).find(whole.name)[1]
    if not (found / MANIFEST).exists():
        raise InputError(
            f"{path}: neither a bundle nor a model's directory: give REPOSITORY/MODEL/VERSION, or "
            "REPOSITORY/MODEL for its newest version"
        )
    return found


def next_version(bundle: Bundle) -> Path:
    """Return where a new version goes by itself: beside the bundle, as VERSION-ref1, -ref2 ..."""
    base = re.sub(rf"{SUFFIX}\d+$", "", bundle.manifest.version)
    folder = bundle.path.absolute().parent
    taken = [
        int(found[1])
        for entry in folder.iterdir()
        if (found := re.fullmatch(re.escape(base + SUFFIX) + r"(\d{1,9})", entry.name))
    ]
    return folder / f"{base}{SUFFIX}{max(taken, default=0) + 1}"


def rebuild_reference(
    path: Path,
    file: Path,
    *,
    time_column: str | None = None,
    out: Path | None = None,
    step: Callable[[str], None] | None = None,
) -> Rebuilt:
    """Make a new version of a bundle, with the reference of a file's rows.

    Parameters
    ----------
    path : path
        A bundle, or a model's directory: then its newest version.
    file : path
        Parquet or CSV, a column per feature.
    time_column : str or None
        Event times, for calendar features; rows are put in their order. None: as they stand.
    out : path or None
        The new version's directory, `<repository>/<model>/<version>`; None: `next_version`.
    step : callable or None
        Called with a few words when a step begins.

    Raises
    ------
    InputError
        The file cannot be used: it says which column or row, and why.
    StartError, BundleError
        No bundle is there, or it is damaged, or `out` cannot be written.
    """
    say = step or (lambda _: None)
    say("verifying the bundle")
    bundle = read_bundle(find_bundle(path))
    out = next_version(bundle) if out is None else out
    check_vacant(out)
    model = load_model(bundle).model
    say(f"reading {file}")
    frame = read_frame(file)
    times = None
    if time_column is not None:
        frame, times = _in_time(frame, time_column, str(file))
    rows = resolve_rows(frame, bundle.schema, str(file))
    _check_enough(rows, len(frame), str(file))
    if times is not None:
        times = times[rows.kept]
    raw = _score(model, rows.scored, say)
    say("building the reference")
    features = monitored_features(bundle.schema.features)
    arrays = build_reference(rows.observed, raw, features, times)
    reference = reference_from_arrays(arrays, features, name=file.name)
    say("writing")
    manifest = msgspec.structs.replace(
        bundle.manifest,
        name=out.absolute().parent.name,
        version=out.name,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        reference=file.name,
    )
    content = {name: bundle.read(name) for name in bundle.manifest.files}
    sha256 = write_bundle(out, manifest, {**content, REFERENCE: encode_arrays(arrays)})
    return Rebuilt(
        path=out,
        sha256=sha256,
        model=manifest.name,
        version=manifest.version,
        former=bundle.path,
        n_rows=len(frame),
        rows=rows,
        reference=reference,
    )


def _in_time(
    frame: pd.DataFrame, column: str, where: str
) -> tuple[pd.DataFrame, NDArray[np.int64] | None]:
    """Return the rows in the order of time, and their times where those are timestamps."""
    given = take_column(frame, column, "--time-column")
    if given.isna().any():
        raise InputError(f"{where}: {column}: row {int(given.isna().argmax())} has no time")
    if pd.api.types.is_numeric_dtype(given.dtype):  # an order, but of no known unit
        return frame.iloc[np.argsort(given.to_numpy(), kind="stable")], None
    times = event_times_ms(given)
    if times is None:
        raise InputError(
            f"{where}: {column} holds no times, as {given.iloc[0]!r} in row 0: timestamps or ISO "
            "8601 texts are needed"
        )
    order = np.argsort(times, kind="stable")
    return frame.iloc[order], times[order]


def _check_enough(rows: ServingRows, n_rows: int, where: str) -> None:
    n_kept = int(rows.kept.sum())
    if n_kept >= LEAST_ROWS:
        return
    refused = ""
    if rows.refusals:
        why = ", ".join(f"{count:,} with {what}" for what, count in rows.refusals.items())
        refused = f" of which the server would answer {n_kept:,} (refused: {why})"
    raise InputError(
        f"{where}: {n_rows:,} rows{refused}; a reference needs at least {LEAST_ROWS}, as many as a "
        "window: 5,000 or more make a good one"
    )


def _score(
    model: Model, rows: NDArray[np.float32], say: Callable[[str], None]
) -> NDArray[np.float32]:
    """Return raw scores, saying now and then how far it is."""
    raw = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        say(f"scoring: {start:,} of {len(rows):,} rows")
        raw[start : start + CHUNK_ROWS] = model.score(rows[start : start + CHUNK_ROWS])
    return raw
