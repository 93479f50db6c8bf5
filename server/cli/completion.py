"""`scoregate completion`: print the script that makes a shell complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script for SHELL.

    For the shell that you are in, or at the end of its start-up file (zsh: after compinit):

    \b
    bash:  eval "$(scoregate completion bash)"
    zsh:   eval "$(scoregate completion zsh)"
    fish:  scoregate completion fish | source
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    root = ctx.find_root().command
    chosen = get_completion_class(shell)
    if chosen is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(chosen(root, {}, "scoregate", "_SCOREGATE_COMPLETE").source())
