"""Whether one schema can read what was made for another, and how the two differ.

Clients send dense rows of the layouts of the schema that they were built for, and stores hold
records that were written for it. `compare` says, for the schema that is to take over, which of
those it reads. It asks the code that a serving plan asks (`Gather`, `RecordGather`), so that a
comparison and a later deployment agree. What two versions of a model must share besides, the codes
of a categorical feature, is checked too: no fingerprint covers them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from fastpath.errors import SchemaError
from fastpath.record import RecordGather
from fastpath.schema import Gather, Schema
from fastpath.spec import (
    Columns,
    FallbackLimits,
    describe_difference,
    group_fingerprint,
    layout_fingerprint,
)

# What is compared of features and groups of one name; columns and types come from the layouts.
FEATURE_FIELDS = (
    *("source", "column", "ttl_s", "default", "minimum", "maximum", "on_range", "required"),
)
GROUP_FIELDS = (
    *("entity", "role", "online", "batch", "ttl_s", "batch_max_age_s", "read_budget_us"),
)


@dataclass(frozen=True)
class Reading:
    """One layout, or the records of one group, of the other schema."""

    what: str  # "the whole layout", "the layout without stored features", "the records of ..."
    fingerprint: int
    refusal: str = ""  # why it cannot be read; empty: it can
    difference: str = ""  # in words; empty: equal, or refused

    @property
    def readable(self) -> bool:
        """Whether rows or records of it are read."""
        return not self.refusal


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    readings: list[Reading] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)  # what no plan could serve side by side
    differences: list[str] = field(default_factory=list)

    @property
    def compatible(self) -> bool:
        """Whether everything made for the other schema is read."""
        return not self.conflicts and all(reading.readable for reading in self.readings)


def layouts_of(schema: Schema) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """Return the layouts that clients of a schema may send, each with what it is."""
    layouts = [("the whole layout", schema.columns)]
    if schema.request_columns and schema.request_columns != schema.columns:
        layouts.append(("the layout without stored features", schema.request_columns))
    return layouts


def compare(here: Schema, there: Schema) -> Comparison:
    """Compare the schema that is to serve with one whose clients and records exist.

    Parameters
    ----------
    here : Schema
        The newcomer.
    there : Schema
        The one that serves.
    """
    readings = [_layout(what, here, columns) for what, columns in layouts_of(there)]
    groups = {group.name: index for index, group in enumerate(here.groups)}
    differences = []
    for group in there.groups:
        if group.name in groups:
            readings.append(_records(here, groups[group.name], group.columns))
        else:
            differences.append(f"group {group.name!r} is there only")
    known = {group.name for group in there.groups}
    differences += [f"group {g.name!r} is here only" for g in here.groups if g.name not in known]
    differences += _fields("feature", here.specs, there.specs, FEATURE_FIELDS)
    differences += _fields("group", here.groups, there.groups, GROUP_FIELDS)
    differences += _limits(here.limits, there.limits)
    return Comparison(readings, _vocabularies(here, there), differences)


def _layout(what: str, here: Schema, columns: Columns) -> Reading:
    fingerprint = layout_fingerprint(columns)
    try:
        Gather(here, columns)
    except SchemaError as error:
        return Reading(what, fingerprint, refusal=str(error))
    own = here.columns
    if what != "the whole layout" and here.request_columns:
        own = here.request_columns
    return Reading(what, fingerprint, difference=describe_difference(columns, own))


def _records(here: Schema, index: int, columns: Columns) -> Reading:
    group = here.groups[index]
    what = f"the records of group {group.name!r}"
    fingerprint = group_fingerprint(group.name, columns)
    try:
        RecordGather(here, index, columns)
    except SchemaError as error:
        return Reading(what, fingerprint, refusal=str(error))
    return Reading(what, fingerprint, difference=describe_difference(columns, group.columns))


def _vocabularies(here: Schema, there: Schema) -> list[str]:
    known = {spec.name: spec for spec in there.specs if spec.type == "categorical"}
    found = []
    for spec in here.specs:
        other = known.get(spec.name)
        if other is None or spec.type != other.type or spec.vocabulary == other.vocabulary:
            continue
        pairs = zip_longest(other.vocabulary, spec.vocabulary)
        code, (old, new) = next((c, pair) for c, pair in enumerate(pairs) if pair[0] != pair[1])
        found.append(
            f"feature {spec.name!r}: code {code} of its vocabulary is {_value(old)} there and "
            f"{_value(new)} here; one model cannot serve both: give the feature a new name"
        )
    return found


def _value(text: str | None) -> str:
    return "not used" if text is None else repr(text)


def _fields(kind: str, here: Any, there: Any, names: tuple[str, ...]) -> list[str]:
    """Say which fields of specs of one name differ."""
    known = {spec.name: spec for spec in there}
    found = []
    for spec in here:
        other = known.get(spec.name)
        if other is None:
            continue
        changes = [
            f"{name} {_text(getattr(other, name))} there and {_text(getattr(spec, name))} here"
            for name in names
            if not _same(getattr(spec, name), getattr(other, name))
        ]
        if changes:
            found.append(f"{kind} {spec.name!r}: {', '.join(changes)}")
    return found


def _limits(here: FallbackLimits, there: FallbackLimits) -> list[str]:
    return [
        f"fallback {name} {_text(old)} there and {_text(new)} here"
        for name, old, new in zip(FallbackLimits._fields, there, here, strict=True)
        if old != new
    ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return bool(one == other)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value in (None, "") else str(value).lower()
