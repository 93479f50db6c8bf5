"""The laws of routing over a million keys; the golden file that keeps buckets where they are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastpath.errors import RoutingError
from fastpath.metrics import Metrics
from fastpath.plan import Plan, PlanModel
from fastpath.routing import BucketTable
from fastpath.routing_probe import route_many
from tests.support.plans import linear_arm
from tests.support.siphash import GOLDEN, bucket, golden_keys

ROOT = Path(__file__).resolve().parents[2]
N_KEYS = 1_000_000
ARMS = [
    linear_arm(Metrics(1), name=f"arm-{i}", version=str(i)) for i in range(5)
]  # more than any of the tables here has
Keys = tuple[bytes, NDArray[np.int64]]


def joined(keys: list[bytes]) -> Keys:
    return b"".join(keys), np.cumsum([len(key) for key in keys], dtype=np.int64)


@cache
def million(kind: str) -> Keys:
    if kind == "customers":
        return joined([b"customer-%d" % i for i in range(N_KEYS)])
    if kind == "numbers":
        return joined([b"%d" % i for i in range(4_000_000_000, 4_000_000_000 + N_KEYS)])
    raw = np.random.default_rng(7).bytes(16 * N_KEYS)
    return joined([raw[i : i + 16].hex().encode() for i in range(0, len(raw), 16)])


def plan_of(table: BucketTable, overrides: dict[str, int] | None = None) -> Plan:
    return Plan(1, [PlanModel("fraud", tuple(ARMS), table, overrides=overrides or {})])


def arms_of(table: BucketTable, keys: Keys) -> NDArray[np.uint8]:
    return np.frombuffer(route_many(plan_of(table), "fraud", *keys), dtype=np.uint8)


# ----------------------------------------------------------------------- weights


@pytest.mark.parametrize("kind", ["customers", "numbers", "uuids"])
@pytest.mark.parametrize("salt", [b"fraud", b""])
@pytest.mark.parametrize("weights", [(9_000, 1_000), (5_000, 3_000, 1_500, 499, 1)])
def test_every_arm_is_within_four_standard_errors_of_its_weight(
    kind: str, salt: bytes, weights: tuple[int, ...]
) -> None:
    arms = arms_of(BucketTable.from_weights(salt, weights), million(kind))
    counts = np.bincount(arms, minlength=len(weights))
    for n, weight in zip(counts, weights, strict=True):
        share = weight / 10_000
        assert abs(n / N_KEYS - share) < 4 * (share * (1 - share) / N_KEYS) ** 0.5


def test_from_10_to_20_percent_nobody_moves_back_and_only_the_needed_buckets_do() -> None:
    ten = BucketTable.from_weights(b"fraud", [9_000, 1_000])
    twenty = ten.rebalance([8_000, 2_000])
    moved_buckets = {
        i for i, (a, b) in enumerate(zip(ten.to_bytes(), twenty.to_bytes(), strict=True)) if a != b
    }
    assert len(moved_buckets) == 1_000
    keys = million("customers")
    before, after = arms_of(ten, keys), arms_of(twenty, keys)
    assert (after[before == 1] == 1).all()
    moved = np.flatnonzero(before != after)
    assert abs(len(moved) / N_KEYS - 0.1) < 4 * (0.1 * 0.9 / N_KEYS) ** 0.5
    # Whose bucket moved, and nobody else.
    assert {ten.bucket(b"customer-%d" % i) for i in moved[:20_000]} <= moved_buckets
    stayed = np.flatnonzero(before == after)[:20_000]
    assert not {ten.bucket(b"customer-%d" % i) for i in stayed} & moved_buckets


def test_a_ramp_only_ever_adds_to_the_canary() -> None:
    table = BucketTable.from_weights(b"fraud", [9_900, 100])
    keys = million("customers")
    canary = arms_of(table, keys) == 1
    for weight in (500, 1_000, 2_500, 5_000, 9_999, 10_000):
        table = table.rebalance([10_000 - weight, weight])
        now = arms_of(table, keys) == 1
        assert (now | ~canary).all(), f"somebody left the canary at {weight}"
        canary = now
    assert canary.all()


def test_another_salt_splits_independently() -> None:
    keys = million("customers")
    one = arms_of(BucketTable.from_weights(b"fraud", [5_000, 5_000]), keys)
    other = arms_of(BucketTable.from_weights(b"churn", [5_000, 5_000]), keys)
    agree = float((one == other).mean())
    assert abs(agree - 0.5) < 4 * 0.5 / N_KEYS**0.5


# --------------------------------------------------------------------- overrides


@given(
    st.lists(st.text(max_size=20), unique=True, max_size=60),
    st.lists(st.text(max_size=20), max_size=60),
    st.lists(st.integers(0, 3), min_size=60, max_size=60),
)
def test_pinned_keys_go_where_they_are_pinned_and_others_where_they_went(
    pinned: list[str], others: list[str], arms: list[int]
) -> None:
    table = BucketTable.from_weights(b"fraud", [4_000, 3_000, 2_000, 1_000])
    overrides = dict(zip(pinned, arms, strict=False))
    keys = [*pinned, *others]
    found = route_many(plan_of(table, overrides), "fraud", *joined([k.encode() for k in keys]))
    assert list(found) == [overrides.get(key, table.arm(key)) for key in keys]


def test_a_thousand_pinned_keys_among_a_million() -> None:
    table = BucketTable.from_weights(b"fraud", [9_000, 1_000])
    overrides = {f"customer-{i}": 2 for i in range(0, N_KEYS, 1_000)}
    keys = million("customers")
    found = np.frombuffer(route_many(plan_of(table, overrides), "", *keys), dtype=np.uint8)
    assert np.flatnonzero(found == 2).tolist() == list(range(0, N_KEYS, 1_000))
    free = found != 2
    assert (found[free] == arms_of(table, keys)[free]).all()


def test_what_cannot_be_routed_is_said() -> None:
    plan = plan_of(BucketTable.from_weights(b"fraud", [10_000]))
    assert route_many(plan, "", b"", np.array([], dtype=np.int64)) == b""
    for ends, says in ([3, 2], "key 1 ends at 2"), ([4], "key 0 ends at 4"), ([2], "the text at 3"):
        with pytest.raises(RoutingError, match=says):
            route_many(plan, "", b"abc", np.array(ends, dtype=np.int64))
    with pytest.raises(RoutingError, match="no model 'other'"):
        route_many(plan, "other", b"abc", np.array([3], dtype=np.int64))


# ------------------------------------------------------------------- golden file


@cache
def golden() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(GOLDEN.read_text("utf-8"))
    return found


def test_the_golden_file_is_what_python_computes() -> None:
    assert len(golden()) >= 5
    for salt, buckets in golden().items():
        assert list(buckets) == golden_keys()
        assert buckets == {key: bucket(salt, key) for key in golden_keys()}


@pytest.mark.parametrize("salt", golden())
def test_buckets_are_those_of_the_golden_file(salt: str) -> None:
    table = BucketTable.from_weights(salt.encode(), [10_000])
    assert {key: table.bucket(key) for key in golden()[salt]} == golden()[salt]


PROGRAM = """
import json, sys
from fastpath.routing import BucketTable

wanted = json.load(sys.stdin)
found = {
    salt: {key: BucketTable.from_weights(salt.encode(), [10_000]).bucket(key) for key in keys}
    for salt, keys in wanted.items()
}
json.dump(found, sys.stdout)
"""


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_another_process_finds_the_same_buckets(seed: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        input=json.dumps(golden()),
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(process.stdout) == golden()


def test_words_are_put_together_byte_by_byte() -> None:
    """No big-endian machine is at hand; the source says that there would be no difference.

    A word is a sum of bytes, each shifted to its place: nothing reads memory as an integer, neither
    by a cast nor by a copy. The values of the golden file hold here; by this rule, everywhere.
    """
    source = (ROOT / "fastpath" / "routing.pyx").read_text("utf-8")
    begin = source.index("_little_endian(const uint8_t*")
    body = source[begin : source.index("\n\n\n", begin)]
    assert "word |= (<uint64_t> data[i]) << (8 * i)" in body
    hashing = source[: source.index("def siphash(")]
    assert not re.search(r"<\s*(const\s+)?uint(16|32|64)_t\s*\*\s*>", source)
    assert "memcpy(" not in hashing
