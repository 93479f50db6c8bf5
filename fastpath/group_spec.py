"""What a group of stored features is, and how far features may fall back.

A *group* holds one packed record per entity of one type (see docs/features.md): the features of
all customers, say. A schema declares the groups that it reads, and which of its features come from
which column. Models share records, so a group's columns may be more than one schema uses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from fastpath.errors import SchemaError
from fastpath.layouts import check_columns, group_fingerprint

MAX_GROUPS = 8
MAX_READ_BUDGET_US = 10_000_000
MIN_AGE_S = 0.001  # ages are counted in whole milliseconds
MAX_ENTITY_TYPE_BYTES = 256

GROUP_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
REQUEST = "request"


class GroupSpec(NamedTuple):
    """A group of stored features, as a bundle declares it.

    Attributes
    ----------
    name : str
        1 to 64 of ``A-Z a-z 0-9 _ . -``, not "request"; the first part of every key.
    entity : str
        Type of the request's entity whose id is the second part of the key.
    columns : tuple of (name, type)
        What a record holds, in order.
    role : str
        Of that entity ("payer"); empty: any, the smallest (role, id) where several fit.
    online, batch : bool
        Which tables hold it. One at least.
    ttl_s : float
        A value of an online record older than this is not used; inf: however old. A feature's
        own time to live comes first.
    batch_max_age_s : float
        The same for batch records as a whole.
    read_budget_us : int
        How long one online read may take, 1 to 10,000,000; never past the request's deadline.
    """

    name: str
    entity: str
    columns: tuple[tuple[str, str], ...]
    role: str = ""
    online: bool = True
    batch: bool = True
    ttl_s: float = math.inf
    batch_max_age_s: float = math.inf
    read_budget_us: int = 5000

    @property
    def fingerprint(self) -> int:
        """Fingerprint of the records of these columns, 0 to 2**64 - 1."""
        return group_fingerprint(self.name, self.columns)


class FallbackLimits(NamedTuple):
    """How many, and which, features may fall back before an answer is degraded or refused.

    Attributes
    ----------
    degrade_over, reject_over : int or None
        More fallbacks than this degrade the answer, or refuse the request. None: no number does.
    degrade_features, reject_features : tuple of str
        Features whose fallback alone does it.
    """

    degrade_over: int | None = None
    degrade_features: tuple[str, ...] = ()
    reject_over: int | None = None
    reject_features: tuple[str, ...] = ()


def check_group(group: GroupSpec) -> None:
    """Refuse a group that cannot be read, whatever the schema.

    Raises
    ------
    SchemaError
        The message names the group.
    """
    where = f"group {group.name!r}: "
    if not isinstance(group.name, str) or not GROUP_NAME.fullmatch(group.name):
        raise SchemaError(f"{where}a group's name is 1 to 64 letters, digits, '_', '.' and '-'")
    if group.name == REQUEST:
        raise SchemaError(f"{where}the name means 'not stored'; choose another")
    check_columns(group.columns, where)
    for label, text, optional in (("entity", group.entity, False), ("role", group.role, True)):
        if not text and not optional:
            raise SchemaError(f"{where}it names no entity type; write whose features it holds")
        try:
            n_bytes = len(text.encode())
        except UnicodeEncodeError:
            raise SchemaError(f"{where}{label} {text!r} is not valid Unicode") from None
        if n_bytes > MAX_ENTITY_TYPE_BYTES:
            raise SchemaError(
                f"{where}{label} has {n_bytes} bytes, at most {MAX_ENTITY_TYPE_BYTES} fit"
            )
    if not (group.online or group.batch):
        raise SchemaError(f"{where}it has neither an online nor a batch table; give it one")
    check_age(group.ttl_s, f"{where}ttl_s")
    check_age(group.batch_max_age_s, f"{where}batch_max_age_s")
    if not (
        isinstance(group.read_budget_us, int) and 1 <= group.read_budget_us <= MAX_READ_BUDGET_US
    ):
        raise SchemaError(
            f"{where}read_budget_us is {group.read_budget_us!r}; "
            f"it is a whole number from 1 to {MAX_READ_BUDGET_US:,}"
        )


def check_groups(groups: Sequence[GroupSpec]) -> None:
    """Refuse groups that one schema cannot declare together."""
    if len(groups) > MAX_GROUPS:
        raise SchemaError(f"{len(groups)} groups: a schema has at most {MAX_GROUPS}; merge some")
    seen: set[str] = set()
    for group in groups:
        check_group(group)
        if group.name in seen:
            raise SchemaError(f"group {group.name!r} is declared twice: drop one")
        seen.add(group.name)


def check_limits(limits: FallbackLimits, names: Collection[str]) -> None:
    """Refuse limits on features that the schema does not have.

    Parameters
    ----------
    limits : FallbackLimits
    names : collection of str
        Of the schema's features.
    """
    for label, over, features in (
        ("degrade", limits.degrade_over, limits.degrade_features),
        ("reject", limits.reject_over, limits.reject_features),
    ):
        if over is not None and not (isinstance(over, int) and over >= 0):
            raise SchemaError(
                f"fallback limit {label!r}: {over!r} is not a number of features from 0; "
                "leave it out for no limit"
            )
        seen: set[str] = set()
        for name in features:
            if name not in names:
                raise SchemaError(
                    f"fallback limit {label!r} names {name!r}, which is not a feature of the schema"
                )
            if name in seen:
                raise SchemaError(f"fallback limit {label!r} names {name!r} twice: drop one")
            seen.add(name)


def check_age(value: float, what: str) -> None:
    """Refuse an age in seconds that is not positive; inf is none."""
    if not value >= MIN_AGE_S:
        raise SchemaError(
            f"{what} is {value}; it is at least {MIN_AGE_S} seconds, or left out for no limit"
        )
