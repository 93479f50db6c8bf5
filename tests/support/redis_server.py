"""A real redis-server for a test: a Unix socket (and a port where asked), nothing on disk.

with RedisServer(tmp_path) as server:
    client = redis.Redis(unix_socket_path=server.socket)
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

START_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server, with the same socket and port over restarts; arguments are redis-server's."""

    def __init__(self, *arguments: str, tcp: bool = False) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed (apt-get install redis-server)")
        # A socket's path has at most 107 bytes: pytest's folders are too deep.
        self.folder = Path(tempfile.mkdtemp(prefix="sgredis-"))
        self.socket = str(self.folder / "redis.sock")
        self.port = free_port() if tcp else 0
        self.arguments = list(arguments)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self, *more: str) -> None:
        """Start it and wait until it answers, be it with an error."""
        assert self.process is None
        Path(self.socket).unlink(missing_ok=True)
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", self.socket, "--save", "", "--appendonly", "no"]
        command += ["--dir", str(self.folder), "--daemonize", "no", *self.arguments, *more]
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(1.0)
                    probe.connect(self.socket)
                    probe.sendall(b"PING\r\n")
                    if probe.recv(16):
                        return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(
                    f"redis-server did not start:\n{(self.folder / 'log').read_text()}"
                )
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is None:
            return
        for number in (signal.SIGCONT, signal.SIGKILL):
            self.process.send_signal(number)
        self.process.wait()
        self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
