"""The ledger's rings and draws: nothing lost but what is counted, shares as they were set."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency

from fastpath.capture import id_hash
from fastpath.errors import FastpathError
from fastpath.ledger import DECISION_TYPE, Ledger, explored, share_limit


def test_a_struct_is_a_cache_line() -> None:
    assert DECISION_TYPE.itemsize == 64


@pytest.mark.parametrize("share", [0.0, 0.003, 0.1, 0.5, 1.0])
def test_the_share_that_is_explored_is_the_share_that_was_set(share: float) -> None:
    n = 40_000
    n_explored = sum(explored(id_hash(f"call-{i}"), share) for i in range(n))
    if share in (0.0, 1.0):
        assert n_explored == n * share
    else:
        assert binomtest(n_explored, n, share).pvalue > 1e-6


def test_more_are_explored_when_the_share_grows_and_none_less() -> None:
    ids = [id_hash(f"call-{i}") for i in range(5_000)]
    few = {i for i, halves in enumerate(ids) if explored(halves, 0.1)}
    many = {i for i, halves in enumerate(ids) if explored(halves, 0.2)}
    assert few < many


def test_a_request_is_explored_at_every_attempt_or_at_none() -> None:
    assert len({explored(id_hash("the-same"), 0.5) for _ in range(10)}) == 1


def test_an_empty_ledger() -> None:
    ledger = Ledger(2, capacity=1)
    assert ledger.capacity == 1024
    assert ledger.drain().shape == (0,)
    assert ledger.stats() == [{"recorded": 0, "dropped": 0, "passed": 0, "fill": 0.0}] * 2


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(FastpathError, match="a share is 0 to 1"):
        share_limit(share)
    with pytest.raises(FastpathError, match="a share is 0 to 1"):
        Ledger(1).set_rate(0, share)


@pytest.mark.parametrize("slot", [-1, 100_000])
def test_a_slot_that_there_is_not(slot: int) -> None:
    with pytest.raises(FastpathError, match="is outside"):
        Ledger(1).set_rate(slot, 1.0)


@pytest.mark.parametrize(("n_threads", "capacity"), [(0, 1), (1, 0), (1, 1 << 25)])
def test_a_size_that_cannot_be(n_threads: int, capacity: int) -> None:
    with pytest.raises(FastpathError):
        Ledger(n_threads, capacity=capacity)


def test_exploring_says_nothing_of_the_halves_that_sampling_uses() -> None:
    ids = [id_hash(f"call-{i}") for i in range(40_000)]
    low = np.array([halves[0] < 1 << 63 for halves in ids])
    drawn = np.array([explored(halves, 0.3) for halves in ids])
    table = [[int((low & drawn).sum()), int((low & ~drawn).sum())],
             [int((~low & drawn).sum()), int((~low & ~drawn).sum())]]  # fmt: skip
    assert chi2_contingency(table).pvalue > 1e-6
