"""Command line options of settings, derived from `server.config.CATALOGUE`.

An option that was not given is absent from `flags`: precedence is the business of
`load_settings`, not of click.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from server.config import CATALOGUE, Effective, Setting, load_settings

Command = TypeVar("Command", bound=Callable[..., object])

METAVARS = {"integer": "INTEGER", "number": "NUMBER", "text": "TEXT", "path": "PATH"}

# Names besides the derived one, for flags that people look for under them.
ALIASES = {"control.insecure": ("--insecure-control",)}

config_option = click.option(
    "--config",
    "config_file",
    envvar="SCOREGATE_CONFIG",
    show_envvar=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="TOML file with settings. A flag wins over the environment, that over the file.",
)


def setting_options(command: Command) -> Command:
    """Add one option per setting."""
    for setting in reversed(CATALOGUE.values()):
        command = _option(setting)(command)
    return command


def _parameter(setting: Setting) -> str:
    return setting.path.replace(".", "_")


def _option(setting: Setting) -> Callable[[Command], Command]:
    shown = setting.default
    if isinstance(shown, tuple | str) and not shown:
        shown = "empty"
    elif isinstance(shown, bool):
        shown = str(shown).lower()
    text = f"{setting.help}  [{setting.env}; default: {shown}]"
    name = _parameter(setting)
    if setting.kind == "flag":
        pair = f"{setting.flag}/--no-{setting.flag[2:]}"
        return click.option(pair, *ALIASES.get(setting.path, ()), name, default=None, help=text)
    if setting.kind == "list":
        metavar = "MODEL[@VERSION]" if setting.path == "models" else "NAME"
        return click.option(setting.flag, name, multiple=True, metavar=metavar, help=text)
    metavar = METAVARS[setting.kind]
    if setting.allowed.startswith("one of "):
        metavar = "|".join(part.strip("' ") for part in setting.allowed[7:].split(","))
    return click.option(setting.flag, name, default=None, metavar=metavar, help=text)


def gather(config_file: Path | None, given: dict[str, object]) -> Effective:
    """Load the settings from a file, this process's environment and click's parameters."""
    found = {path: given.get(_parameter(setting)) for path, setting in CATALOGUE.items()}
    flags = {path: value for path, value in found.items() if value is not None and value != ()}
    return load_settings(config_file, os.environ, flags)
