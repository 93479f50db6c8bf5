"""Layouts: ordered lists of (name, type), what they are called and how two of them differ.

A *layout* is what a dense request holds; a group's columns are what a stored record holds. Both
have a fingerprint that travels with the values, so that a reader knows what they are, or that it
does not. A fingerprint covers names, types and order: not vocabularies, ranges or defaults. A
record's covers the group's name too, so that no group's record is read as another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from fastpath.errors import SchemaError

FeatureType = Literal["numeric", "boolean", "categorical"]
Columns = Sequence[tuple[str, str]]

# Values of scoregate.v1.FeatureType.
TYPE_CODES = {"numeric": 1, "boolean": 2, "categorical": 3}

MAX_FEATURES = 1024
MAX_NAME_BYTES = 256
# What one status text has room for besides the two fingerprints.
MAX_DIFFERENCE_BYTES = 160

RECORD_DOMAIN = b"scoregate.record.1\0"


def check_columns(columns: Columns, where: str = "") -> None:
    """Refuse a layout whose names or types cannot be compiled.

    Parameters
    ----------
    columns : sequence of (name, type)
    where : str
        Whose columns they are, for messages: "group 'customer': ".

    Raises
    ------
    SchemaError
        The number of columns, a name or a type is not allowed, or a name stands twice.
    """
    if not 1 <= len(columns) <= MAX_FEATURES:
        raise SchemaError(
            f"{where}{len(columns)} features: a schema has 1 to {MAX_FEATURES}; drop some"
            if not where
            else f"{where}{len(columns)} columns: a record has 1 to {MAX_FEATURES}"
        )
    what = "column" if where else "feature"
    seen: dict[str, int] = {}
    for index, (name, kind) in enumerate(columns):
        _check_name(name, index, f"{where}{what}")
        if name in seen:
            raise SchemaError(
                f"{where}{what} {name!r} stands twice, at {seen[name]} and {index}: rename one"
            )
        seen[name] = index
        if kind not in TYPE_CODES:
            raise SchemaError(
                f"{where}{what} {name!r}: type {kind!r} is unknown; it is one of "
                f"{', '.join(TYPE_CODES)}"
            )


def layout_fingerprint(columns: Columns) -> int:
    r"""Return the fingerprint of a layout.

    Parameters
    ----------
    columns : sequence of (name, type)
        In the order of the values of a dense request.

    Returns
    -------
    int
        The first 8 bytes, little endian, of SHA-256 over UTF-8 name, ``\0``, type and
        ``\n`` of every column: 0 to 2**64 - 1.
    """
    return _fingerprint(b"", columns)


def group_fingerprint(group: str, columns: Columns) -> int:
    r"""Return the fingerprint of the records of a group.

    Parameters
    ----------
    group : str
        The group's name.
    columns : sequence of (name, type)
        In the order of the values of a record.

    Returns
    -------
    int
        The first 8 bytes, little endian, of SHA-256 over ``scoregate.record.1\0``, the group's
        name and ``\n``, then for every column UTF-8 name, ``\0``, type and ``\n``.
    """
    return _fingerprint(RECORD_DOMAIN + group.encode() + b"\n", columns)


def describe_difference(have: Columns, want: Columns) -> str:
    """Say in words how a layout differs from the one that is wanted.

    Parameters
    ----------
    have : sequence of (name, type)
        The layout in question: "there".
    want : sequence of (name, type)
        The schema's: "here".

    Returns
    -------
    str
        At most `MAX_DIFFERENCE_BYTES` bytes of UTF-8, for example "lacks risk; has colour, which
        the schema does not; amount is numeric there and boolean here; order differs". What does not
        fit is counted. Empty for equal layouts.
    """
    there, here = dict(have), dict(want)
    lacking = [name for name in here if name not in there]
    further = [name for name in there if name not in here]
    parts = []
    if lacking:
        parts.append(f"lacks {_some(lacking)}")
    if further:
        parts.append(f"has {_some(further)}, which the schema does not")
    changed = [name for name in here if name in there and there[name] != here[name]]
    if changed:
        name = changed[0]
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        parts.append(f"{_cut(name)} is {there[name]} there and {here[name]} here{more}")
    if [name for name in there if name in here] != [name for name in here if name in there]:
        parts.append("order differs")
    text = ""
    for position, part in enumerate(parts):
        longer = f"{text}; {part}" if text else part
        rest = len(parts) - position - 1
        if len(longer.encode()) > MAX_DIFFERENCE_BYTES - (len("; and more") if rest else 0):
            return f"{text}; and more"
        text = longer
    return text


def _fingerprint(start: bytes, columns: Columns) -> int:
    digest = hashlib.sha256(start)
    for name, kind in columns:
        digest.update(name.encode() + b"\0" + kind.encode() + b"\n")
    return int.from_bytes(digest.digest()[:8], "little")


def _some(names: list[str]) -> str:
    """Return the first names that fit a third of the room, and how many there are besides."""
    shown = [_cut(names[0])]
    for name in names[1:]:
        if len(", ".join([*shown, _cut(name)]).encode()) > 36:
            break
        shown.append(_cut(name))
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _cut(name: str) -> str:
    """Return a name of at most 32 bytes, cut between characters."""
    data = name.encode()
    return name if len(data) <= 32 else data[:29].decode(errors="ignore") + "..."


def _check_name(name: str, index: int, what: str) -> None:
    if not isinstance(name, str) or not name:
        raise SchemaError(f"{what} {index} has no name: every {what.split()[-1]} needs one")
    try:
        n_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise SchemaError(f"{what} {index}: the name {name!r} is not valid Unicode") from None
    if n_bytes > MAX_NAME_BYTES:
        raise SchemaError(
            f"{what} {name[:40]!r}...: the name has {n_bytes} bytes, at most {MAX_NAME_BYTES} fit"
        )
    # Both would make two different layouts share the text that is fingerprinted.
    if "\0" in name or "\n" in name:
        raise SchemaError(f"{what} {name!r}: a name cannot hold a NUL or a line break")
