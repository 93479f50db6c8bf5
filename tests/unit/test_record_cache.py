"""The cache of online records against a dictionary that forgets nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.errors import StoreError
from fastpath.record_cache import RecordCache

TTL = 100
STEP = st.tuples(
    st.sampled_from(["find", "store", "absent", "leave", "wait"]),
    st.integers(0, 60),
    st.integers(0, 3000),
)


@settings(max_examples=60, derandomize=True)
@given(st.lists(STEP, max_size=300), st.integers(0, 2**64 - 1))
def test_what_it_knows_is_what_was_stored_last_and_is_fresh(
    steps: list[tuple[str, int, int]], seed: int
) -> None:
    cache = RecordCache(16384, TTL, seed)
    model: dict[bytes, tuple[bytes | None, int]] = {}
    now = 1000
    for number, (action, k, n) in enumerate(steps):
        key = b"customer:%d" % k
        if action == "find":
            known, record = cache.find(key, now)
            if known:
                stored, expires = model[key]
                assert record == stored
                assert expires > now
        elif action == "leave":
            cache.leave()
        elif action == "wait":
            now += n % 60
        else:
            record = None if action == "absent" else b"%d|" % number * (n // 4)
            cache.store(key, record, now)
            # A store may be refused, never half done: forget what is not known for sure.
            if cache.find(key, now) == (True, record):
                model[key] = (record, now + TTL)
        assert cache.stats()["bytes"] <= 16384


def test_it_finds_what_fits_and_counts() -> None:
    cache = RecordCache(1 << 20, TTL)
    records = {b"terminal:%d" % i: random.Random(i).randbytes(136) for i in range(1000)}
    for key, record in records.items():
        cache.store(key, record, 0)
    cache.store(b"nobody", None, 0)
    assert all(cache.find(key, TTL - 1) == (True, record) for key, record in records.items())
    assert cache.find(b"nobody", 5) == (True, None)
    assert cache.find(b"terminal:0", TTL) == (False, None), "its time is over"
    assert cache.find(b"stranger", 0) == (False, None)
    stats = cache.stats()
    assert (stats["hits"], stats["misses"], stats["evictions"]) == (1001, 2, 0)
    assert 1000 * (136 + len(b"terminal:0")) < stats["bytes"] < 1 << 20


def test_the_oldest_make_room() -> None:
    cache = RecordCache(16384, TTL)
    for i in range(100):
        cache.leave()
        cache.store(b"%d" % i, bytes(1000), 0)
    held = [i for i in range(100) if cache.find(b"%d" % i, 0)[0]]
    assert held
    assert held == list(range(held[0], 100))
    assert cache.stats()["evictions"] == held[0]


def test_what_was_handed_out_is_not_overwritten_before_the_iteration_ends() -> None:
    cache = RecordCache(16384, TTL)
    cache.store(b"held", b"h" * 1000, 0)
    cache.leave()
    assert cache.find(b"held", 0)[0]
    for i in range(100):
        cache.store(b"%d" % i, bytes(1000), 0)
    assert cache.find(b"held", 0) == (True, b"h" * 1000)
    cache.leave()
    for i in range(100):
        cache.store(b"%d" % i, bytes(1000), 0)
    assert cache.find(b"held", 0) == (False, None)


def test_a_record_too_large_for_it_is_not_kept() -> None:
    cache = RecordCache(16384, TTL)
    cache.store(b"large", bytes(10_000), 0)
    assert cache.find(b"large", 0) == (False, None)


@pytest.mark.parametrize(("n_bytes", "ttl_ns"), [(100, 1), (1 << 20, 0), (1 << 35, 1)])
def test_sizes_out_of_range_are_refused(n_bytes: int, ttl_ns: int) -> None:
    with pytest.raises(StoreError, match="cache"):
        RecordCache(n_bytes, ttl_ns)
