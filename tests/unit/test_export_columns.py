"""The exact float32 cut of a column, and the order of float32 values."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from server.bundle.link import RANK_OF_INFINITY, float32_from_rank
from server.export.columns import Column, Fill, Scale, largest_below

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SCALES = st.floats(min_value=2.0**-40, max_value=2.0**40, width=32)


def test_ranks_are_the_order_of_float32() -> None:
    ranks = np.array([-RANK_OF_INFINITY - 1, -1000, -2, -1, 0, 1, 5, 10**9, RANK_OF_INFINITY])
    values = float32_from_rank(ranks)
    assert values[0] == -np.inf
    assert values[-1] == np.inf
    assert np.signbit(values[3])
    assert values[3] == values[4] == 0.0
    assert (np.diff(values[[0, 1, 2, 4, 5, 6, 7, 8]]) > 0).all()
    up = np.nextafter(values[5:8], np.float32(np.inf))
    assert np.array_equal(up, float32_from_rank(ranks[5:8] + 1))


@settings(max_examples=150, derandomize=True)
@given(mean=FLOATS, scale=SCALES, threshold=st.floats(allow_nan=False, allow_infinity=False))
def test_cut_is_the_last_value_that_goes_left(mean: float, scale: float, threshold: float) -> None:
    column = Column(0, (Scale(np.float32(mean), np.float32(scale)),))
    cut = largest_below(column, np.array([threshold]))
    with np.errstate(over="ignore"):  # above the largest float32 comes infinity
        above = np.nextafter(cut, np.float32(np.inf))
    assert column(cut).astype(np.float64)[0] <= threshold
    assert cut[0] == np.inf or column(above).astype(np.float64)[0] > threshold


@settings(max_examples=150, derandomize=True)
@given(threshold=st.floats(allow_nan=False))
def test_without_steps_the_cut_is_the_largest_float32_not_above(threshold: float) -> None:
    cut = largest_below(Column(0), np.array([threshold]))[0]
    assert float(cut) <= threshold
    with np.errstate(over="ignore"):
        assert cut == np.inf or float(np.nextafter(cut, np.float32(np.inf))) > threshold


def test_fill_applies_to_missing_values_only() -> None:
    column = Column(
        2, (Scale(np.float32(1), None), Fill(np.float32(7)), Scale(None, np.float32(2)))
    )
    out = column(np.array([np.nan, 3.0], np.float32))
    assert out.tolist() == [3.5, 1.0]
    assert column.fills
    assert not Column(2).fills
