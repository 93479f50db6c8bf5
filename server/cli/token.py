"""`scoregate token`: make, list and revoke the tokens of a control port.

Works on the tokens file alone; no server has to run. Servers that use the file notice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.errors import InputError

if TYPE_CHECKING:
    from server.control.tokens import Token

file_option = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    envvar="SCOREGATE_CONTROL_TOKENS_FILE",
    show_envvar=True,
    metavar="FILE",
    help="The tokens file, as the server's control.tokens_file names it.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def token() -> None:
    """Make, list and revoke access tokens of the control port.

    Roles: read (status, models, history, watch, scoring), operate (that, and every change of what
    serves), admin (that, and freezing changes). A server that runs reads the file again when it
    changes.
    """


@token.command()
@click.option("--name", required=True, help="Who will use it; changes are attributed to the name.")
@click.option("--role", required=True, type=click.Choice(["read", "operate", "admin"]))
@file_option
@json_option
def new(name: str, role: str, path: Path, as_json: bool) -> None:
    """Make a token, and print it: this once, since the file keeps its SHA-256 only.

    \b
    Example:
      scoregate token new --name alice --role operate --file tokens.toml
    """  # noqa: D301 - click's mark for a paragraph that is not wrapped
    from server.control.tokens import change_tokens, new_token

    made, secret = new_token(name, role)

    def add(tokens: tuple[Token, ...]) -> list[Token]:
        if any(other.name == name for other in tokens):
            raise InputError(
                f"tokens file {path}: there is a token {name} already; revoke it first "
                f"(`scoregate token revoke {name}`), or take another name"
            )
        return [*tokens, made]

    change_tokens(path, add, create=True)
    if as_json:
        click.echo(json.dumps({"name": name, "role": role, "token": secret}))
        return
    # The token alone on stdout: `scoregate token new ... > alice.token` is a file for --token-file.
    click.echo(secret)
    click.echo(
        f"This is {name}'s token, with the role {role}; it is not shown again.\n"
        "Use it: export SCOREGATE_TOKEN=..., or keep it in a file for --token-file.\n"
        f"The server needs --control-tokens-file {path} (once; later changes it notices).",
        err=True,
    )


@token.command("list")
@file_option
@json_option
def list_tokens(path: Path, as_json: bool) -> None:
    """List the tokens: names and roles, never secrets."""
    from server.control.tokens import read_tokens

    tokens = read_tokens(path)
    if as_json:
        rows = [{"name": t.name, "role": t.role, "created": t.created} for t in tokens]
        click.echo(json.dumps(rows))
        return
    if not tokens:
        click.echo("no tokens")
    width = max((len(t.name) for t in tokens), default=0)
    for t in tokens:
        click.echo(f"{t.name:<{width}}  {t.role:<7}  {t.created}")


@token.command()
@click.argument("name")
@file_option
def revoke(name: str, path: Path) -> None:
    """Revoke the token NAME: its next call is refused, its watches end."""
    from server.control.tokens import change_tokens

    def remove(tokens: tuple[Token, ...]) -> list[Token]:
        left = [other for other in tokens if other.name != name]
        if len(left) == len(tokens):
            known = ", ".join(other.name for other in tokens) or "none"
            raise InputError(f"tokens file {path}: no token {name}; there is {known}")
        return left

    change_tokens(path, remove)
    click.echo(f"revoked {name}")
