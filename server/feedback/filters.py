"""Which segments may hold a decision: a Bloom filter of each that takes no more decisions.

An outcome says under which id it was decided, not when: without filters every segment is searched,
and most outcomes' decisions are in none where only a sample is recorded. A filter never says no of
what is there; of what is not it says yes once in fifty times, and the segment says the truth.

How it works (Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970): 8 to 16
bits per decision, a power of two in all, four of them set for each. Ids are hashes already, so the
four places come from their halves (Kirsch and Mitzenmacher, "Less hashing, same performance",
2006).
With 8 bits (1 - exp(-4 / 8)) ** 4 = 2.4 % of other ids pass, with 16 it is 0.2 %.

What it does not do: forget an id. Decisions are dropped by whole segments, and filters with them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from server.feedback.keys import Int64Array

N_PLACES = 4  # bits that an id sets
BITS_PER_ID = 8  # at the least
MIN_BITS = 1 << 10


def make_filter(n_ids: int, chunks: Iterable[Int64Array]) -> bytes:
    """Return the filter of a set of ids.

    Parameters
    ----------
    n_ids : int
        About how many there are; its size follows from it.
    chunks : iterable of array of int64
        All of them.

    Returns
    -------
    bytes
        A power of two of bits.
    """
    n_bits = max(MIN_BITS, 1 << (max(1, n_ids * BITS_PER_ID) - 1).bit_length())
    bits = np.zeros(n_bits, bool)
    for ids in chunks:
        for place in _places(ids, n_bits):
            bits[place] = True
    return np.packbits(bits, bitorder="little").tobytes()


def may_hold(packed: bytes, ids: Int64Array) -> NDArray[np.bool_]:
    """Return which ids are possibly among those of a filter; the others are certainly not.

    Parameters
    ----------
    packed : bytes
        As `make_filter` returned it.
    ids : array of int64, shape (n,)

    Returns
    -------
    array of bool, shape (n,)
    """
    words = np.frombuffer(packed, np.uint8)
    found = np.ones(len(ids), bool)
    for place in _places(ids, 8 * len(packed)):
        found &= (words[place >> 3] >> (place & 7).astype(np.uint8) & 1).astype(bool)
    return found


def _places(ids: Int64Array, n_bits: int) -> Iterable[NDArray[np.int64]]:
    first = ids & np.int64(0xFFFFFFFF)
    # Odd, so that the places of one id differ.
    step = (ids >> np.int64(32)) & np.int64(0xFFFFFFFF) | np.int64(1)
    for i in range(N_PLACES):
        yield (first + np.int64(i) * step) & np.int64(n_bits - 1)
