"""Mutated ScoreRequests: we and the official runtime refuse the same ones and agree on the rest.

SCOREGATE_SEED repeats a failure, SCOREGATE_FUZZ_INPUTS sets how many inputs are tried.
"""

from __future__ import annotations

import os
import random

from tests.support.requests import assert_agrees, random_request

N_INPUTS = int(os.environ.get("SCOREGATE_FUZZ_INPUTS", "20000"))
# Bytes that mean something: tags of our messages, group ends, continuation bits, sizes.
TELLING = bytes([0, 1, 2, 8, 9, 10, 11, 12, 13, 0x10, 0x12, 0x15, 0x1A, 0x22, 0x2A, 0x32, 0x38,
                 0x3A, 0x3B, 0x3C, 0x42, 0x7F, 0x80, 0xC3, 0xED, 0xF4, 0xFF])  # fmt: skip


def mutate(data: bytearray, rng: random.Random) -> bytearray:
    """Change, drop, insert, cut, or repeat a piece."""
    if not data:
        return bytearray(rng.randbytes(rng.randrange(12)))
    at = rng.randrange(len(data))
    kind = rng.randrange(6)
    if kind == 0:
        data[at] = rng.choice(TELLING)
    elif kind == 1:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del data[at]
    elif kind == 3:
        data.insert(at, rng.choice(TELLING))
    elif kind == 4:
        del data[at:]
    else:
        data[at:at] = data[at : at + rng.randrange(1, 20)]
    return data


def test_mutated_requests() -> None:
    seed = int(os.environ.get("SCOREGATE_SEED", random.SystemRandom().randrange(2**32)))
    print(f"SCOREGATE_SEED={seed}")
    rng = random.Random(seed)
    n_accepted = 0
    for _ in range(N_INPUTS):
        data = bytearray(random_request(rng).SerializeToString())
        if rng.random() < 0.3:
            data += random_request(rng).SerializeToString()
        for _ in range(rng.randrange(4)):
            data = mutate(data, rng)
        n_accepted += assert_agrees(bytes(data))
    # Both answers must occur, or the mutations test nothing.
    assert 0.1 * N_INPUTS < n_accepted < 0.9 * N_INPUTS
