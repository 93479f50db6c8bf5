"""A monitor's windows as bytes: an `.npz` of plain arrays with a checksum in front.

Read within bounds and without pickle, like a bundle's arrays. What does not belong to the
reference at hand is refused: counts on other bins mean nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.bundle.arrays import decode_arrays, encode_arrays
from server.drift.columns import Columns
from server.drift.states import STATES, Machine
from server.errors import BundleError, InputError

MAGIC = b"scoregate.drift.1\n"
WHERE = "kept drift windows"
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Snapshot:
    """What `unpack` found."""

    watermark_ms: int
    machine: Machine
    arrays: dict[str, NDArray[Any]]


def pack(
    reference: bytes,
    columns: Columns,
    pane_ms: int,
    watermark_ms: int,
    machine: Machine,
    arrays: dict[str, NDArray[Any]],
) -> bytes:
    """Return magic, SHA-256 and arrays."""
    place = [columns.size, pane_ms, watermark_ms, STATES.index(machine.state), machine.high_end]
    body = encode_arrays(
        {
            **arrays,
            "reference": np.frombuffer(reference, np.uint8),
            "place": np.array(place, np.int64),
        }
    )
    return MAGIC + hashlib.sha256(body).digest() + body


def unpack(data: bytes, reference: bytes, columns: Columns, pane_ms: int) -> Snapshot:
    """Check and return what `pack` packed.

    Raises
    ------
    InputError
        Not ours, damaged, or of another reference or other panes.
    """
    body = data[len(MAGIC) + DIGEST_BYTES :]
    if not data.startswith(MAGIC):
        raise InputError(f"{WHERE}: not a file of drift windows, or of another version")
    if hashlib.sha256(body).digest() != data[len(MAGIC) : len(MAGIC) + DIGEST_BYTES]:
        raise InputError(f"{WHERE}: damaged: the checksum differs; delete the file to start anew")
    try:
        arrays = decode_arrays(body, WHERE)
        place = arrays.pop("place").tolist()
        kept = arrays.pop("reference").tobytes()
        if kept != reference:
            raise InputError(f"{WHERE}: of another reference: start anew")
        size, kept_pane_ms, watermark_ms, state, high_end = place
        if kept_pane_ms != pane_ms:
            raise InputError(
                f"{WHERE}: of panes of {kept_pane_ms} ms, now they are {pane_ms} ms: start anew"
            )
        n, n_panes = len(arrays["fast_time_ms"]), len(arrays["slow_pane"])
        fits = (
            size == columns.size
            and arrays["fast_values"].shape == (columns.n_columns, n)
            and arrays["fast_fallback"].shape == (columns.n_features, n)
            and arrays["fast_place"].shape == (4,)
            and arrays["slow_counts"].shape == (n_panes, columns.size)
            and arrays["slow_first_ms"].shape == (n_panes,)
            and arrays["slow_last_ms"].shape == (1,)
        )
        machine = Machine(state=STATES[state], high_end=high_end)
    except (BundleError, KeyError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{WHERE}: not readable ({error}): start anew") from error
    if not fits:
        raise InputError(f"{WHERE}: the arrays do not fit the reference: start anew")
    return Snapshot(watermark_ms, machine, arrays)
