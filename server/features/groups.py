"""Finding the definition of a group of stored features.

It stands in a schema: a `schema.json`, that of a bundle, or of a model repository, where the newest
version of each model counts. Models that share a group share its records, so where two of them
declare different columns the caller has to choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from fastpath.errors import SchemaError
from fastpath.spec import GroupSpec
from server.bundle.manifest import MANIFEST, SCHEMA
from server.bundle.schema import compile_schema, decode_schema
from server.errors import BundleError, InputError


class Definition(NamedTuple):
    """A group, and what its columns' text means."""

    group: GroupSpec
    vocabularies: Mapping[str, tuple[str, ...]]  # categorical column -> values; code is the index
    path: Path  # of the schema.json


def read_definitions(source: Path) -> dict[str, Definition]:
    """Return the groups of one `schema.json` or bundle directory, by name.

    Raises
    ------
    BundleError
        It cannot be read, or could not be served.
    """
    path = source / SCHEMA if source.is_dir() else source
    try:
        schema = compile_schema(decode_schema(path.read_bytes(), str(path)))
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except SchemaError as error:
        raise BundleError(f"{path}: {error}") from error
    found: dict[str, Definition] = {}
    for group in schema.groups:
        words = {
            spec.column or spec.name: spec.vocabulary
            for spec in schema.specs
            if spec.source == group.name and spec.type == "categorical"
        }
        found[group.name] = Definition(group, words, path)
    return found


def repository_definitions(repository: Path) -> dict[str, list[Definition]]:
    """Return, per group, its definition in the newest version of every model that declares it."""
    found: dict[str, list[Definition]] = {}
    for bundle in _newest_bundles(repository):
        for name, definition in read_definitions(bundle).items():
            found.setdefault(name, []).append(definition)
    return found


def find_group(
    name: str, *, schema: Path | None = None, repository: Path | None = None
) -> Definition:
    """Return the definition of a group.

    Parameters
    ----------
    name : str
    schema : path, optional
        A `schema.json` or a bundle directory. Comes before the repository.
    repository : path, optional
        A model repository.

    Raises
    ------
    InputError
        Nobody declares it, or two models declare different columns.
    BundleError
        A schema cannot be read.
    """
    if schema is not None:
        known = read_definitions(schema)
        if name not in known:
            raise InputError(f"{schema} {_declares(known)}, not {name!r}")
        return known[name]
    if repository is None:
        raise InputError(
            "no schema: name a schema.json, a bundle or a repository that declares the group"
        )
    several = repository_definitions(repository)
    if name not in several:
        raise InputError(f"{repository} {_declares(several)}, not {name!r}")
    first, *others = several[name]
    for other in others:
        if other.group.fingerprint != first.group.fingerprint:
            raise InputError(
                f"group {name!r} has other columns in {other.path} than in {first.path}: choose "
                "one with --schema"
            )
    return first


def _declares(known: Mapping[str, object]) -> str:
    if not known:
        return "declares no groups of stored features"
    return f"declares {'the groups' if len(known) > 1 else 'the group'} {', '.join(sorted(known))}"


def _newest_bundles(repository: Path) -> Iterator[Path]:
    from server.repository import natural_key

    try:
        models = sorted(entry for entry in repository.iterdir() if entry.is_dir())
    except OSError as error:
        raise InputError(f"{repository}: cannot be read: {error.strerror}") from error
    for model in models:
        versions = [entry for entry in model.iterdir() if (entry / MANIFEST).is_file()]
        if versions and not model.name.startswith("."):
            yield max(versions, key=lambda entry: natural_key(entry.name))
