"""Every setting with its names and allowed values, derived from the tree in `settings`.

`fast.port` in a file is `--fast-port` on the command line and SCOREGATE_FAST_PORT in the
environment. Nothing here is written by hand per setting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_type_hints

import msgspec
from msgspec import inspect

from server.config.settings import Settings
from server.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of the tree."""

    path: str  # "fast.port"
    type: object  # as annotated: what msgspec converts to
    default: object
    help: str
    allowed: str  # the values, in words
    kind: str  # "integer", "number", "text", "flag", "list" or "path"

    @property
    def env(self) -> str:
        """Return the name of the environment variable."""
        return "SCOREGATE_" + self.path.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        """Return the name of the command line option."""
        return "--" + self.path.replace(".", "-").replace("_", "-")

    def convert(self, value: object, where: str, *, is_text: bool) -> object:
        """Check one value.

        Parameters
        ----------
        value
            As a file, the environment or the command line gave it.
        where
            Who gave it, for the error: "serve.toml: fast.port" or "--fast-port".
        is_text
            The source knows only text: "1" is a number, "a,b" a list.

        Raises
        ------
        ConfigError
            The value has another type or is outside the range.
        """
        parts = value
        if is_text and self.kind == "list":
            texts = [value] if isinstance(value, str) else value
            assert isinstance(texts, list | tuple)
            parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
        refusal = ConfigError(f"{where}: {value!r} is not allowed; expected {self.allowed}")
        try:
            converted: object = msgspec.convert(parts, self.type, strict=not is_text)
        except msgspec.ValidationError:
            raise refusal from None
        # NaN passes every comparison of a range check, and means nothing for any setting.
        if isinstance(converted, float) and math.isnan(converted):
            raise refusal
        return converted


def _metadata(node: inspect.Type) -> tuple[inspect.Type, str, bool]:
    """Unwrap a type; return it with its description and whether it is a path."""
    text, is_path = "", False
    while isinstance(node, inspect.Metadata):
        text = text or (node.extra_json_schema or {}).get("description", "")
        is_path = is_path or bool((node.extra or {}).get("path"))
        node = node.type
    return node, text, is_path


def _describe(node: inspect.Type, *, is_path: bool) -> tuple[str, str]:
    """Return the kind of a leaf and its allowed values in words."""
    match node:
        case inspect.BoolType():
            return "flag", "true or false"
        case inspect.IntType(ge=low, le=high):
            return "integer", f"a whole number from {low} to {high}"
        case inspect.FloatType(ge=low, gt=above, le=high):
            bottom = f"from {low:g}" if low is not None else f"above {above:g}"
            return "number", f"a number {bottom} to {high:g}"
        case inspect.LiteralType(values=values):
            return "text", "one of " + ", ".join(sorted(map(repr, values)))
        case inspect.VarTupleType():
            return "list", "a list of MODEL or MODEL@VERSION"
        case inspect.StrType(min_length=low, max_length=high):
            bound = f" of at most {high} characters" if high else ""
            what = "a path" if is_path else "text"
            return "path" if is_path else "text", f"{'' if low else 'empty, or '}{what}{bound}"
    raise TypeError(f"no description for {node}")


def _leaves(struct: type[msgspec.Struct], prefix: str) -> list[Setting]:
    hints = get_type_hints(struct, include_extras=True)
    leaves = []
    for field in msgspec.structs.fields(struct):
        path = prefix + field.name
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            leaves += _leaves(hint, path + ".")
            continue
        node, text, is_path = _metadata(inspect.type_info(hint))
        kind, allowed = _describe(node, is_path=is_path)
        leaves.append(Setting(path, hint, field.default, text, allowed, kind))
    return leaves


CATALOGUE: dict[str, Setting] = {leaf.path: leaf for leaf in _leaves(Settings, "")}
