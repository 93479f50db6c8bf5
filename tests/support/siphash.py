"""The routing rule once more, in Python's unbounded integers: SipHash-2-4, then 10,000 buckets.

Written from the paper (Aumasson and Bernstein, 2012), and independent of any machine's byte order.
`python -m tests.support.siphash` writes the golden file anew; its values must never change.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "routing_buckets.json"
SALTS = ("", "fraud", "fraud-2", "é", "0123456789abcdef" * 8)
MASK = (1 << 64) - 1


def golden_keys() -> list[str]:
    """Return keys of every length up to 40, of all lengths modulo 8, and as customers have them."""
    return [
        *("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"[:size] for size in range(41)),
        *(f"customer-{i}" for i in (0, 1, 9, 10, 4711, 99_999, 2**31, 2**63)),
        *("Zoë", "客户-17", "🦆", "a b", "\t", "0190b0a6-5f2e-7c3a-9d41-6f6c1f0e8a77"),
        *("0" * size for size in (63, 64, 65, 255, 256, 1024)),
    ]


def _rotate(x: int, bits: int) -> int:
    return ((x << bits) | (x >> (64 - bits))) & MASK


def _rounds(state: tuple[int, int, int, int], n: int) -> tuple[int, int, int, int]:
    a, b, c, d = state
    for _ in range(n):
        a = (a + b) & MASK
        c = (c + d) & MASK
        b = _rotate(b, 13) ^ a
        d = _rotate(d, 16) ^ c
        a = _rotate(a, 32)
        c = (c + b) & MASK
        a = (a + d) & MASK
        b = _rotate(b, 17) ^ c
        d = _rotate(d, 21) ^ a
        c = _rotate(c, 32)
    return a, b, c, d


def siphash24(key: bytes, data: bytes) -> int:
    """Return SipHash-2-4 of some data under a 16-byte key."""
    k0, k1 = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    a, b, c, d = (
        k ^ int.from_bytes(text, "big")
        for k, text in zip(
            (k0, k1, k0, k1), (b"somepseu", b"dorandom", b"lygenera", b"tedbytes"), strict=True
        )
    )
    whole = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) % 256])
    for start in range(0, len(whole), 8):
        word = int.from_bytes(whole[start : start + 8], "little")
        a, b, c, d = _rounds((a, b, c, d ^ word), 2)
        a ^= word
    a, b, c, d = _rounds((a, b, c ^ 0xFF, d), 4)
    return a ^ b ^ c ^ d


def bucket(salt: str, key: str) -> int:
    """Return the bucket of a key."""
    return siphash24(hashlib.sha256(salt.encode()).digest()[:16], key.encode()) % 10_000


def main() -> None:
    """Write the golden file."""
    found = {salt: {key: bucket(salt, key) for key in golden_keys()} for salt in SALTS}
    GOLDEN.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
