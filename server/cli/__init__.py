"""The `scoregate` command.

Each subcommand is a module of this package, imported when it is called: `scoregate serve`
must not pay for pandas. Exit codes: 0 done; 2 usage or input, said in one line without a
traceback; 1 failure.
"""

from __future__ import annotations

import importlib
import sys
from typing import cast

import click

from fastpath.errors import FastpathError
from server import __version__
from server.errors import ScoregateError

# Name -> (module, attribute, one line of help). The help stands here so that `scoregate --help`
# imports nothing.
COMMANDS = {
    "export": ("server.cli.export", "export", "Turn a scikit-learn model into a bundle."),
    "inspect": ("server.cli.inspect", "inspect", "Show what a bundle holds, and verify it."),
    "schema": ("server.cli.schema", "schema", "Check or show the features of a model."),
    "features": (
        "server.cli.features",
        "features",
        "Load, list and look up stored features.",
    ),
    "serve": ("server.cli.serve", "serve", "Serve a model repository."),
    "score": ("server.cli.score", "score", "Score one request: a first call without code."),
    "status": ("server.cli.status", "status", "Show what serves: plan, arms, ports, stores."),
    "watch": ("server.cli.watch", "watch", "Watch the plan, changes and traffic live."),
    "models": ("server.cli.models", "models", "List, load, unload versions; the default."),
    "deploy": ("server.cli.deploy", "deploy", "Let a version take part."),
    "traffic": ("server.cli.traffic", "traffic", "Split the traffic between versions."),
    "promote": ("server.cli.promote", "promote", "Give one version all the traffic."),
    "rollback": ("server.cli.rollback", "rollback", "Put an earlier plan in force again."),
    "retire": ("server.cli.promote", "retire", "Take a version or a model out of service."),
    "explore": ("server.cli.explore", "explore", "Let a share of what would be stopped pass."),
    "thresholds": ("server.cli.thresholds", "thresholds", "Decide at other scores."),
    "overrides": ("server.cli.overrides", "overrides", "Pin routing keys to versions."),
    "labels": ("server.cli.labels", "labels", "Name versions."),
    "freeze": ("server.cli.freeze", "freeze", "Refuse changes for a while."),
    "unfreeze": ("server.cli.freeze", "unfreeze", "Allow changes again."),
    "history": ("server.cli.history", "history", "List who changed what serves, and why."),
    "events": ("server.cli.events", "events", "Show what happened: drift, rollbacks, changes."),
    "outcomes": ("server.cli.outcomes", "outcomes", "Report what came of decisions."),
    "journal": ("server.cli.journal", "journal", "Export, verify, set aside the history on disk."),
    "drift": ("server.cli.drift", "drift", "Show which features moved, how far, and how."),
    "quality": ("server.cli.quality", "quality", "Show how well versions did, with intervals."),
    "retrain": ("server.cli.retrain", "retrain", "Say whether to train again, on which rows."),
    "reference": ("server.cli.reference", "reference", "Make what drift is compared with."),
    "token": ("server.cli.token", "token", "Make and revoke tokens of the control port."),
    "echo": ("server.cli.echo", "echo", "Serve the transport alone, to measure against."),
    "bench": ("server.cli.bench", "bench", "Load a server; run scenarios; compare; report."),
    "config": ("server.cli.config", "config", "Check or show the server's settings."),
    "simulate": ("server.cli.simulate", "simulate", "Make card transactions to try things on."),
    "demo": ("server.cli.demo", "demo", "Train, export, serve and replay, in one command."),
    "completion": ("server.cli.completion", "completion", "Print a shell completion script."),
}


class LazyGroup(click.Group):
    """A click group that imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table: the order of a user's journey."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        return cast("click.Command", getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scoregate")
def scoregate() -> None:
    """Serve scikit-learn models over gRPC, on the fraud path.

    The road: `export` a trained scikit-learn model, `inspect` the bundle, `serve` the
    repository, `score` a first request; then `deploy` the next version, `promote` it or
    `rollback`. `demo` walks the first part on simulated transactions.
    """


def main() -> None:
    """Run the command line; errors are one line on stderr, not tracebacks."""
    try:
        scoregate(prog_name="scoregate")
    except (ScoregateError, FastpathError) as error:
        click.echo(f"scoregate: {error}", err=True)
        sys.exit(2 if isinstance(error, ValueError) else 1)


if __name__ == "__main__":
    main()
