"""The bucket table: published hash vectors, and the laws of weight changes."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.errors import RoutingError
from fastpath.routing import BucketTable, siphash

# The first outputs of SipHash-2-4-64 for key 00..0f and input 00..n-1, from the reference
# implementation's vectors; the last one is in the paper's appendix.
VECTORS = {
    0: "310e0edd47db6f72",
    1: "fd67dc93c539f874",
    2: "5a4fa9d909806c0d",
    3: "2d7efbd796666785",
    4: "b7877127e09427cf",
    5: "8da699cd64557618",
    6: "cee3fe586e46c9cb",
    7: "37d1018bf50002ab",
    8: "6224939a79f5f593",
    15: "e545be4961ca29a1",
}
# The same for 128 bits (vectors_sip128 there).
LONG_VECTORS = {
    0: "a3817f04ba25a8e66df67214c7550293",
    1: "da87c1d86b99af44347659119b22fc45",
    3: "9c70b60c5267a94e5f33b6b02985ed51",
    8: "3b62a9ba6258f5610f83e264f31497b4",
    15: "5493e99933b0a8117e08ec0f97cfc3d9",
}

# Buckets under salt "fraud", as `reference_bucket` below computes them: another
# implementation must agree with this table.
GOLDEN = {"": 14, "abc": 3815, "customer-1": 3283, "Zoë": 1821, "0" * 1024: 6719}


def reference_bucket(salt: bytes, key: bytes) -> int:
    """Compute the rule again, with Python's unbounded integers."""
    mask = (1 << 64) - 1
    digest = hashlib.sha256(salt).digest()[:16]
    k0, k1 = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]

    def rotate(x: int, bits: int) -> int:
        return ((x << bits) | (x >> (64 - bits))) & mask

    def rounds(n: int) -> None:
        for _ in range(n):
            v[0] = (v[0] + v[1]) & mask
            v[1] = rotate(v[1], 13) ^ v[0]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = rotate(v[1], 17) ^ v[2]
            v[2] = rotate(v[2], 32)

    padded = key + b"\0" * (7 - len(key) % 8) + bytes([len(key) & 0xFF])
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return (v[0] ^ v[1] ^ v[2] ^ v[3]) % 10_000


weights = st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(sum)


def to_basis_points(parts: list[int]) -> list[int]:
    """Scale arbitrary parts to weights that add up to 10,000."""
    points = [part * 10_000 // sum(parts) for part in parts]
    points[0] += 10_000 - sum(points)
    return points


@pytest.mark.parametrize("size", VECTORS)
def test_siphash_equals_published_vectors(size: int) -> None:
    answer = siphash(bytes(range(16)), bytes(range(size)))
    assert answer.to_bytes(8, "little").hex() == VECTORS[size]


@pytest.mark.parametrize("size", LONG_VECTORS)
def test_siphash_of_128_bits_equals_published_vectors(size: int) -> None:
    answer = siphash(bytes(range(16)), bytes(range(size)), n_bits=128)
    assert answer.to_bytes(16, "little").hex() == LONG_VECTORS[size]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 36, 200])
@pytest.mark.parametrize("n_bits", [64, 128])
def test_siphash_equals_openssl(tmp_path: Path, n_bits: int, size: int) -> None:
    generator = random.Random(size)
    key, data = generator.randbytes(16), generator.randbytes(size)
    (tmp_path / "data").write_bytes(data)
    printed = subprocess.run(
        ["openssl", "mac", "-macopt", f"hexkey:{key.hex()}", "-macopt", f"size:{n_bits // 8}",
         "-in", str(tmp_path / "data"), "SIPHASH"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    answer = siphash(key, data, n_bits=n_bits)
    assert answer.to_bytes(n_bits // 8, "little").hex() == printed.strip().lower()


@given(st.binary(max_size=20), st.text(max_size=60))
def test_bucket_follows_the_written_rule(salt: bytes, key: str) -> None:
    table = BucketTable.from_weights(salt, [10_000])
    assert table.bucket(key) == reference_bucket(salt, key.encode())


@pytest.mark.parametrize("key", GOLDEN)
def test_buckets_never_change_between_releases(key: str) -> None:
    assert BucketTable.from_weights(b"fraud", [10_000]).bucket(key) == GOLDEN[key]


@given(weights, weights)
def test_a_change_of_weights_moves_the_fewest_buckets(old: list[int], new: list[int]) -> None:
    before_weights, after_weights = to_basis_points(old), to_basis_points(new)
    before = BucketTable.from_weights(b"s", before_weights)
    after = before.rebalance(after_weights)
    n_arms = max(len(before_weights), len(after_weights))
    grown = after_weights + [0] * (n_arms - len(after_weights))
    had = before_weights + [0] * (n_arms - len(before_weights))
    assert after.weights(n_arms) == grown
    moved = sum(a != b for a, b in zip(before.to_bytes(), after.to_bytes(), strict=True))
    assert moved == sum(max(0, g - h) for g, h in zip(grown, had, strict=True))


def test_raising_a_canary_moves_nobody_back() -> None:
    ten = BucketTable.from_weights(b"fraud", [9_000, 1_000])
    twenty = ten.rebalance([8_000, 2_000])
    stayed = [b for a, b in zip(ten.to_bytes(), twenty.to_bytes(), strict=True) if a == 1]
    assert stayed == [1] * 1_000
    assert twenty.rebalance([9_000, 1_000]).weights(2) == [9_000, 1_000]


def test_keys_spread_by_weight() -> None:
    table = BucketTable.from_weights(b"fraud", [9_000, 1_000])
    n_keys = 100_000
    n_canary = sum(table.arm(f"customer-{i}") for i in range(n_keys))
    # Four standard errors of a binomial share.
    assert abs(n_canary / n_keys - 0.1) < 4 * (0.1 * 0.9 / n_keys) ** 0.5


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([9_000], "add up to 10000"),
        ([10_001, -1], "basis points"),
        ([], "1 to 255 arms"),
        ([40] * 250 + [0] * 6, "1 to 255 arms"),
    ],
)
def test_bad_weights_are_refused(bad: list[int], says: str) -> None:
    with pytest.raises(RoutingError, match=says):
        BucketTable.from_weights(b"s", bad)


def test_bad_tables_and_keys_are_refused() -> None:
    with pytest.raises(RoutingError, match="10000 buckets, not 3"):
        BucketTable(b"s", b"\0\0\0")
    with pytest.raises(RoutingError, match="16 bytes, not 5"):
        siphash(b"short", b"")
    with pytest.raises(RoutingError, match="64 or 128 bits, not 32"):
        siphash(bytes(16), b"", n_bits=32)
