"""One entry of the journal: its canonical form and its place in the chain of digests.

Rules
-----
* The canonical form is JSON in UTF-8 with sorted keys and no spaces: of equal entries, equal bytes.
* An entry's digest is SHA-256 over the digest of the entry before it (32 zero bytes for the first)
  and its own canonical form. So whoever knows one digest knows all that was written up to there.
* An exported line is the canonical form with the digest as its last member, for `read_export`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from server.errors import JournalError
from server.rollout.state import STATE_FORMAT, PlanState

FIRST_DIGEST = bytes(32)  # what stands before the first entry

_DIGEST_MEMBER = ',"digest":"'
_N_TAIL = len(_DIGEST_MEMBER) + 64 + len('"}')


class Entry(Struct, frozen=True):
    """One change, and the whole of what was in force after it."""

    generation: int  # of the plan that it made; strictly ascending, never used again
    time_ms: int  # since the epoch; never goes back from one entry to the next
    who: str
    is_verified: bool  # by a token, not only said
    verb: str
    arguments: dict[str, Any]
    why: str
    before_generation: int
    state: PlanState


def encode_entry(entry: Entry) -> str:
    """Return an entry's canonical form.

    Raises
    ------
    JournalError
        It holds what JSON cannot.
    """
    try:
        return msgspec.json.encode(entry, order="sorted").decode()
    except (TypeError, ValueError, OverflowError) as error:
        raise JournalError(
            f"the change cannot be written down, so nothing was changed: {error}"
        ) from None


def decode_entry(row: str) -> Entry:
    """Return the entry of a canonical form.

    Raises
    ------
    JournalError
        It is damaged, or of a newer format.
    """
    try:
        entry = msgspec.json.decode(row, type=Entry)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise JournalError(f"an entry cannot be read: {error}") from None
    if entry.state.format > STATE_FORMAT:
        raise JournalError(
            f"generation {entry.generation} has format {entry.state.format}, this version of "
            f"Scoregate reads up to {STATE_FORMAT}: upgrade it"
        )
    return entry


def chain(previous: bytes, row: str) -> bytes:
    """Return the digest of an entry, from the digest before it and its canonical form."""
    return hashlib.sha256(previous + row.encode()).digest()


def export_line(row: str, digest: bytes) -> str:
    """Return an entry as a line of JSON, without the newline."""
    return f'{row[:-1]}{_DIGEST_MEMBER}{digest.hex()}"}}'


def read_export(lines: Iterable[str]) -> Iterator[Entry]:
    """Read what `Journal.export` wrote, oldest first, and check its chain.

    Raises
    ------
    JournalError
        A line is damaged, missing, or not in its place.
    """
    digest = FIRST_DIGEST
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\n")
        row, tail = text[:-_N_TAIL] + "}", text[-_N_TAIL:]
        digest = chain(digest, row)
        if tail != f'{_DIGEST_MEMBER}{digest.hex()}"}}':
            raise JournalError(
                f"line {number} of the export does not match its digest: it, or a line before it, "
                "was altered or is missing; export again"
            )
        yield decode_entry(row)
