"""What drift and calibration compare with: taken from validation rows and quantized raw scores.

`reference.npz` (F features, then the raw score as one more column, in this order):

* `values`, `values_offsets`: per column the sorted present values, at most 10,000 of them (then
  evenly spaced order statistics), concatenated; column j is values[offsets[j]:offsets[j + 1]];
* `bin_upper`, `bin_upper_offsets`: per column the bins' inclusive upper bounds, ascending;
  a value's bin is the number of bounds below it, so n bounds make n + 1 bins. Bounds are the 256
  quantiles; a value that holds at least 1/256 of the rows (an atom) has a bin of its own, because
  its lower neighbour in float32 is a bound too;
* `bin_count`, `bin_count_offsets`: per column the rows in each bin;
* `n_rows`, `missing_count`: [F + 1], rows in all and rows without a value;
* `category_count`, `category_count_offsets`: rows per category code (empty for numbers; 2 codes
  for booleans);
* `ks_n`, `ks_probability`, `ks_quantile`: quantiles of the Kolmogorov-Smirnov distance D when
  nothing has drifted, [n_sizes, n_probabilities], from the exact distribution (scipy's kstwo) at
  effective sample size n = n1 * n2 / (n1 + n2). Ties make D smaller, so with atoms the figures are
  on the safe side;
* `ks_alpha`, `ks_critical`: critical values of D, [n_sizes, n_alphas], for the largest of F
  features at once (Bonferroni: alpha / F each).

`calibration.npz`: `raw` and `probability`, the points of an isotonic regression of the outcome on
the raw score (linear in between, constant outside), `n_rows` and `n_positive`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstwo
from sklearn.isotonic import IsotonicRegression

from server.bundle.parity import neighbours

Float32Array = NDArray[np.float32]

MAX_VALUES = 10_000
N_BINS = 256
KS_SIZES = np.array([25, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 102400])
KS_PROBABILITIES = np.array([0.5, 0.75, 0.9, 0.95, 0.99, 0.999])
KS_ALPHAS = np.array([0.05, 0.01, 0.001])


def reference_arrays(
    rows: Float32Array, raw: Float32Array, boolean: Sequence[bool]
) -> dict[str, NDArray[Any]]:
    """Return the arrays of `reference.npz`.

    Parameters
    ----------
    rows : array of float32, shape (n_rows, n_features)
    raw : array of float32, shape (n_rows,)
        Raw scores of the quantized model.
    boolean : sequence of bool
        Which features are booleans.
    """
    columns = [*rows.T, raw]
    present = [np.sort(column[~np.isnan(column)]) for column in columns]
    bounds = [bin_bounds(values) for values in present]
    counts = [
        np.bincount(np.searchsorted(b, v, side="left"), minlength=len(b) + 1).astype(np.int64)
        for b, v in zip(bounds, present, strict=True)
    ]
    categories = [
        np.array([(v == 0).sum(), (v != 0).sum()], np.int64) if flag else np.empty(0, np.int64)
        for v, flag in zip(present, [*boolean, False], strict=True)
    ]
    arrays: dict[str, NDArray[Any]] = {
        **_ragged("values", [_thin(values) for values in present], np.float32),
        **_ragged("bin_upper", bounds, np.float32),
        **_ragged("bin_count", counts, np.int64),
        **_ragged("category_count", categories, np.int64),
        "n_rows": np.full(len(columns), len(rows), np.int64),
        "missing_count": np.array([np.isnan(c).sum() for c in columns], np.int64),
    }
    n_features = rows.shape[1]
    arrays["ks_n"] = KS_SIZES
    arrays["ks_probability"] = KS_PROBABILITIES
    arrays["ks_quantile"] = kstwo.ppf(KS_PROBABILITIES[None, :], KS_SIZES[:, None])
    arrays["ks_alpha"] = KS_ALPHAS
    arrays["ks_critical"] = kstwo.isf(KS_ALPHAS[None, :] / n_features, KS_SIZES[:, None])
    return arrays


def bin_bounds(values: Float32Array) -> Float32Array:
    """Return inclusive upper bounds of quantile bins, atoms apart.

    Parameters
    ----------
    values : array of float32, sorted, without NaN
    """
    if not len(values):
        return np.empty(0, np.float32)
    distinct, count = np.unique(values, return_counts=True)
    atoms = distinct[count >= len(values) / N_BINS]
    places = np.linspace(0, len(values) - 1, N_BINS + 1)[1:-1]
    quantiles = values[np.ceil(places).astype(np.intp)]
    _, below = neighbours(atoms)
    # The last bin is open above; a bound at the maximum would leave it empty but for drift.
    return np.unique(np.concatenate([quantiles, atoms, below]))


def calibration_arrays(raw: Float32Array, positive: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Return the arrays of `calibration.npz`."""
    isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    isotonic.fit(raw.astype(np.float64), positive.astype(np.float64))
    return {
        "raw": isotonic.X_thresholds_.astype(np.float32),
        "probability": isotonic.y_thresholds_.astype(np.float64),
        "n_rows": np.array(len(raw)),
        "n_positive": np.array(int(positive.sum())),
    }


def _thin(values: Float32Array) -> Float32Array:
    """Return at most MAX_VALUES evenly spaced order statistics, both ends included."""
    if len(values) <= MAX_VALUES:
        return values
    places = np.rint(np.linspace(0, len(values) - 1, MAX_VALUES)).astype(np.intp)
    return values[places]


def _ragged(name: str, parts: Sequence[NDArray[Any]], dtype: Any) -> dict[str, NDArray[Any]]:
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return {name: np.concatenate(parts).astype(dtype), f"{name}_offsets": offsets}
