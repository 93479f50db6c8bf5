"""Makes `schema.json`: what the server uses where a request lacks a feature.

The default of a feature is NaN (passed to the model) where the model learned what to do with a
missing value: an imputer fills it, or training rows lacked it. Elsewhere it is the median of the
training rows: a model that never met a missing value has no opinion about one. The caller's options
come first.

Where --select-features left columns out, what the options say of them is left out too: a group
that no remaining feature comes from, a limit on a feature that is gone.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import msgspec
import numpy as np

from fastpath.errors import SchemaError
from server.bundle.manifest import encode
from server.bundle.schema import (
    FeatureEntry,
    SchemaFile,
    decode_schema,
    fallback_entry,
    group_entry,
)
from server.errors import BundleError, InputError
from server.export.columns import fold_columns, unwrap
from server.export.frame import Rows
from server.export.options import ExportOptions, FeatureOptions


def make_schema(
    model: Any, train: Rows, options: ExportOptions, given: Collection[str], *, missing: bool
) -> SchemaFile:
    """Return the schema of a model's input columns.

    Parameters
    ----------
    model : fitted classifier
    train : Rows
    options : ExportOptions
        Of which `features`, `groups` and `fallback`.
    given : collection of str
        Names of the columns that the export was given, before features were selected.
    missing : bool
        Whether the model takes NaN at all.
    """
    unknown = [name for name in options.features if name not in given]
    if unknown:
        raise InputError(f"--defaults: {', '.join(unknown)} is not a feature of the model")
    filled: set[int] = set()
    columns = fold_columns(unwrap(model)[0], len(train.names))
    if columns is not None:
        filled = {column.source for column in columns if column.fills}
    entries = []
    for j, name in enumerate(train.names):
        values = train.features[:, j]
        lacking = np.isnan(values)
        learned = missing and (j in filled or bool(lacking.any()))
        default = None if learned or lacking.all() else float(np.median(values[~lacking]))
        if default is not None:
            default = float(round(default)) if train.boolean[j] else float(np.float32(default))
        entries.append(
            _entry(
                name,
                default,
                options.features.get(name),
                boolean=train.boolean[j],
                missing=missing,
            )
        )
    try:
        schema = _with_groups(entries, options, set(given) - set(train.names))
        return decode_schema(encode(schema), "--defaults")
    except SchemaError as error:
        raise InputError(f"--defaults: {error}") from error
    except BundleError as error:
        raise InputError(str(error)) from error


def _with_groups(
    entries: list[FeatureEntry], options: ExportOptions, dropped: Collection[str]
) -> SchemaFile:
    """Return the schema with the options' groups and limits, less what `dropped` features had."""
    sources = {entry.source for entry in entries}
    gone = {options.features[name].source for name in dropped if name in options.features}
    limits = options.fallback
    return SchemaFile(
        features=entries,
        groups=[
            group_entry(group)
            for group in options.groups
            if group.name in sources or group.name not in gone
        ],
        fallback=fallback_entry(
            limits._replace(
                degrade_features=tuple(n for n in limits.degrade_features if n not in dropped),
                reject_features=tuple(n for n in limits.reject_features if n not in dropped),
            )
        ),
    )


def _entry(
    name: str,
    default: float | None,
    options: FeatureOptions | None,
    *,
    boolean: bool,
    missing: bool,
) -> FeatureEntry:
    options = options or FeatureOptions()
    if not isinstance(options.default, msgspec.UnsetType):
        default = options.default
        if default is None and not missing:
            raise InputError(
                f"--defaults: {name}: null passes NaN to the model, which takes no missing values: "
                "give a number"
            )
    if options.ttl_s is not None and not math.isfinite(options.ttl_s):
        raise InputError(
            f"--defaults: {name}: ttl_s {options.ttl_s} is not a number of seconds; leave it out "
            "for the group's"
        )
    return FeatureEntry(
        name=name,
        type="boolean" if boolean else "numeric",
        default=default,
        minimum=options.minimum,
        maximum=options.maximum,
        on_range=options.on_range,
        required=options.required,
        source=options.source,
        column=options.column,
        ttl_s=options.ttl_s,
        monitor=options.monitor,
        weight=options.weight,
    )
