"""The demo's own Redis (or Valkey) server, and who starts it again when it ends.

It listens on a Unix socket in the demo's directory and on no port, belongs to nobody else, and
keeps an append-only file, so that a killed server loses nothing that it had acknowledged. When it
ends, however that came, it is started again RESTART_S later. It ends with the demo.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from server.demo.processes import end, spawn, tail
from server.errors import StartError

PROGRAMS = ("redis-server", "valkey-server")
RESTART_S = 10.0
READY_S = 10.0
LONGEST_PATH = 107  # sun_path has 108 bytes, NUL included


def find_program() -> str:
    """Return the path of the server's program.

    Raises
    ------
    StartError
        None is installed.
    """
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    raise StartError(
        "the demo needs redis-server for --store redis, and there is none. `make demo STORE=redis` "
        "installs it; so does, on Debian: apt-get install redis-server. The default store, "
        "--store lmdb, needs none"
    )


class RedisServer:
    """A running server. A context: it is ended on leaving.

    Parameters
    ----------
    directory : Path
        For its data and its log; made anew.

    Raises
    ------
    StartError
        It is not installed, or does not start; with the last lines of its log.
    """

    def __init__(self, directory: Path) -> None:
        self._program = find_program()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self._directory = directory.resolve()
        self._log_path = directory / "redis.log"
        self._elsewhere: Path | None = None
        self.socket = self._directory / "redis.sock"
        if len(str(self.socket).encode()) > LONGEST_PATH:
            self._elsewhere = Path(tempfile.mkdtemp(prefix="scoregate-"))
            self.socket = self._elsewhere / "redis.sock"
        self.name = Path(self._program).name
        self._restart_at: float | None = None
        self._how = ""
        self.n_restarts = 0
        self._process = self._start()
        try:
            self._wait()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Process id of the newest server."""
        return self._process.pid

    def _start(self) -> subprocess.Popen[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
            "logfile": "",
        }
        command = [self._program]
        for name, value in settings.items():
            command += [f"--{name}", value]
        with self._log_path.open("a", encoding="utf-8") as log:
            return spawn(command, stdout=log, stderr=subprocess.STDOUT)

    def _wait(self) -> None:
        limit = time.monotonic() + READY_S
        while not self._answers():
            if self._process.poll() is not None:
                raise StartError(f"{self.name} did not start: {tail(self._log_path)}")
            if time.monotonic() > limit:
                raise StartError(
                    f"{self.name} is not ready after {READY_S:g} s: {tail(self._log_path)}"
                )
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def supervise(self) -> str:
        """Start the server again where that is due; return a line on its state.

        To be called a few times a second.
        """
        code = self._process.poll()
        if code is None:
            return self._running()
        now = time.monotonic()
        if self._restart_at is None:
            self._how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            self._restart_at = now + RESTART_S
        if now < self._restart_at:
            left_s = self._restart_at - now
            return f"{self.name} has ended ({self._how}), restarts in {left_s:.0f} s"
        self._restart_at = None
        self.n_restarts += 1
        self._process = self._start()
        return self._running()

    def _running(self) -> str:
        again = f", restarted {self.n_restarts} times" if self.n_restarts > 1 else ""
        again = ", restarted once" if self.n_restarts == 1 else again
        return f"{self.name} runs as process {self.pid}{again}"

    def end(self) -> None:
        """End the server; ending twice is harmless."""
        end(self._process)
        if self._elsewhere is not None:
            shutil.rmtree(self._elsewhere, ignore_errors=True)
