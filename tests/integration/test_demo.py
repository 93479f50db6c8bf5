"""The whole demo as a user runs it, on little data."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.demo.simulator import simulate
from server.demo.sizes import Size

ROOT = Path(__file__).resolve().parents[2]
SIZE = ("--customers", "150", "--terminals", "400")
LIMIT_S = 120


def command(directory: Path, *arguments: str) -> list[str]:
    start = [sys.executable, "-m", "server", "demo", "--directory", str(directory)]
    return [*start, "--free-ports", "--rate", "200", *arguments]


def clean_env() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("SCOREG", "DEMO_"))}


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(directory, *arguments),
        cwd=ROOT,
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(directory: Path) -> subprocess.CompletedProcess[str]:
    """The run that makes the artifacts; the tests below start from them."""
    return run(directory, *SIZE, "--seconds", "3")


@pytest.fixture
def background(
    directory: Path, first: subprocess.CompletedProcess[str]
) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a demo without an end, and wait until it replays."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        assert first.returncode == 0, first.stderr
        process = subprocess.Popen(
            command(directory, *SIZE),
            cwd=ROOT,
            env=clean_env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if " calls/s " in line:
                return process
        raise AssertionError(process.communicate()[1])

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def ready(directory: Path) -> dict[str, str]:
    document = json.loads((directory / "ready.json").read_text("utf-8"))
    return {**document["addresses"], "pid": str(document["pid"])}


def test_first_run_walks_the_whole_road(first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0, first.stderr
    out = first.stdout
    for door in ("fast door  127", "control    127", "sidecar    http://127"):
        assert re.search(rf"^{re.escape(door)}\.0\.0\.1:\d+", out, re.MULTILINE), out
    assert "Training and exporting" in out
    assert re.search(r"quality +AUC 0\.\d+ -> 0\.\d+", out), out
    calls = re.search(r"^calls +([\d,]+) in", out, re.MULTILINE)
    assert calls is not None, out
    assert int(calls[1].replace(",", "")) >= 500
    assert re.search(r"^errors +none", out, re.MULTILINE), out
    assert re.search(r"^latency +p50 [\d.]+ +p99 [\d.]+ +p99\.9 [\d.]+", out, re.MULTILINE), out
    assert re.search(r"^fraud +\d+ caught, \d+ missed of \d+", out, re.MULTILINE), out


def test_what_comes_incomplete_falls_back(first: subprocess.CompletedProcess[str]) -> None:
    found = re.search(
        r"^fallbacks +(\d+) calls, (\d+) features by default "
        r"\(sent incomplete: (\d+); named: (\d+)\)",
        first.stdout,
        re.MULTILINE,
    )
    assert found is not None, first.stdout
    calls, features, incomplete, named = map(int, found.groups())
    assert calls == incomplete > 0
    assert features == 6 * calls  # the terminal's windows, and nothing else
    assert named > 0


def test_second_run_uses_what_is_there(
    directory: Path, first: subprocess.CompletedProcess[str]
) -> None:
    assert first.returncode == 0, first.stderr
    bundles = list((directory / "repository" / "fraud").iterdir())
    again = run(directory, *SIZE, "--seconds", "1")
    assert again.returncode == 0, again.stderr
    assert "earlier run" in again.stdout
    assert "Training" not in again.stdout
    assert list((directory / "repository" / "fraud").iterdir()) == bundles


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_with_0(
    directory: Path, background: Callable[[], subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = background()
    addresses = ready(directory)
    assert listens(addresses["fast"])
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert re.search(r"^errors +none", out, re.MULTILINE), out
    for door in ("fast", "control", "sidecar"):
        assert not listens(addresses[door])


def test_a_server_that_dies_is_told_with_its_log(
    directory: Path, background: Callable[[], subprocess.Popen[str]]
) -> None:
    process = background()
    os.kill(int(ready(directory)["pid"]), signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "the server ended by itself (signal SIGKILL)" in err
    assert "server.log" in err
    assert "  | " in err
    assert "Traceback" not in err


def test_children_do_not_outlive_a_killed_demo(
    directory: Path, background: Callable[[], subprocess.Popen[str]]
) -> None:
    process = background()
    fast = ready(directory)["fast"]
    process.kill()
    process.wait()
    limit = time.monotonic() + LIMIT_S
    while listens(fast) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not listens(fast)


def test_a_second_demo_in_the_same_directory(
    directory: Path, background: Callable[[], subprocess.Popen[str]]
) -> None:
    background()
    other = run(directory, *SIZE, "--seconds", "1")
    assert other.returncode == 2
    assert "another demo runs there" in other.stderr


def test_data_from_a_file(tmp_path: Path) -> None:
    data = tmp_path / "given.parquet"
    simulate(Size(150, 400, 40), seed=9).to_parquet(data)
    done = run(tmp_path / "demo", "--data", str(data), "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert f"Reading {data}" in done.stdout
    assert "features computed as of before each transaction" in done.stdout


@pytest.mark.parametrize("kind", ["absent", "columns", "damaged"])
def test_data_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    data = tmp_path / "given.parquet"
    says = "cannot be read"
    if kind == "columns":
        simulate(Size(20, 400, 5), seed=9).drop(columns=["TERMINAL_ID"]).to_parquet(data)
        says = "columns are missing: TERMINAL_ID"
    elif kind == "damaged":
        data.write_bytes(b"PAR1 and nothing else")
        says = "not a readable table"
    done = run(tmp_path / "demo", "--data", str(data), "--seconds", "1")
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert str(data) in done.stderr
    assert "Traceback" not in done.stderr
