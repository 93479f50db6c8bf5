"""The servers of the features benchmark: scoregate on LMDB or Redis, and Redis itself.

Redis runs on the load's core, beside the generator: the servers' core is for what is measured. It
has a Unix socket and no port, keeps nothing on disk, and ends with its block.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, LoadError
from bench.processes import LOAD_CORE, server
from bench.sources import SCORE
from bench.targets import ALONE, Target
from server.demo.redis_server import find_program
from server.errors import StartError

READY_S = 10.0
OPEN = 2.0  # scoregate_store_breaker_state


@contextmanager
def scoregate(name: str, repository: Path, store: Path, *options: str) -> Iterator[Target]:
    """Serve a repository with a store directory until the block ends; `options` say the rest."""
    where = ["--repository", str(repository), "--features-directory", str(store)]
    with server(["server", "serve", *ALONE, *where, *options]) as running:
        addresses = running.ready["addresses"]
        assert isinstance(addresses, dict)
        yield Target(
            name,
            str(addresses["fast"]),
            SCORE,
            running.pid,
            str(addresses["sidecar"]),
            running.seconds_to_ready,
        )


@dataclass(frozen=True)
class Redis:
    """A running Redis server."""

    pid: int
    socket: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """As our settings and `bench.bare_gets` write it."""
        return f"unix:{self.socket}"

    @property
    def url(self) -> str:
        """As writers have it."""
        return f"unix://{self.socket}?db=0"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it with SIGSTOP until the block ends."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    """Run a Redis server in a folder until the block ends.

    Raises
    ------
    BenchError
        It is not installed, or does not start.
    """
    try:
        program = find_program()
    except StartError as error:
        raise BenchError(f"the features benchmark needs redis-server: {error}") from None
    path = folder / "redis.sock"
    command = ["taskset", "-c", LOAD_CORE, program, "--port", "0", "--unixsocket", str(path)]
    command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(folder)]
    log = folder / "redis.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            wait_until(lambda: _answers(path) or process.poll() is not None, READY_S)
            if process.poll() is not None or not _answers(path):
                raise BenchError(f"redis-server did not start:\n{log.read_text()[-2000:]}")
            yield Redis(process.pid, path, process)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def wait_until(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until something holds; return whether it does."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@dataclass(frozen=True)
class Reads:
    """What a server has counted of its reads of stored records so far."""

    outcomes: dict[str, float]  # "table.outcome" -> reads
    n_timed: float  # online reads whose time was taken, and their sum
    seconds: float

    @classmethod
    def of(cls, target: Target) -> Reads:
        """Read a server's counters.

        Raises
        ------
        LoadError
            It does not answer, or has no such counters.
        """
        outcomes = {}
        counters = target.counters()
        for name, value in counters.items():
            if name.startswith("scoregate_feature_reads_total{"):
                labels = dict(x.split("=", 1) for x in name[name.index("{") + 1 : -1].split(","))
                outcomes[f"{labels['table']}.{labels['outcome']}".replace('"', "")] = value
        duration = "scoregate_feature_read_duration_seconds"
        if not outcomes or f"{duration}_sum" not in counters:
            raise LoadError(f"{target.name}: its metrics say nothing of stored features")
        return cls(outcomes, counters[f"{duration}_count"], counters[f"{duration}_sum"])

    def since(self, before: Reads) -> tuple[dict[str, float], float | None]:
        """Return the reads by outcome, and the mean microseconds of one that was timed."""
        grown = {name: n - before.outcomes[name] for name, n in self.outcomes.items()}
        n_timed = self.n_timed - before.n_timed
        mean_us = (self.seconds - before.seconds) / n_timed * 1e6 if n_timed else None
        return {name: n for name, n in grown.items() if n}, mean_us


def breaker_is(target: Target, *states: float) -> bool:
    """Tell whether the breaker of every loop is in one of some states (0, 1 or 2)."""
    counters = target.counters()
    name = "scoregate_store_breaker_state{"
    found = [value for key, value in counters.items() if key.startswith(name)]
    return bool(found) and all(value in states for value in found)


def is_connected(target: Target) -> bool:
    """Tell whether every loop's connection to Redis stands."""
    name = "scoregate_store_connected{"
    found = [value for key, value in target.counters().items() if key.startswith(name)]
    return bool(found) and all(found)
