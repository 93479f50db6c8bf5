"""What is measured: servers that the harness starts, or one that runs somewhere already.

A server that is started is pinned to a core of its own and ends with the run. Of a server that
runs already, CPU and memory are known only where its process id is given; what is not known is
left out of the result, never guessed.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from bench import model
from bench.errors import LoadError
from bench.processes import cpu_ns, resident_bytes, server
from bench.sources import ECHO, SCORE

# Of `server serve`: free ports and no memory, so that several may serve one repository, and each
# starts with its newest version.
ALONE = (
    *("--fast-port", "0", "--control-port", "0", "--sidecar-port", "0"),
    *("--rollout-journal", "none"),
)


@dataclass(frozen=True)
class Target:
    """One server under test."""

    name: str
    address: str  # "host:port" or "unix:/path"
    method: str  # where messages without a method of their own go
    pid: int | None = None
    sidecar: str | None = None  # "host:port" of /metrics
    seconds_to_ready: float | None = None

    def cpu_ns(self) -> int | None:
        """Return its CPU time so far; None if its process is not known."""
        return None if self.pid is None else cpu_ns(self.pid)

    def resident_bytes(self) -> int | None:
        """Return its resident memory; None if its process is not known."""
        return None if self.pid is None else resident_bytes(self.pid)

    def counters(self) -> dict[str, float]:
        """Read its own counters from its sidecar.

        Raises
        ------
        LoadError
            It has no sidecar, or that does not answer.
        """
        if self.sidecar is None:
            raise LoadError(f"{self.name}: no sidecar to read counters from; give --sidecar")
        try:
            url = f"http://{self.sidecar}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except (OSError, urllib.error.URLError) as error:
            raise LoadError(f"{self.sidecar}: /metrics does not answer: {error}") from None
        pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
        return {name: float(value) for name, value in pairs}


def command(kind: str, spin_us: int) -> list[str]:
    """Return the arguments of `python -m` that start one of the house's servers."""
    if kind == "echo":
        return ["server", "echo", "--port", "0", "--spin-us", str(spin_us)]
    if kind == "grpc_aio":
        return ["bench.grpc_aio_echo"]
    made = model.prepare_heavy() if kind == "heavy" else model.prepare()
    spin = ["--fast-spin-us", str(spin_us)] if spin_us else []
    return ["server", "serve", "--repository", str(made.repository), *ALONE, *spin]


class Targets:
    """The servers of one scenario, started when first asked for, ended together.

    Parameters
    ----------
    outside
        A server that runs already. It takes the place of the one called "target", and of the one
        called `replaces`.
    """

    def __init__(self, outside: Target | None = None, replaces: str = "target") -> None:
        self._outside = outside
        self._replaces = {replaces, "target"}
        self._started: dict[tuple[str, int], Target] = {}
        self._stack = ExitStack()

    def get(self, kind: str, spin_us: int = 0) -> Target:
        """Return a server, started if it has to be.

        Raises
        ------
        LoadError
            "target" without an address, or the server does not start.
        """
        if self._outside is not None and kind in self._replaces:
            return self._outside
        if kind == "target":
            raise LoadError("the scenario measures a server of yours: say where it is (--address)")
        key = (kind, spin_us)
        if key not in self._started:
            running = self._stack.enter_context(server(command(kind, spin_us)))
            addresses = running.ready["addresses"]
            assert isinstance(addresses, dict)
            self._started[key] = Target(
                kind,
                str(addresses["fast"]),
                SCORE if kind in ("score", "heavy") else ECHO,
                running.pid,
                addresses.get("sidecar"),
                running.seconds_to_ready,
            )
        return self._started[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
