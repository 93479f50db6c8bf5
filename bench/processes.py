"""Servers as processes of their own, pinned to one core, with their CPU time and memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

SERVER_CORE = "0"
LOAD_CORE = "1"
START_TIMEOUT_S = 60.0


class ServerDiedError(BenchError):
    """A server ended before it was ready, or while it was measured."""


def cpu_ns(pid: int) -> int:
    """Return user and system time of a process so far, by its own clock.

    Raises
    ------
    ServerDiedError
        There is no such process.
    """
    # clock_getcpuclockid(3): the scheduler's count of a whole process.
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        raise ServerDiedError(f"process {pid} is gone") from None


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process now.

    Raises
    ------
    ServerDiedError
        There is no such process.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ServerDiedError(f"process {pid} is gone")


@dataclass(frozen=True)
class Server:
    """A running server."""

    pid: int
    ready: dict[str, object]  # what its ready file says
    seconds_to_ready: float

    def port(self, door: str) -> int:
        """Return the port of one door: "fast", "control" or "sidecar"."""
        addresses = self.ready["addresses"]
        assert isinstance(addresses, dict)
        return int(str(addresses[door]).rsplit(":", 1)[1])

    def cpu_ns(self) -> int:
        """Return user and system time of all its threads so far, those that ended included."""
        return cpu_ns(self.pid)

    def resident_bytes(self) -> int:
        """Return its resident memory now."""
        return resident_bytes(self.pid)


@contextmanager
def server(arguments: list[str]) -> Iterator[Server]:
    """Run `python -m ARGUMENTS --ready-file FILE` on the server's core until the block ends.

    The ready file is JSON with an `addresses` object: door -> "host:port".
    """
    with tempfile.TemporaryDirectory() as folder:
        ready_file, log_file = Path(folder, "ready.json"), Path(folder, "log")
        command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", *arguments]
        with log_file.open("w") as log:
            started = time.monotonic()
            process = subprocess.Popen(
                [*command, "--ready-file", str(ready_file)], stdout=log, stderr=log
            )
            try:
                while not ready_file.exists():
                    if process.poll() is not None or time.monotonic() - started > START_TIMEOUT_S:
                        raise ServerDiedError(
                            f"{' '.join(arguments)} did not start:\n{log_file.read_text()[-2000:]}"
                        )
                    time.sleep(0.002)
                seconds = time.monotonic() - started
                yield Server(process.pid, json.loads(ready_file.read_text()), seconds)
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
