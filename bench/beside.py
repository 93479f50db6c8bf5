"""What happens to a server beside the measured load: idle connections, scrapes, another load.

Each is a context manager that says afterwards what it did, and what went wrong: a scenario whose
disturbance did not happen has shown nothing, so such a run is not valid.
"""

from __future__ import annotations

import http.client
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.errors import LoadError
from bench.generator import Generator, Limits, Schedule
from bench.message import Message
from bench.targets import Target
from server.priority import stand_back

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and SETTINGS
SETTINGS_ACK = bytes([0, 0, 0, 4, 1, 0, 0, 0, 0])
SPARE_FILES = 256  # of the process's limit, for everything else


@dataclass
class Effects:
    """What the disturbances did, filled in while and after they run."""

    facts: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def file_limit() -> int:
    """Raise this process's limit of open files as far as it may be; return it.

    Servers that are started afterwards inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connect(address: str) -> socket.socket:
    """Open a plain connection to "host:port" or "unix:/path"."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address.removeprefix("unix:"))
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=5)


@contextmanager
def idle_connections(target: Target, n_wanted: int, effects: Effects) -> Iterator[None]:
    """Hold HTTP/2 connections open that send nothing, as pools of many callers do."""
    n_asked = min(n_wanted, file_limit() - SPARE_FILES)
    with ExitStack() as stack:
        held: list[socket.socket] = []
        try:
            for _ in range(n_asked):
                sock = stack.enter_context(connect(target.address))
                sock.sendall(PREFACE)
                held.append(sock)
            for sock in held:
                sock.recv(4096)  # the server's SETTINGS: it has accepted
                sock.sendall(SETTINGS_ACK)
        except OSError as error:
            raise LoadError(
                f"{target.address}: idle connection {len(held) + 1} of {n_asked}: {error}"
            ) from None
        yield
        n_lost = sum(map(_is_lost, held))
        effects.facts |= {"idle_connections": n_asked, "idle_connections_lost": n_lost}
        if n_lost:
            effects.reasons.append(f"the server closed {n_lost} of {n_asked} idle connections")


def _is_lost(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        while chunk := sock.recv(4096):
            del chunk  # PING or SETTINGS: alive
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


class Scraper(threading.Thread):
    """Reads a page, /metrics if no other is named, again and again over one connection.

    Parameters
    ----------
    sidecar
        "host:port".
    every_s
        Pause after each scrape.
    steps_back
        Whether it makes way for everything else on its core, and so is no measure of time.
    path
        Of the page.
    holds
        What every answer has to hold.
    """

    def __init__(
        self,
        sidecar: str,
        every_s: float,
        *,
        steps_back: bool = False,
        path: str = "/metrics",
        holds: bytes = b"ml_predictions_total",
    ) -> None:
        super().__init__(name="bench-scrape", daemon=True)
        host, _, port = sidecar.rpartition(":")
        self._client = http.client.HTTPConnection(host, int(port), timeout=10)
        self._every_s = every_s
        self._steps_back = steps_back
        self._path = path
        self._holds = holds
        self.ended = threading.Event()
        self.times_ms: list[float] = []
        self.n_bytes: list[int] = []
        self.failure = ""

    def run(self) -> None:
        """Scrape until `ended` is set, or a scrape fails: then `failure` says how."""
        if self._steps_back:
            stand_back()
        try:
            while not self.ended.wait(self._every_s):
                started = time.perf_counter()
                self._client.request("GET", self._path)
                answer = self._client.getresponse()
                body = answer.read()
                if answer.status != 200 or self._holds not in body:
                    raise OSError(f"status {answer.status}, {len(body)} bytes")
                self.times_ms.append((time.perf_counter() - started) * 1e3)
                self.n_bytes.append(len(body))
        except (OSError, http.client.HTTPException) as error:
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self._client.close()


@contextmanager
def scrapes(target: Target, every_s: float, effects: Effects) -> Iterator[None]:
    """Scrape the server's metrics while the load runs."""
    if target.sidecar is None:
        raise LoadError(f"{target.name} has no known sidecar to scrape; give --sidecar HOST:PORT")
    scraper = Scraper(target.sidecar, every_s)
    scraper.start()
    try:
        yield
    finally:
        scraper.ended.set()
        scraper.join()
    if scraper.failure or not scraper.times_ms:
        reason = scraper.failure or "none was answered within the run"
        effects.reasons.append(f"scrapes of {target.sidecar} failed: {reason}")
        return
    times = np.array(scraper.times_ms)
    effects.facts |= {"scrapes": len(times), "scrape_p50_ms": float(np.median(times))}


@contextmanager
def background(
    target: Target,
    messages: list[Message],
    calls_per_s: float,
    n_connections: int,
    n_streams: int,
    seconds: float,
    core: int | None,
    effects: Effects,
) -> Iterator[None]:
    """Send another load meanwhile, from a thread of its own."""
    generator = Generator(
        target.address,
        messages,
        n_connections=n_connections,
        n_streams=n_streams,
        order="random",
        spin_us=0.0,  # it shares its core with the measured load
        limits=Limits(max_lag_p99_ms=100.0, max_late_share=1.0),
        core=core,
    )
    times = Schedule.poisson(calls_per_s, seed=11).times_ns(seconds)
    found: list[Any] = []

    def send() -> None:
        try:
            found.append(generator.run_open(times))
        except LoadError as error:
            found.append(error)

    thread = threading.Thread(target=send, name="bench-background", daemon=True)
    thread.start()
    yield
    thread.join()
    result = found[0] if found else LoadError("it did not run")
    if isinstance(result, LoadError):
        effects.reasons.append(f"the background load failed: {result}")
        return
    effects.facts |= {
        "background_calls_per_s": result.calls_per_s,
        "background_p99_us": result.latency.percentile(99) / 1e3,
        "background_message_bytes": max(len(message.body) for message in messages),
    }
    effects.reasons += [f"the background load: {reason}" for reason in result.invalid_reasons]
