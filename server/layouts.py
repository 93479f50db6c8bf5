"""Layouts that a model's clients may still use: those of versions that do not serve.

Clients learn a layout from GetModel when they start, and send it until they ask again. So after a
switch of versions a dense request in the former schema's layout is mapped by name, where the new
schema can be served from it, and refused in words where it cannot. The versions in the repository
say what those layouts are: their schemas are read, nothing else of them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from fastpath.schema import Schema
from server.bundle.schema import compile_schema, decode_schema
from server.errors import BundleError

Layout = tuple[tuple[str, str], ...]

# Of the newest versions: enough for any client that was restarted this year.
MAX_VERSIONS = 32

log = logging.getLogger(__name__)


def layouts_of(schema: Schema) -> list[Layout]:
    """Return the layouts that clients of a schema use: all features, and those not stored."""
    columns = schema.request_columns
    return [schema.columns, *([columns] if columns and columns != schema.columns else [])]


def former_layouts(
    model: Path, versions: Sequence[str], serving: Sequence[Schema]
) -> tuple[Layout, ...]:
    """Return the layouts of a model's versions that the serving schemas do not have.

    Parameters
    ----------
    model
        The model's directory in the repository.
    versions
        Names of its versions, the oldest first.
    serving
        The schemas that serve.
    """
    known = {columns for schema in serving for columns in layouts_of(schema)}
    found: list[Layout] = []
    for version in list(versions)[-MAX_VERSIONS:]:
        path = model / version / "schema.json"
        try:
            status = path.stat()
            layouts = _layouts_in(path, status.st_ino, status.st_mtime_ns, status.st_size)
        except (OSError, BundleError) as error:
            # A broken version that nobody asked for does not keep another from serving.
            log.debug("layouts of %s are not known: %s", path, error)
            continue
        for columns in layouts:
            if columns not in known:
                known.add(columns)
                found.append(columns)
    return tuple(found)


# Every change of what serves asks for all of them.
@functools.lru_cache(maxsize=8 * MAX_VERSIONS)
def _layouts_in(path: Path, inode: int, modified_ns: int, size: int) -> tuple[Layout, ...]:
    """Return the layouts of a schema's file; all but the path only say which content it has."""
    schema = compile_schema(decode_schema(path.read_bytes(), str(path)))
    return tuple(layouts_of(schema))
