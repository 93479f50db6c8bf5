"""`scoregate echo`: the transport alone, the yardstick of every claim about scoring."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import click


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=50061, show_default=True,
              help="Port; 0 chooses a free one.")  # fmt: skip
@click.option("--unix-socket", type=click.Path(path_type=Path),
              help="Listen on this Unix socket as well.")  # fmt: skip
@click.option("--loops", type=click.IntRange(1, 64), default=1, show_default=True,
              help="Loop threads.")  # fmt: skip
@click.option("--spin-us", type=click.IntRange(0, 1_000_000), default=0, show_default=True,
              help="Poll that long before a loop blocks.")  # fmt: skip
@click.option("--delay-us", type=click.IntRange(0, 60_000_000), default=0, show_default=True,
              help="Hold each answer that long, as an upstream would.")  # fmt: skip
@click.option("--ready-file", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the address there, as JSON, once it listens.")  # fmt: skip
def echo(
    host: str,
    port: int,
    unix_socket: Path | None,
    loops: int,
    spin_us: int,
    delay_us: int,
    ready_file: Path | None,
) -> None:
    """Answer /scoregate.bench.Echo/Echo with the request's own bytes until SIGTERM or Ctrl-C.

    It is the fast door with no engine behind it: what a call costs here is what the transport
    costs. Point any load generator at it to size a machine before there is a model.
    """
    from fastpath.echo import EchoService
    from fastpath.loop import LoopGroup

    ended = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    group = LoopGroup([EchoService(delay_us) for _ in range(loops)], spin_us=spin_us)
    bound = group.listen(host, port)
    addresses = {"fast": f"{host}:{bound}"}
    if unix_socket is not None:
        group.listen_unix(unix_socket)
        addresses["unix"] = f"unix:{unix_socket.absolute()}"
    group.start()
    click.echo(f"echo on {' and '.join(addresses.values())}")
    if ready_file is not None:
        aside = ready_file.with_name(ready_file.name + ".tmp")
        aside.write_text(json.dumps({"addresses": addresses}))
        aside.rename(ready_file)
    signal.sigwait(ended)
    group.drain(5.0)
    group.stop()
