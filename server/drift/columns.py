"""The one space of bins that windows and references count in.

Column j (F features, then the raw score) has bins [offsets[j], offsets[j + 1]): of a number, those
between the reference's bounds; of a boolean or category, one per code and one more for what is not
a code. Behind the bins stand counts of missing values [F + 1] and of fallbacks [F]. So a window is
one vector of counts, two windows add, and any part of it is a slice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.drift.settings import MonitoredFeature

Float32Array = NDArray[np.float32]
Counts = NDArray[np.int64]

# scoregate.v1.FeatureSource, and one more: a default that stands in for a text or code outside the
# vocabulary, where whoever feeds the monitor can tell.
BATCH, DEFAULT, UNSEEN = 3, 4, 5


class Columns:
    """Where each column's counts are, and which bin a value belongs to.

    Parameters
    ----------
    features : sequence of MonitoredFeature
    bounds : sequence of F + 1 arrays of float32
        Inclusive upper bounds of the bins of numbers, ascending; ignored for others.
    """

    def __init__(
        self, features: Sequence[MonitoredFeature], bounds: Sequence[Float32Array]
    ) -> None:
        self.features = tuple(features)
        self.n_features = len(self.features)
        self.n_columns = self.n_features + 1
        self.bounds = tuple(bounds)
        self.n_categories = (*(feature.n_categories for feature in self.features), 0)
        self.is_category = (*(f.type != "numeric" for f in self.features), False)
        sizes = [
            self.n_categories[j] + 1 if self.is_category[j] else len(self.bounds[j]) + 1
            for j in range(self.n_columns)
        ]
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        self.n_bins = int(self.offsets[-1])
        self.size = self.n_bins + self.n_columns + self.n_features

    def bins(self, counts: Counts, j: int) -> Counts:
        """Return a view of one column's bins in a vector of counts."""
        return counts[self.offsets[j] : self.offsets[j + 1]]

    def missing(self, counts: Counts) -> Counts:
        """Return a view of the counts of missing values, one per column."""
        return counts[self.n_bins : self.n_bins + self.n_columns]

    def fallback(self, counts: Counts) -> Counts:
        """Return a view of the counts of fallbacks, one per feature."""
        return counts[self.n_bins + self.n_columns :]

    def n_rows(self, counts: Counts) -> int:
        """Return how many rows a vector of counts has seen."""
        score = self.n_columns - 1
        return int(self.bins(counts, score).sum() + self.missing(counts)[score])

    def place(self, j: int, values: Float32Array) -> NDArray[np.intp]:
        """Return the bin within column j of each value; none is NaN."""
        if not self.is_category[j]:
            return np.searchsorted(self.bounds[j], values, side="left")
        n = self.n_categories[j]
        known = (values >= 0) & (values < n) & (values == np.floor(values))
        return np.where(known, values, n).astype(np.intp)

    def sorted_bins(self, j: int, values: Float32Array) -> Counts:
        """Count a number column's sorted values; cheaper than `place` for many values."""
        below = np.searchsorted(values, self.bounds[j], side="right")
        return np.diff(below, prepend=0, append=len(values)).astype(np.int64)

    def tidy(
        self, rows: Float32Array, raw: Float32Array, sources: NDArray[np.uint8] | None
    ) -> tuple[Float32Array, NDArray[np.bool_]]:
        """Turn resolved rows into columns where NaN means missing.

        Parameters
        ----------
        rows : array of float32, shape (n, n_features)
            With defaults filled in.
        raw : array of float32, shape (n,)
        sources : array of uint8, shape (n, n_features), or None
            scoregate.v1.FeatureSource (or UNSEEN) of each value; None: nothing fell back.

        Returns
        -------
        values : array of float32, shape (n_features + 1, n), C-contiguous
            A default counts as missing; an unseen category has a code past the vocabulary.
        fallback : array of bool, shape (n_features, n)
            From a batch table or a default.
        """
        values = np.empty((self.n_columns, len(rows)), np.float32)
        values[:-1] = rows.T
        values[-1] = raw
        if sources is None:
            return values, np.zeros((self.n_features, len(rows)), np.bool_)
        by_column = sources.T
        fallback = np.ascontiguousarray(by_column >= BATCH)
        if fallback.any():
            values[:-1][by_column == DEFAULT] = np.nan
            unseen = np.equal(by_column, UNSEEN)
            for j in np.flatnonzero(unseen.any(axis=1)):
                code = self.n_categories[j] if self.is_category[j] else np.nan
                values[j, unseen[j]] = code
        return values, fallback

    def count(self, values: Float32Array, fallback: NDArray[np.bool_]) -> Counts:
        """Count tidy columns.

        Returns
        -------
        array of int64, shape (size,)
        """
        counts = np.zeros(self.size, np.int64)
        missing = self.missing(counts)
        absent = np.isnan(values)
        some = np.asarray(absent.any(axis=1))
        places = []
        for j in range(self.n_columns):
            column = values[j]
            if some[j]:
                column = column[~absent[j]]
                missing[j] = values.shape[1] - len(column)
            places.append(self.place(j, column) + self.offsets[j])
        counts[: self.n_bins] = np.bincount(np.concatenate(places), minlength=self.n_bins)
        self.fallback(counts)[:] = fallback.sum(axis=1)
        return counts
