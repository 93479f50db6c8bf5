"""Proves at load that a native engine computes what onnxruntime computes.

The rows that find a difference are those at the splits: for every distinct threshold t of a
feature, the float32 values t, next above t and next below t; and NaN, both infinities and both
zeros for every feature. Two kinds of row carry them: a golden row with one value replaced (it
follows real paths down to the node), and rows where every feature is such a value (they visit
all values in few rows). Where there are more values than rows, a fixed sample is taken.

Scores are compared bit by bit; all NaNs count as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.errors import ParityError

Float32Array = NDArray[np.float32]

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
# At start-up the whole proof must stay well below a second: one row of a deep forest takes
# onnxruntime some 30 microseconds.
LOAD_ROWS = 1500


def edge_values(thresholds: Float32Array) -> Float32Array:
    """Return the values around each threshold, and the special ones, without repetition."""
    up, down = neighbours(thresholds)
    values = np.concatenate([SPECIAL, thresholds, up, down])
    # Distinct bit patterns: -0.0 and 0.0 both stay.
    return np.unique(values.view(np.uint32)).view(np.float32)


def neighbours(values: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Return the next float32 above and below each value; beyond the largest lies infinity."""
    with np.errstate(over="ignore"):
        up = np.nextafter(values, np.float32(np.inf))
        return up, np.nextafter(values, np.float32(-np.inf))


def threshold_rows(
    thresholds: Sequence[Float32Array], base: Float32Array, limit: int | None
) -> Float32Array:
    """Build rows from thresholds.

    Parameters
    ----------
    thresholds : sequence of float32 arrays
        For each feature, its distinct thresholds; may be empty.
    base : array of float32, shape (n_base, n_features)
        Rows to replace single values in; at least one.
    limit : int or None
        The most rows to build, half of each kind; None builds all of them.

    Returns
    -------
    numpy.ndarray of float32, shape (n_rows, n_features)
        The same rows for the same arguments.
    """
    rng = np.random.default_rng(0)
    values = [edge_values(t) for t in thresholds]
    longest = max(len(v) for v in values)
    n_mixed = longest if limit is None else min(longest, limit // 2)
    mixed = np.column_stack([np.resize(rng.permutation(v), n_mixed) for v in values])
    column = np.concatenate([np.full(len(v), j) for j, v in enumerate(values)])
    single = np.concatenate(values)
    if limit is not None and len(single) > limit - n_mixed:
        chosen = np.sort(rng.choice(len(single), limit - n_mixed, replace=False))
        column, single = column[chosen], single[chosen]
    replaced = base[rng.integers(len(base), size=len(single))]
    replaced[np.arange(len(single)), column] = single
    return np.ascontiguousarray(np.concatenate([mixed, replaced]), dtype=np.float32)


def first_difference(left: Float32Array, right: Float32Array) -> int | None:
    """Return the first row where two arrays of scores differ in any bit, or None."""
    differ = left.view(np.uint32) != right.view(np.uint32)
    differ &= ~(np.isnan(left) & np.isnan(right))
    return int(differ.argmax()) if differ.any() else None


def check_equal(
    rows: Float32Array,
    native: Float32Array,
    expected: Float32Array,
    names: Sequence[str],
    where: str,
) -> None:
    """Raise ParityError with the row that shows a difference, if there is one.

    Parameters
    ----------
    rows : array of float32, shape (n_rows, n_features)
    native, expected : array of float32, shape (n_rows,)
        Raw scores of our engine and of onnxruntime.
    names : sequence of str
        Feature names, for the message.
    where : str
        The bundle and what was compared, for the message.
    """
    at = first_difference(native, expected)
    if at is not None:
        raise ParityError(
            f"{where}: the native engine gives {native[at]!s}, onnxruntime {expected[at]!s} on row "
            f"{describe_row(rows[at], names)}; the bundle is refused: export the model again, and "
            "report this row"
        )


def describe_row(row: Float32Array, names: Sequence[str], limit: int = 40) -> str:
    """Return a row as `{name: value, …}`, values exact."""
    pairs = [f"{n}: {v!s}" for n, v in zip(names[:limit], row[:limit].tolist(), strict=True)]
    return "{" + ", ".join(pairs) + (", …}" if len(row) > limit else "}")
