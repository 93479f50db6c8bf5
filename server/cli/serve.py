"""`scoregate serve`: run the server."""

from __future__ import annotations

import os
from pathlib import Path

import click

from server.cli.options import config_option, gather, setting_options


@click.command()
@config_option
@setting_options
def serve(config_file: Path | None, **given: object) -> None:
    """Serve a model repository until SIGTERM or Ctrl-C.

    Three ports: the fast door (scoring, 50051), the control port (operators, 50052), the sidecar
    (/metrics, /healthz, /readyz, 9464). The first signal drains: calls in flight are finished
    within --drain-grace-s and the exit code is 0. A second signal ends at once.

    Every setting stands in a TOML file, in the environment or here; `scoregate config show`
    prints them all.
    """
    effective = gather(config_file, given)
    # grpc's core would write to stderr what is reported here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Imported here: `serve --help` and a wrong setting must not wait for grpc.
    from server.process import run

    run(effective.settings)
