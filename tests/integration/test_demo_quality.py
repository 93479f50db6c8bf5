"""The demo reports outcomes late and in part, and the server finds out how good its model is.

The whole demo on little data; what `scoregate quality` and the console of it show is held against
what the simulator knows.
"""

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
from typing import Any, NamedTuple

import pytest

from tests.support.serving import ROOT

SIZE = ("--customers", "1200", "--terminals", "2400", "--rate", "400", "--store", "none")
LIMIT_S = 120.0
ENOUGH = 6_000  # decisions that are old enough: 15 s of calls
WITHIN = 0.05
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("SCOREG", "DEMO_"))}
FIGURE = re.compile(
    r"(AUC|average precision|recall from review|precision from review) (\d\.\d+)"
    r"(?: \[(\d\.\d+), (\d\.\d+)\])? \(truth (\d\.\d+)\)"
)


class Demo:
    """A demo that runs until it is ended."""

    def __init__(self, directory: Path) -> None:
        self._out = directory / "out"
        command = [sys.executable, "-m", "server", "demo", "--directory", str(directory)]
        with self._out.open("w", encoding="utf-8") as out:
            self.process = subprocess.Popen(
                [*command, "--free-ports", *SIZE],
                cwd=ROOT, env=ENV, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    def printed(self) -> str:
        return self._out.read_text(encoding="utf-8")

    def until(self, probe: Callable[[], object]) -> None:
        """Wait for something; fail with what was printed, where the demo ends before."""
        limit = time.monotonic() + LIMIT_S
        while not probe():
            assert self.process.poll() is None, self.printed()
            assert time.monotonic() < limit, self.printed()
            time.sleep(0.2)

    def typed(self, begin: str, *more: str) -> str:
        """Run a command as the demo says it is typed; return what it prints."""
        [line] = re.findall(rf"^ +scoregate ({begin}.*?)$", self.printed(), re.MULTILINE)
        done = subprocess.run(
            [sys.executable, "-m", "server", *line.split(), *more],
            cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self) -> str:
        self.process.terminate()
        assert self.process.wait(LIMIT_S) == 0, self.printed()
        return self.printed()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


class Figure(NamedTuple):
    """What was learnt, and the truth."""

    value: float
    low: float
    high: float
    truth: float

    @property
    def is_near(self) -> bool:
        return self.low <= self.truth <= self.high or abs(self.value - self.truth) <= WITHIN


def figures(out: str) -> dict[str, Figure]:
    """Return the figures of the last table."""
    found = {}
    for name, value, low, high, truth in FIGURE.findall(out):
        found[name] = Figure(float(value), float(low or 2), float(high or -1), float(truth))
    return found


def test_quality_approaches_the_truth(demo: Demo) -> None:
    demo.until(lambda: "learnt of 1.0: recall" in demo.printed())

    def n_matured() -> int:
        found: dict[str, Any] = json.loads(demo.typed("quality", "--json"))
        return max(int(r["n_decisions"]) for r in found["reports"] if r["cohort"] == "matured")

    demo.until(lambda: n_matured() >= ENOUGH)
    [console] = re.findall(r"(http://\S+/console)$", demo.printed(), re.MULTILINE)
    with urllib.request.urlopen(console, timeout=10) as page:
        assert page.status == 200
    out = demo.end()
    assert re.search(r"^errors +none", out, re.MULTILINE), out
    found = figures(out)
    assert set(found) == {
        *("AUC", "average precision", "recall from review", "precision from review")
    }, out
    far = {name: figure for name, figure in found.items() if not figure.is_near}
    assert not far, out
    # Not the trivial ones, and with something to be unsure about.
    assert 0.6 < found["AUC"].truth < 1, out
    assert found["recall from review"].low < found["recall from review"].high, out
    counts = re.search(
        r"^outcomes +([\d,]+) reported, ([\d,]+) as fraud; (\d+) took back .*; ([\d,]+) to come",
        out,
        re.MULTILINE,
    )
    assert counts is not None, out
    reported, frauds, revised, waiting = (int(n.replace(",", "")) for n in counts.groups())
    assert reported > frauds > revised > 0
    assert waiting > 0
    [n, labels] = re.findall(r"of ([\d,]+) decisions as champion, ([\d,]+) with", out)[-1]
    # Most of what is known is silence that has become old enough.
    assert int(n.replace(",", "")) >= ENOUGH
    assert int(labels.replace(",", "")) < int(n.replace(",", "")) / 2
