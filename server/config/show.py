"""Print settings as TOML that reads back to the same settings, each with its origin."""

from __future__ import annotations

import json

from server.config.catalogue import CATALOGUE
from server.config.load import Effective


def to_toml(effective: Effective) -> str:
    """Return the effective settings as a TOML document; a comment says where each came from."""
    lines: list[str] = []
    section = ""
    for path in CATALOGUE:
        prefix, _, name = path.rpartition(".")
        if prefix != section:
            lines += ["", f"[{prefix}]"]
            section = prefix
        value: object = effective.settings
        for part in path.split("."):
            value = getattr(value, part)
        origin = effective.origins[path].encode("unicode_escape").decode("ascii")
        lines.append(f"{name} = {_value(value)}  # {origin}")
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but TOML wants DEL escaped as well.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)
