"""The demo's child processes: the server, and the client that replays.

All run in sessions of their own, so that Ctrl-C reaches only the demo, which then ends them in
order: first the client, then the server, so that no call fails because of the end. Should the demo
be killed, the kernel ends them.
"""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from server.errors import StartError

READY_S = 60.0
END_S = 15.0
LOG_LINES = 20
DEFAULT_PORTS = {"fast": 50051, "control": 50052, "sidecar": 9464}

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the demo's main thread ends (in the child, before exec)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def spawn(command: Sequence[str], **more: Any) -> subprocess.Popen[str]:
    """Start a child in a session of its own, which ends with the demo at the latest."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter, or a redis-server
        command,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=_end_with_parent,
        **more,
    )


def _spawn_module(arguments: Sequence[str], **more: Any) -> subprocess.Popen[str]:
    return spawn([sys.executable, "-m", *arguments], **more)


def end(process: subprocess.Popen[str]) -> int:
    """Ask a process to end, wait, and kill it where it does not; return its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def tail(path: Path) -> str:
    """Return the last lines of a log, to stand at the end of an error."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    shown = "\n".join(f"  | {line}" for line in lines[-LOG_LINES:])
    return f"last lines of {path}:\n{shown or '  | (empty)'}"


def choose_ports() -> dict[str, int]:
    """Return the usual ports, 0 (a free one) in place of each that is taken."""
    return {door: port if _is_free(port) else 0 for door, port in DEFAULT_PORTS.items()}


def choose_port(usual: int, *, any_port: bool) -> int:
    """Return the usual port, or a free one where that is taken or any will do.

    For programs that cannot tell which port they took; another process may be quicker.
    """
    if not any_port and _is_free(usual):
        return usual
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class ServerProcess:
    """`scoregate serve` as anybody would start it.

    Parameters
    ----------
    directory : Path
        For server.log and ready.json.
    repository : Path
    model : str
        "name@version".
    ports : dict of str to int
        By door; 0 takes a free one.
    options : sequence of str
        Further options of `scoregate serve`.

    Raises
    ------
    StartError
        It ends, or is not ready in a minute; with the last lines of its log.
    """

    def __init__(
        self,
        directory: Path,
        repository: Path,
        model: str,
        ports: dict[str, int],
        options: Sequence[str] = (),
    ) -> None:
        self._log_path = directory / "server.log"
        ready = directory / "ready.json"
        ready.unlink(missing_ok=True)
        arguments = ["server", "serve", "--repository", str(repository), "--models", model]
        arguments += ["--ready-file", str(ready)]
        for door, port in ports.items():
            arguments += [f"--{door}-port", str(port)]
        arguments += options
        with self._log_path.open("w", encoding="utf-8") as log:
            self._process = _spawn_module(arguments, stdout=log, stderr=subprocess.STDOUT)
        try:
            document = self._wait(ready)
        except BaseException:
            self.end()
            raise
        self.addresses: dict[str, str] = document["addresses"]
        self.ready_s: float = document["ready_s"]
        self.resident_bytes: int = document["resident_bytes"]

    def _wait(self, ready: Path) -> dict[str, Any]:
        limit = time.monotonic() + READY_S
        while not ready.exists():
            self.check()
            if time.monotonic() > limit:
                raise StartError(
                    f"the server is not ready after {READY_S:g} s\n{tail(self._log_path)}"
                )
            time.sleep(0.02)
        document: dict[str, Any] = json.loads(ready.read_text(encoding="utf-8"))
        return document

    def check(self) -> None:
        """Raise StartError, with the log's last lines, when the server is gone."""
        code = self._process.poll()
        if code is not None:
            how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
            raise StartError(f"the server ended by itself ({how})\n{tail(self._log_path)}")

    def end(self) -> int:
        """Drain and end the server; return its exit code."""
        return end(self._process)


class ReplayProcess:
    """The client, and the newest state that it has told.

    Parameters
    ----------
    addresses : dict of str to str
        The server's, by door.
    rows : Path
        What `Rows.save` wrote.
    rate : float
        Calls a second.
    directory : Path
        For replay.log.
    store : str
        Where its pipeline writes, as `server.features.open_writer` takes it; empty: there is no
        store.
    options : sequence of str
        Further options, of what the demo is about.
    """

    def __init__(
        self,
        addresses: dict[str, str],
        rows: Path,
        rate: float,
        directory: Path,
        store: str,
        options: Sequence[str] = (),
    ) -> None:
        self._log_path = directory / "replay.log"
        arguments = ["server.demo.replay", "--rows", str(rows), "--rate", repr(rate)]
        arguments += ["--fast", addresses["fast"], "--control", addresses["control"]]
        arguments += ["--store", store, *options]
        with self._log_path.open("w", encoding="utf-8") as log:
            self._process = _spawn_module(arguments, stdout=subprocess.PIPE, stderr=log)
        self.state: dict[str, Any] = {}
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), daemon=True
        )
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.state = json.loads(line)

    def check(self) -> None:
        """Raise StartError, with what it said, when the client is gone."""
        code = self._process.poll()
        if code is not None:
            said = self._log_path.read_text(encoding="utf-8", errors="replace").strip()
            raise StartError(f"the replaying client ended by itself (exit code {code})\n{said}")

    def end(self) -> dict[str, Any]:
        """Stop sending, wait for the calls in flight, and return the final state."""
        end(self._process)
        self._reader.join(END_S)
        return self.state
