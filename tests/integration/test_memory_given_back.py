"""What idle connections leave behind goes back to the system."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
N_CONNECTIONS = 800  # within the usual limit of open files
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def until(condition: Callable[[], bool], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def test_memory_of_connections_that_left_is_given_back(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    server = subprocess.Popen(
        [sys.executable, "-m", "server", "echo", "--port", "0", "--ready-file", str(ready)],
        cwd=ROOT,
    )
    try:
        until(ready.exists, 30)
        host, port = json.loads(ready.read_text())["addresses"]["fast"].split(":")
        before = resident_kib(server.pid)
        sockets = [socket.create_connection((host, int(port)), 10) for _ in range(N_CONNECTIONS)]
        for door in sockets:
            door.sendall(PREFACE)
        for door in sockets:
            assert door.recv(4096)
        grown = resident_kib(server.pid) - before
        assert grown > 5 * N_CONNECTIONS, "what is a connection made of?"
        for door in sockets:
            door.close()
        # Half of what they took, at least: without giving back, all of it stays for ever.
        until(lambda: resident_kib(server.pid) < before + grown // 2, 60)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
