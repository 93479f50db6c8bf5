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
  for booleans, as many as the vocabulary holds for categories; rows that are no code are unseen);
* `ks_n`, `ks_probability`, `ks_quantile`: quantiles of the Kolmogorov-Smirnov distance D when
  nothing has drifted, [n_sizes, n_probabilities], from the exact distribution (scipy's kstwo) at
  effective sample size n = n1 * n2 / (n1 + n2). Ties make D smaller, so with atoms the figures are
  on the safe side;
* `ks_alpha`, `ks_critical`: critical values of D, [n_sizes, n_alphas], for the largest of F
  features at once (Bonferroni: alpha / F each);
* `ks_tail`, `ks_tail_critical`: critical values of D, [n_sizes, n_tails], at the sizes of `ks_n`
  for tail probabilities from .1 to 1e-9, alpha / K for alpha = .001 and all K tests of drift
  among them: what the monitor holds D against.

`build_reference` adds, where it can (`baseline.py` says how; a reader does without them):

* `schema_fingerprint`: of the features' names and types, `fastpath.spec.layout_fingerprint`;
* `design_effect`: [F + 1], by how much rows next to each other tell less than independent ones;
* `null_probability`, `null_quantile`: quantiles of the drift score of chunks of the validation
  rows, in their order, against the rest; `null_chunks`: rows a chunk, chunks;
* `hour_column`, `hour_bin_count`: with event times only: the columns of calendar features (and F,
  the raw score, where there are any) and, one after the other, their bins by hour of the week
  (UTC, Monday 00:00 first), [168, n_bins]; booleans and categories have a bin per code and one for
  others. Without times, calendar features are reported and kept out of the drift score;
* `time_ms`: with event times only: the first and the last.

No fallback rates: an export knows no stores. `fallback_count` [F] is read where it is there; else
what was missing is taken to have been a default.

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
from server.drift.settings import MonitoredFeature, n_tests
from server.export.baseline import baseline_arrays

Float32Array = NDArray[np.float32]

MAX_VALUES = 10_000
N_BINS = 256
KS_SIZES = np.array([25, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 102400])
KS_PROBABILITIES = np.array([0.5, 0.75, 0.9, 0.95, 0.99, 0.999])
KS_ALPHAS = np.array([0.05, 0.01, 0.001])
KS_TAILS = np.array([1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9])
DRIFT_ALPHA = 0.001


def build_reference(
    rows: Float32Array,
    raw: Float32Array,
    features: Sequence[MonitoredFeature],
    time_ms: NDArray[np.int64] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return all arrays of `reference.npz`.

    Parameters
    ----------
    rows : array of float32, shape (n_rows, n_features)
        NaN: missing. In the order of time, where there is no `time_ms`.
    raw : array of float32, shape (n_rows,)
        Raw scores of the quantized model.
    features : sequence of MonitoredFeature
        The schema's, in its order.
    time_ms : array of int64, shape (n_rows,), or None
        Event times since the epoch.
    """
    if time_ms is not None:
        order = np.argsort(time_ms, kind="stable")
        rows, raw, time_ms = rows[order], raw[order], time_ms[order]
    arrays = reference_arrays(
        rows,
        raw,
        [feature.type == "boolean" for feature in features],
        n_categories=[feature.n_categories for feature in features],
        n_tests=n_tests(features),
    )
    return arrays | baseline_arrays(arrays, rows, raw, features, time_ms)


def reference_arrays(
    rows: Float32Array,
    raw: Float32Array,
    boolean: Sequence[bool],
    *,
    n_categories: Sequence[int] | None = None,
    n_tests: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the arrays of `reference.npz` that every reference has.

    Parameters
    ----------
    rows : array of float32, shape (n_rows, n_features)
    raw : array of float32, shape (n_rows,)
        Raw scores of the quantized model.
    boolean : sequence of bool
        Which features are booleans.
    n_categories : sequence of int or None
        How many codes each feature has, 0 for numbers; None: there are no categories.
    n_tests : int or None
        How many tests of drift are made at once; None: two a feature and one of the score.
    """
    columns = [*rows.T, raw]
    present = [np.sort(column[~np.isnan(column)]) for column in columns]
    bounds = [bin_bounds(values) for values in present]
    counts = [
        np.bincount(np.searchsorted(b, v, side="left"), minlength=len(b) + 1).astype(np.int64)
        for b, v in zip(bounds, present, strict=True)
    ]
    codes = n_categories or [0] * rows.shape[1]
    categories = [
        _category_counts(v, flag, n)
        for v, flag, n in zip(present, [*boolean, False], [*codes, 0], strict=True)
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
    tail = DRIFT_ALPHA / (n_tests or 2 * n_features + 1)
    tails = np.unique([*KS_TAILS, tail])[::-1]
    arrays["ks_tail"] = tails
    arrays["ks_tail_critical"] = kstwo.isf(tails[None, :], KS_SIZES[:, None])
    return arrays


def _category_counts(values: Float32Array, boolean: bool, n_codes: int) -> NDArray[np.int64]:
    if boolean:
        return np.array([(values == 0).sum(), (values != 0).sum()], np.int64)
    known = values[(values >= 0) & (values < n_codes) & (values == np.floor(values))]
    return np.bincount(known.astype(np.intp), minlength=n_codes).astype(np.int64)


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
