"""Debian's h2load, for one thing: to see that our own generator is no slower than a known one.

It is closed-loop, sends one message again and again, and sees only `:status`.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.errors import LoadError
from bench.processes import LOAD_CORE


@dataclass(frozen=True)
class Load:
    """The shape of one run."""

    n_calls: int
    n_connections: int = 8
    n_streams: int = 4
    calls_per_s: int | None = None  # None: as fast as answers come


@dataclass(frozen=True)
class Outcome:
    """What h2load saw."""

    n_calls: int
    seconds: float
    latencies_us: np.ndarray | None = None

    @property
    def calls_per_s(self) -> float:
        """Completed calls by wall time."""
        return self.n_calls / self.seconds


def framed(message: bytes) -> bytes:
    """Prefix a message as gRPC does: not compressed, length in big-endian."""
    return struct.pack(">BI", 0, len(message)) + message


def run(port: int, method: str, message: bytes, load: Load, *, latencies: bool = False) -> Outcome:
    """Send one message `n_calls` times.

    Raises
    ------
    LoadError
        A call did not end with :status 200, or h2load could not run.
    """
    program = shutil.which("h2load")
    if program is None:
        raise LoadError("h2load is missing; on Debian: apt-get install -y nghttp2-client")
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(framed(message))
        command = [
            *("taskset", "-c", LOAD_CORE, program),
            *("-n", str(load.n_calls), "-c", str(load.n_connections), "-m", str(load.n_streams)),
            *("-H", "content-type: application/grpc", "-H", "te: trailers", "-d", str(body)),
            *(["--log-file", str(log)] if latencies else []),
        ]
        if load.calls_per_s is not None:
            command += ["--rps", str(load.calls_per_s // load.n_connections)]
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{port}{method}"],
            capture_output=True,
            text=True,
            check=False,
        )
        counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
        finished = re.search(r"finished in ([\d.]+)(s|ms|us)", done.stdout)
        if done.returncode != 0 or counts is None or finished is None:
            raise LoadError(f"h2load failed: {(done.stderr or done.stdout).strip()[-400:]}")
        if int(counts[1]) != load.n_calls:
            raise LoadError(f"{load.n_calls - int(counts[1])} of {load.n_calls} calls failed")
        seconds = float(finished[1]) * {"s": 1.0, "ms": 1e-3, "us": 1e-6}[finished[2]]
        times = np.loadtxt(log, usecols=2) if latencies else None
        return Outcome(load.n_calls, seconds, times)
