"""From another terminal, a running demo is driven through a rollout and back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.rollout.opening import JOURNAL

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120.0
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("SCOREG", "DEMO_"))}


class Demo:
    """A demo that runs without an end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ready = directory / "ready.json"
        self._ready.unlink(missing_ok=True)
        arguments = ["demo", "--directory", str(directory), "--free-ports", "--rate", "300"]
        arguments += ["--customers", "150", "--terminals", "400"]
        self._out = (directory / "out").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "server", *arguments],
            cwd=ROOT,
            env=ENV,
            stdout=self._out,
            stderr=subprocess.STDOUT,
        )
        try:
            # A line of the summary: the replay runs, and pays no longer for its start.
            self.wait(lambda: " calls/s " in self.printed())
        except BaseException:
            self._process.kill()
            raise
        self.addresses: dict[str, str] = json.loads(self._ready.read_text())["addresses"]

    def printed(self) -> str:
        return (self.directory / "out").read_text(encoding="utf-8")

    def wait(self, probe: Callable[[], bool]) -> None:
        limit = time.monotonic() + LIMIT_S
        while not probe():
            assert self._process.poll() is None, self.printed()
            assert time.monotonic() < limit, self.printed()
            time.sleep(0.05)

    def scoregate(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "server", *arguments, "--address", self.addresses["control"]],
            cwd=ROOT,
            env=ENV,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def arms(self) -> dict[str, tuple[str, int]]:
        """Return arm -> (version, basis points), as status tells."""
        found = json.loads(self.scoregate("status", "--json"))
        return {arm["arm"]: (arm["version"], arm["weight_basis_points"]) for arm in found["models"]}

    def series(self, name: str, label: str) -> dict[str, float]:
        """Return a metric of the sidecar by one of its labels."""
        with urllib.request.urlopen(f"http://{self.addresses['sidecar']}/metrics") as page:
            text = page.read().decode()
        return {
            sample.labels[label]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    def calls(self) -> dict[str, float]:
        """Return predictions by version."""
        return self.series("ml_predictions_total", "model_version")

    def both_answer(self) -> None:
        """Wait until either version has answered once more."""
        before = self.calls()
        self.wait(lambda: all(n > before[version] for version, n in self.calls().items()))

    def only(self, version: str) -> None:
        """Check that, of the next hundred calls, none goes to another version."""
        before = self.calls()
        self.wait(lambda: self.calls()[version] >= before[version] + 100)
        others = {other: n for other, n in self.calls().items() if other != version}
        assert others == {other: n for other, n in before.items() if other != version}

    def end(self) -> str:
        self._process.terminate()
        code = self._process.wait(LIMIT_S)
        self._out.close()
        assert code == 0, self.printed()
        return self.printed()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._out.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Demo]]:
    started: list[Demo] = []

    def begin() -> Demo:
        started.append(Demo(tmp_path))
        return started[-1]

    yield begin
    for demo in started:
        demo.kill()


def journal(demo: Demo) -> list[dict[str, Any]]:
    """Return the demo's journal, exported beside its running server."""
    path = demo.directory / "repository" / JOURNAL
    done = subprocess.run(
        [sys.executable, "-m", "server", "journal", "export", str(path)],
        cwd=ROOT, env=ENV, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_deployed_raised_promoted_rolled_back(start: Callable[[], Demo]) -> None:
    demo = start()
    [how] = re.findall(r"Version 2\.0 waits .*: scoregate (.*)", demo.printed())
    assert demo.arms() == {"champion": ("1.0", 10_000)}
    first = json.loads(demo.scoregate("status", "--json"))["plan_generation"]

    demo.scoregate(*how.split())  # as printed
    assert demo.arms() == {"champion": ("1.0", 9_000), "canary": ("2.0", 1_000)}
    demo.both_answer()
    assert demo.series("ml_arm_weight", "arm") == {"champion": 0.9, "canary": 0.1}

    demo.scoregate("traffic", "set", "champion=50", "canary=50")
    assert demo.arms() == {"champion": ("1.0", 5_000), "canary": ("2.0", 5_000)}
    demo.both_answer()

    demo.scoregate("promote")
    assert demo.arms() == {"champion": ("2.0", 10_000)}
    demo.only("2.0")

    demo.scoregate("rollback", "--to", first, "--why", "worse")
    assert demo.arms() == {"champion": ("1.0", 10_000)}
    demo.only("1.0")

    entries = [entry for entry in journal(demo) if entry["verb"] != "features"]
    assert [entry["verb"] for entry in entries] == [
        *("start", "deploy", "traffic", "promote", "rollback")
    ]
    assert entries[-1]["why"] == "worse"
    shares = [
        [
            (arm["version"], arm["weight_basis_points"])
            for arm in entry["state"]["models"][0]["arms"]
        ]
        for entry in entries
    ]
    assert shares == [
        [("1.0", 10_000)],
        [("1.0", 9_000), ("2.0", 1_000)],
        [("1.0", 5_000), ("2.0", 5_000)],
        [("2.0", 10_000)],
        [("1.0", 10_000)],
    ]
    assert entries[0]["state"]["models"] == entries[-1]["state"]["models"]  # the table too

    demo.scoregate("deploy", "2.0", "--traffic", "20")
    out = demo.end()
    assert re.search(r"^errors +none", out, re.MULTILINE), out
    for version, arms in (("1.0", "champion"), ("2.0", "canary, champion")):
        assert re.search(rf"^version {version} +[\d,]+ calls \(.*\) as {arms};", out, re.MULTILINE)
    # Either version's answers are its own offline scores.
    found = re.search(
        r"^ +([\d,]+) of ([\d,]+) scores \(100\.0%\) are the offline", out, re.MULTILINE
    )
    assert found is not None, out
    assert found[1] == found[2]

    # A demo that is started again serves what it served last.
    again = start()
    assert "earlier run" in again.printed()
    assert again.arms() == {"champion": ("1.0", 8_000), "canary": ("2.0", 2_000)}
    again.end()
