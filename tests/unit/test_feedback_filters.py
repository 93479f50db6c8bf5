"""Filters of segments: they never deny what is there, and seldom claim what is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.capture import id_hash
from server.feedback.filters import make_filter, may_hold

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(INT64, max_size=300), st.integers(0, 400), st.integers(1, 100))
def test_what_is_there_is_never_denied(ids: list[int], n_said: int, at_once: int) -> None:
    array = np.array(ids, np.int64)
    chunks = [array[first : first + at_once] for first in range(0, len(array), at_once)]
    assert may_hold(make_filter(n_said, chunks), array).all()


@pytest.mark.parametrize(
    ("n", "most"),
    [(1 << 16, 0.0250), ((1 << 16) + 1, 0.0030), (100_000, 0.0115)],
    ids=["8 bits", "16 bits", "10.5 bits"],
)
def test_what_is_not_there_passes_as_seldom_as_computed(n: int, most: float) -> None:
    generator = np.random.default_rng(5)
    ids = generator.integers(-(1 << 63), (1 << 63) - 1, n + 200_000, np.int64)
    packed = make_filter(n, [ids[:n]])
    n_bits = 8 * len(packed)
    assert n_bits & (n_bits - 1) == 0
    assert 8 <= n_bits / n < 16.01
    expected = (1 - np.exp(-4 * n / n_bits)) ** 4
    share = may_hold(packed, ids[n:]).mean()
    assert share == pytest.approx(expected, rel=0.15)
    assert share < most


def test_ids_as_requests_give_them() -> None:
    halves = np.array([id_hash(f"tx-{i}")[0] for i in range(40_000)], np.uint64).view(np.int64)
    packed = make_filter(20_000, [halves[:20_000]])
    assert may_hold(packed, halves[:20_000]).all()
    assert may_hold(packed, halves[20_000:]).mean() < 0.02


def test_an_empty_segment_holds_nothing() -> None:
    assert not may_hold(make_filter(0, []), np.arange(1000)).any()
