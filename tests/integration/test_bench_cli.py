"""`scoregate bench` on real servers: what it finds, and what its exit code says.

The machine that runs tests is not quiet, so the generator may be as late as it likes here; nothing
asserts a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import recording
from bench.message import Message
from tests.support.serving import ROOT, Serving

ECHO = "/scoregate.bench.Echo/Echo"
PATIENT = ("--max-lag-ms", "30000", "--timeout-ms", "20000", "--warmup", "0.1")


def bench(*args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", "bench", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Serve the echo; yield its addresses."""
    folder = tmp_path_factory.mktemp("echo")
    ready, path = folder / "ready.json", folder / "s"
    command = [sys.executable, "-m", "server", "echo", "--port", "0", "--unix-socket", str(path)]
    process = subprocess.Popen(
        [*command, "--ready-file", str(ready)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        yield json.loads(ready.read_text())["addresses"] | {"pid": str(process.pid)}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.fixture
def message(tmp_path: Path) -> Path:
    path = tmp_path / "message.bin"
    path.write_bytes(os.urandom(200))
    return path


def test_any_grpc_server_by_address_method_and_message(
    echo: dict[str, str], message: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    done = bench(
        *("run", "--address", echo["fast"], "--method", ECHO, "--message", str(message)),
        *("--rate", "500", "--poisson", "--duration", "2", "--connections", "2", "--streams", "3"),
        *("--pid", echo["pid"], "--json", "--out", str(out), *PATIENT),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads(out.read_text())
    assert document["valid"] is True
    (run,) = document["runs"]
    result = run["result"]
    assert result["status_counts"] == {"OK": result["n_answered"]}
    assert result["n_scheduled"] == result["n_answered"] == result["n_checked"]
    assert 700 < result["n_answered"] < 1300
    assert document["metrics"]["target.cpu_us_per_call"]["median"] > 0
    assert run["load"]["connections"] == 2
    assert {"machine", "versions", "commit", "taken", "targets"} <= set(document)
    assert "run 1/1 target" in done.stderr, "progress"


def test_over_a_unix_socket_in_closed_loop(echo: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "some.rec"
    recording.write(path, [Message(ECHO, bytes([i]) * 50) for i in range(9)])
    done = bench(
        *("run", "--address", echo["unix"], "--recording", str(path), "--closed"),
        *("--duration", "0.5", *PATIENT),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["run", "calls/s"]
    assert lines[1].startswith("target")


def test_a_recording_whose_answers_are_wrong_makes_the_run_invalid(
    echo: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "some.rec"
    recording.write(path, [Message("/scoregate.bench.Echo/Echoes", b"x")])
    args = ("run", "--address", echo["fast"], "--recording", str(path), "--duration", "0.3")
    done = bench(*args, *PATIENT)
    assert done.returncode == 1
    assert "NOT VALID" in done.stdout
    assert "UNIMPLEMENTED" in done.stdout


def test_a_missed_promise_fails_only_with_check(echo: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "t"\nabout = "a"\nduration_s = 0.3\nrepetitions = 1\nload = {kind = "closed"}\n'
        'messages = {kind = "recorded", file = "%s"}\n'
        '[[runs]]\nname = "one"\nserver = "target"\n'
        '[[acceptance]]\nname = "never"\nnumerator = "one.p50_us"\nop = "<="\ntarget = 0.001\n'
        % (tmp_path / "some.rec")
    )
    recording.write(tmp_path / "some.rec", [Message(ECHO, b"x")])
    args = ("run", str(path), "--address", echo["fast"], *PATIENT)
    done = bench(*args)
    assert done.returncode == 0, done.stderr
    assert "NOT MET" in done.stdout
    done = bench(*args, "--check")
    assert done.returncode == 1
    assert "promises missed: never" in done.stderr


def test_scores_of_a_real_server_from_parquet(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "rows.parquet"
    frame = pd.DataFrame({"card": ["a", "b"], "amount": [12.5, 80.0], "risk": [0.1, 0.9]})
    frame.to_parquet(path)
    scenario = tmp_path / "mine.toml"
    scenario.write_text(
        'title = "t"\nabout = "a"\nduration_s = 0.5\nrepetitions = 1\n[messages]\nkind = "parquet"'
        f'\nfile = "{path}"\nform = "named"\ncolumns = ["amount", "risk"]\nentities = '
        '[{role = "payer", type = "customer", column = "card"}]\n[[runs]]\nname = "one"\n'
        'server = "score"\nbeside = {scrape_every_ms = 50, idle_connections = 20}\n'
    )
    with Serving() as server:
        args = ("--address", server.fast, "--sidecar", server.sidecar, "--json")
        done = bench("run", str(scenario), *args, *PATIENT)
        assert done.returncode == 0, done.stderr + done.stdout[-2000:]
        (run,) = json.loads(done.stdout)["runs"]
        n_calls = run["result"]["n_answered"] + run["result"]["n_warmup"]
        labels = {"model": "fraud", "model_version": "2"}
        counted = server.metric("ml_predictions_total", **labels)
        if counted == 0:
            counted = server.metric("ml_predictions_total", model="fraud", model_version="1")
        assert counted == n_calls, "the server saw every call, and no other"
    assert run["beside"]["idle_connections"] == 20
    assert run["beside"]["idle_connections_lost"] == 0
    assert run["beside"]["scrapes"] > 0


@contextlib.contextmanager
def listener(answer: bytes) -> Iterator[str]:
    """Accept connections, send something that is not HTTP/2, and close."""
    sock = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = sock.accept()
                with connection:
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{sock.getsockname()[1]}"
    finally:
        ended.set()
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        thread.join(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def test_nobody_there_is_said_with_code_2(message: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = bench("run", "--address", address, "--method", ECHO, "--message", str(message))
    assert done.returncode == 2
    assert f"cannot connect to {address}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_speaks_garbage_is_said(message: Path) -> None:
    with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        args = ("--method", ECHO, "--message", str(message), "--duration", "0.3")
        done = bench("run", "--address", address, *args)
    assert done.returncode in (1, 2), done.stdout
    assert "HTTP/2" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no input": ((), "give a SCENARIO"),
    "an unknown scenario": (("nope",), "no scenario of this name"),
    "a missing file": (("/no/such/file.toml",), "cannot be read"),
    "an address that is none": (
        ("--address", "here", "--method", ECHO, "--message", "pyproject.toml"),
        "here",
    ),
    "an impossible rate": (("--server", "echo", "--rate", "1e30"), "no possible rate"),
    "an unreadable message": (
        ("--address", "127.0.0.1:9", "--method", ECHO, "--message", "/no/such/message"),
        "/no/such/message: cannot be read",
    ),
    "a recording that is none": (
        ("--address", "127.0.0.1:9", "--recording", "pyproject.toml"),
        "not a recording",
    ),
    "a method that is none": (
        ("--address", "127.0.0.1:9", "--method", "Echo", "--message", "pyproject.toml"),
        "'Echo' is no method's path",
    ),
    "nothing to send": (("--address", "127.0.0.1:9"), "say what to send"),
    "a core that is not there": (("--server", "echo", "--core", "4095"), "4095"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_code_2(case: str) -> None:
    args, said = BAD[case]
    done = bench("run", *args)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_malformed_scenarios_name_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\nabout = "a"\n[[runs]]\nname = "x"\nserver = "moon"\n')
    done = bench("run", str(path))
    assert done.returncode == 2
    assert f"{path}: runs[0].server" in done.stderr


def test_list_names_every_scenario() -> None:
    done = bench("list", "--json")
    assert done.returncode == 0
    names = [made["name"] for made in json.loads(done.stdout)]
    assert {"steady", "burst", "ramp", "overload", "soak"} <= set(names)
    assert all(name in bench("list").stdout for name in names)


def result(path: Path, level: float) -> Path:
    spread = {"min": level, "median": level, "max": level, "repetitions": [level] * 5}
    document: dict[str, Any] = {
        "taken": "2026-01-01T00:00:00+00:00",
        "command": "x",
        "commit": "c",
        "machine": {"processor": "p", "cores": 2, "kernel": "k"},
        "metrics": {"score.p99_us": spread},
        "targets": [{"name": "n", "value": 1.0, "op": "<=", "target": 2.0, "met": True}],
    }
    path.write_text(json.dumps(document))
    return path


def test_compare_fails_on_a_regression_when_asked(tmp_path: Path) -> None:
    a, b = str(result(tmp_path / "a.json", 100.0)), str(result(tmp_path / "b.json", 130.0))
    assert "slower" in bench("compare", a, b).stdout
    assert bench("compare", a, b).returncode == 0
    assert bench("compare", a, b, "--fail-on-regression").returncode == 1
    assert bench("compare", b, a, "--fail-on-regression").returncode == 0
    (verdict,) = json.loads(bench("compare", a, a, "--json").stdout)
    assert verdict["verdict"] == "no difference shown"
    done = bench("compare", a, str(tmp_path / "none.json"))
    assert done.returncode == 2
    assert "none.json: cannot be read" in done.stderr


def test_report_writes_a_page_and_a_table(tmp_path: Path) -> None:
    path = result(tmp_path / "a.json", 1.0)
    page, table = tmp_path / "r.html", tmp_path / "r.md"
    done = bench("report", str(path), "--out", str(page), "--markdown", str(table))
    assert done.returncode == 0, done.stderr
    assert page.read_text().startswith("<!doctype html>")
    assert "| n | 1 | <= 2 | met |" in table.read_text()
    path.write_text("{}")
    done = bench("report", str(path), "--out", str(page))
    assert done.returncode == 2
    assert "a.json: no result file" in done.stderr
