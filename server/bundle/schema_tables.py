"""A compiled schema as aligned tables, and as one plain object for JSON."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from fastpath.record import HEADER_BYTES
from fastpath.schema import Schema
from fastpath.spec import FeatureSpec, GroupSpec, layout_fingerprint
from server.bundle.compatibility import layouts_of
from server.bundle.tables import NONE, make_table

UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def schema_tables(schema: Schema) -> list[Table]:
    """Return tables of the features, the layouts, and the groups and limits where there are any."""
    tables = [
        make_table(
            "Features",
            ["name", "type", "source", "default", "range", "outside", "ttl", "required"],
            [_feature_row(spec, schema) for spec in schema.specs],
        )
    ]
    if schema.groups:
        tables += [
            make_table(
                "Groups",
                ["name", "entity", "tables", "ttl", "batch max age", "budget"],
                [_group_row(group) for group in schema.groups],
            ),
            make_table(
                "Records",
                ["group", "key", "bytes", "fingerprint"],
                [
                    (g.name, _key(g), f"{record_bytes(g)}", f"{g.fingerprint:#018x}")
                    for g in schema.groups
                ],
            ),
            *(
                make_table(
                    f"Columns of {group.name}",
                    ["column", "type", "feature", "byte"],
                    _column_rows(group, schema),
                )
                for group in schema.groups
            ),
        ]
    tables.append(
        make_table(
            "Layouts",
            ["", "values", "fingerprint"],
            [
                (what, f"{len(columns)}", f"{layout_fingerprint(columns):#018x}")
                for what, columns in layouts_of(schema)
            ],
        )
    )
    limits = _limit_rows(schema)
    if limits:
        tables.append(make_table("Falling back", ["", ""], limits))
    return tables


def plain_schema(schema: Schema) -> dict[str, Any]:
    """Return everything that the tables show, with numbers as numbers; no limit is None."""
    return {
        "features": [
            {
                **spec._asdict(),
                "default": _finite(spec.default),
                "minimum": _finite(spec.minimum),
                "maximum": _finite(spec.maximum),
                "column": spec.record_column if spec.is_stored else None,
                "ttl_s": _finite(_ttl(spec, schema)),
            }
            for spec in schema.specs
        ],
        "groups": [
            {
                **group._asdict(),
                "columns": _plain_columns(group.columns),
                "ttl_s": _finite(group.ttl_s),
                "batch_max_age_s": _finite(group.batch_max_age_s),
                "key": _key(group),
                "record_bytes": record_bytes(group),
                "fingerprint": f"{group.fingerprint:#018x}",
            }
            for group in schema.groups
        ],
        "layouts": [
            {
                "what": what,
                "fingerprint": f"{layout_fingerprint(columns):#018x}",
                "columns": _plain_columns(columns),
            }
            for what, columns in layouts_of(schema)
        ],
        "fallback": schema.limits._asdict(),
    }


def format_age(seconds: float) -> str:
    """Return a duration in the largest unit that divides it; a dash for none."""
    if not math.isfinite(seconds):
        return NONE
    for size, unit in UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:g} s"


def record_bytes(group: GroupSpec) -> int:
    """Return the size of a group's records."""
    return HEADER_BYTES + 4 * len(group.columns)


def _feature_row(spec: FeatureSpec, schema: Schema) -> tuple[str, ...]:
    low, high = spec.minimum, spec.maximum
    bounded = math.isfinite(low) or math.isfinite(high)
    kind = spec.type
    if spec.vocabulary:
        kind = f"{kind} ({len(spec.vocabulary)})"  # type: ignore[assignment]  # shown, not read
    return (
        spec.name,
        kind,
        spec.source,
        f"{spec.default:g}",
        f"{low:g} … {high:g}" if bounded else NONE,
        spec.on_range if bounded else NONE,
        format_age(_ttl(spec, schema)),
        "yes" if spec.required else "no",
    )


def _group_row(group: GroupSpec) -> tuple[str, ...]:
    tables = [label for label, there in (("online", group.online), ("batch", group.batch)) if there]
    return (
        group.name,
        f"{group.entity} as {group.role}" if group.role else group.entity,
        ", ".join(tables),
        format_age(group.ttl_s),
        format_age(group.batch_max_age_s),
        f"{group.read_budget_us:,} µs",
    )


def _column_rows(group: GroupSpec, schema: Schema) -> list[tuple[str, ...]]:
    readers = {s.record_column: s.name for s in schema.specs if s.source == group.name}
    return [
        (name, kind, readers.get(name, NONE), f"{HEADER_BYTES + 4 * index}")
        for index, (name, kind) in enumerate(group.columns)
    ]


def _limit_rows(schema: Schema) -> list[tuple[str, str]]:
    limits = schema.limits
    rows = []
    for label, over, names in (
        ("degraded", limits.degrade_over, limits.degrade_features),
        ("refused", limits.reject_over, limits.reject_features),
    ):
        if over is not None:
            rows.append((f"{label} when more fall back than", f"{over}"))
        if names:
            rows.append((f"{label} when one of these falls back", ", ".join(names)))
    return rows


def _key(group: GroupSpec) -> str:
    return f"{group.name}:<{group.entity} id>"


def _ttl(spec: FeatureSpec, schema: Schema) -> float:
    """Return the time to live that holds for a feature; inf where none does."""
    if not spec.is_stored:
        return math.inf
    group = next(group for group in schema.groups if group.name == spec.source)
    return group.ttl_s if math.isnan(spec.ttl_s) else spec.ttl_s


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain_columns(columns: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"name": name, "type": kind} for name, kind in columns]
