"""`scoregate config`: check a settings file, or show what is in force."""

from __future__ import annotations

from pathlib import Path

import click

from server.cli.options import config_option, gather, setting_options
from server.config import load_settings, to_toml


@click.group()
def config() -> None:
    """Check or show the server's settings."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check the settings in FILE.

    Exit code 0: the server would accept them. 2: one line says which key is wrong, and what is
    allowed. Flags and the environment are not looked at.
    """
    load_settings(file)
    click.echo(f"{file}: ok")


@config.command()
@config_option
@setting_options
def show(config_file: Path | None, **given: object) -> None:
    """Print the effective settings as TOML.

    A comment says where each value comes from. Without options, this is a settings file with
    every default, ready to edit.
    """
    click.echo(to_toml(gather(config_file, given)), nl=False)
