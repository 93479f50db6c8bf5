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


def run(directory: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(directory, *arguments),
        cwd=ROOT,
        env=clean_env() | env,
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
    return run(directory, *SIZE, "--seconds", "3", "--store", "none")


class Demo:
    """A demo that runs, and the lines that it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def until(self, pattern: str) -> re.Match[str]:
        """Read lines up to one that fits; fail with stderr where none comes."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(self.process.communicate()[1])

    def end(self) -> str:
        """Send SIGTERM; return all that it has printed."""
        self.process.terminate()
        out, err = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, err
        return "".join(self.lines) + out


Start = Callable[..., Demo]


@pytest.fixture
def background(directory: Path, first: subprocess.CompletedProcess[str]) -> Iterator[Start]:
    """Start a demo without an end, and wait until it replays."""
    started: list[Demo] = []

    def start(*arguments: str) -> Demo:
        assert first.returncode == 0, first.stderr
        process = subprocess.Popen(
            command(directory, *SIZE, *arguments),
            cwd=ROOT,
            env=clean_env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        demo = Demo(process)
        started.append(demo)
        demo.until(" calls/s ")
        return demo

    yield start
    for demo in started:
        if demo.process.poll() is None:
            demo.process.kill()
        demo.process.communicate()


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


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


def figures(out: str, pattern: str) -> list[int]:
    """Return the numbers that a line of the last table shows."""
    found = re.search(pattern, out, re.MULTILINE)
    assert found is not None, out
    return [int(number.replace(",", "")) for number in found.groups()]


SAME = r"^ +([\d,]+) of ([\d,]+) scores \(.*\) are the offline ones bit for bit"
DEGRADED = r"^degraded +([\d,]+) answers \(.*\), now ([\d,]+)"


@pytest.mark.parametrize("store", ["lmdb", "redis"])
def test_features_come_from_the_store(
    directory: Path, first: subprocess.CompletedProcess[str], store: str
) -> None:
    assert first.returncode == 0, first.stderr
    done = run(directory, *SIZE, "--seconds", "2", "--store", store)
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert re.search(r"^errors +none", out, re.MULTILINE), out
    degraded, _ = figures(out, DEGRADED)
    same, answered = figures(out, SAME)
    assert answered > 200
    if store == "lmdb":
        assert degraded == 0
        assert re.search(r"^features +online 100\.0%  batch 0\.0%", out, re.MULTILINE), out
    else:  # the reads have 5 ms, which a machine busy with other tests may not keep
        assert degraded <= answered // 10
    # What is served is what was trained on: the very same bits as offline.
    assert answered - degraded <= same <= answered
    tables = rf"^store +online {store} ok, batch customer ok, batch terminal ok"
    assert re.search(tables, out, re.MULTILINE), out


def test_without_a_store_the_requests_carry_everything(
    first: subprocess.CompletedProcess[str],
) -> None:
    same, answered = figures(first.stdout, SAME)
    [incomplete] = figures(first.stdout, r"sent incomplete: (\d+)")
    # A request without the terminal's features may have the same score by chance.
    assert answered - incomplete <= same < answered


def test_a_killed_redis_degrades_answers_and_comes_back(background: Start) -> None:
    demo = background("--store", "redis")
    [line] = [line for line in demo.lines if line.startswith("Online tables: redis-server")]
    found = re.search(r"unix:(\S+), process (\d+)$", line.strip())
    assert found is not None, line
    assert Path(found[1]).is_socket()
    os.kill(int(found[2]), signal.SIGKILL)
    demo.until(r"redis-server has ended \(SIGKILL\)")
    demo.until(r"degraded [1-9]\d* \(now [1-9]\d*\).* errors 0$")
    again = demo.until(r"redis-server runs as process (\d+), restarted once")
    demo.until(r"degraded \d+ \(now 0\)")
    demo.until(r"degraded \d+ \(now 0\).* errors 0$")
    out = demo.end()
    assert re.search(r"^errors +none", out, re.MULTILINE), out
    # How many are degraded at the very end is the machine's doing: that none was is seen above.
    degraded, _ = figures(out, DEGRADED)
    assert degraded > 0
    # While Redis was gone, features came from the batch tables; the pipeline has caught up.
    assert re.search(r"^features +online \S+  batch (?!0\.0%)\S+", out, re.MULTILINE), out
    assert re.search(r"^pipeline +[\d,]+ records written, 0 wait *$", out, re.MULTILINE), out
    assert not is_alive(int(again[1]))


def test_redis_that_is_not_installed(
    directory: Path, first: subprocess.CompletedProcess[str]
) -> None:
    assert first.returncode == 0, first.stderr
    done = run(directory, *SIZE, "--seconds", "1", "--store", "redis", PATH="/nowhere")
    assert done.returncode == 1
    assert "the demo needs redis-server for --store redis" in done.stderr
    assert "apt-get install redis-server" in done.stderr
    assert "Traceback" not in done.stderr


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
    directory: Path, background: Start, number: signal.Signals
) -> None:
    process = background().process
    addresses = ready(directory)
    assert listens(addresses["fast"])
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert re.search(r"^errors +none", out, re.MULTILINE), out
    for door in ("fast", "control", "sidecar"):
        assert not listens(addresses[door])


def test_a_server_that_dies_is_told_with_its_log(directory: Path, background: Start) -> None:
    process = background().process
    os.kill(int(ready(directory)["pid"]), signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "the server ended by itself (signal SIGKILL)" in err
    assert "server.log" in err
    assert "  | " in err
    assert "Traceback" not in err


def test_children_do_not_outlive_a_killed_demo(directory: Path, background: Start) -> None:
    demo = background("--store", "redis")
    fast = ready(directory)["fast"]
    [redis] = re.findall(r"Online tables: .*process (\d+)", "".join(demo.lines))
    demo.process.kill()
    demo.process.wait()
    limit = time.monotonic() + LIMIT_S
    while (listens(fast) or is_alive(int(redis))) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not listens(fast)
    assert not is_alive(int(redis))


def test_a_second_demo_in_the_same_directory(directory: Path, background: Start) -> None:
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
