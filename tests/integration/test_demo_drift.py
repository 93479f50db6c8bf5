"""`scoregate demo --drift`: a real Prometheus sees the drift, and nothing where there is none.

Both runs are the whole demo on little data, one after the other in one directory: the second takes
what the first has made, lasts as long as the first took to say everything, and says nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.prometheus import Prometheus, needs_prometheus
from tests.support.serving import ROOT

SIZE = ("--customers", "1200", "--terminals", "2400", "--rate", "400")
AFTER_S = 9
LIMIT_S = 120.0
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("SCOREG", "DEMO_"))}
PATIENCE = "2s"  # instead of quarters of hours
ALERTS = '{alertname=~"ScoregateModel.*|ScoregatePipelineBroken"}'


class Demo:
    """A demo that runs, from ready on."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._ready = directory / "ready.json"
        self._ready.unlink(missing_ok=True)
        self._out = directory / "out"
        command = [sys.executable, "-m", "server", "demo", "--directory", str(directory)]
        with self._out.open("w", encoding="utf-8") as out:
            self._process = subprocess.Popen(
                [*command, "--free-ports", *SIZE, *arguments],
                cwd=ROOT, env=ENV, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        try:
            self.until(self._ready.exists)
        except BaseException:
            self.kill()
            raise
        self.addresses: dict[str, str] = json.loads(self._ready.read_text())["addresses"]

    def printed(self) -> str:
        return self._out.read_text(encoding="utf-8")

    def until(self, probe: Callable[[], object]) -> None:
        """Wait for something; fail with what was printed, where the demo ends before."""
        limit = time.monotonic() + LIMIT_S
        while not probe():
            assert self._process.poll() is None, self.printed()
            assert time.monotonic() < limit, self.printed()
            time.sleep(0.1)

    def wait(self) -> str:
        """Return what it has printed when it has ended by itself."""
        assert self._process.wait(LIMIT_S) == 0, self.printed()
        return self.printed()

    def end(self) -> str:
        self._process.terminate()
        return self.wait()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()  # it ends its children; killed, it leaves that to the kernel
            try:
                self._process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


Start = Callable[..., Demo]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Demo] = []

    def begin(*arguments: str) -> Demo:
        started.append(Demo(tmp_path, *arguments))
        return started[-1]

    yield begin
    for demo in started:
        demo.kill()


def report(demo: Demo) -> str:
    """Return what `scoregate drift report` prints, typed as the demo says."""
    [typed] = re.findall(r"^ +scoregate (drift report.*)$", demo.printed(), re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "server", *typed.split()],
        cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def elapsed_s(out: str) -> float:
    """Return how long the demo has replayed."""
    return max(float(found) for found in re.findall(r"^ +([\d.]+) s  \d+ calls/s", out, re.M))


def states_told(out: str) -> list[str]:
    """Return the states that the demo has told as they came."""
    return re.findall(r"^ +[\d.]+ s  drift of 1\.0: (?:\w+ -> )?(\w+)", out, re.MULTILINE)


def one(prometheus: Prometheus, expression: str) -> float:
    """Return the only value of an expression."""
    [row] = prometheus.query(expression)
    return float(row["value"][1])


def test_drift_is_seen_and_its_absence_is_not(start: Start) -> None:
    needs_prometheus()
    lasted_s = cents_are_seen(start)
    calm_is_calm(start, lasted_s)


def cents_are_seen(start: Start) -> float:
    """Check a demo whose amounts come in cents; return how long it took."""
    demo = start("--drift", "amount", "--drift-after", str(AFTER_S), "--prometheus")
    with Prometheus(demo.addresses["sidecar"], patience=PATIENCE) as prometheus:

        def fires(alert: str) -> bool:
            found = f'ALERTS{{alertname="{alert}", alertstate="firing", model_version="1.0"}}'
            return bool(prometheus.query(found))

        demo.until(lambda: fires("ScoregateModelDrift"))
        demo.until(lambda: fires("ScoregateModelRetrain"))
        demo.until(lambda: prometheus.query('ml_drift_state{state="retrain"} == 1'))
        demo.until(lambda: prometheus.query("ml_data_drift_score > 0.9"))
        [top] = prometheus.query("topk(1, ml_feature_drift_score)")
        assert top["metric"]["feature"] == "TX_AMOUNT"
        assert not prometheus.query('ml_feature_drift_score{feature!="TX_AMOUNT"} > 0.1')
        assert one(prometheus, 'max_over_time(ml_drift_state{state="stable"}[10m])') == 1
    printed = report(demo)
    assert "retrain" in printed.splitlines()[0]
    [first, *_] = re.findall(r"^ +([A-Z][A-Z_\d]+) +\d\.\d+ +(?:KS|JS)", printed, re.MULTILINE)
    assert first == "TX_AMOUNT"
    # The demo's own Prometheus, whose rules are not quite so impatient.
    demo.until(lambda: "alert ScoregateModelDrift is firing" in demo.printed())
    out = demo.end()
    before, after = out.split("from now on, amounts come in cents")
    assert states_told(before)[-1] == "stable", out
    assert states_told(after)[0] == "warning", out
    assert states_told(after)[-1] == "retrain", out
    assert re.search(r"^injected +amounts come in cents .*, since 9\.0 s", out, re.MULTILINE), out
    assert re.search(r"^drift of 1\.0 +retrain, score .*: TX_AMOUNT 0\.9", out, re.MULTILINE), out
    assert re.search(r"^errors +none", out, re.MULTILINE), out
    # Calls from before the fault have the very bits of the offline scores.
    same = r"^ +([\d,]+) of ([\d,]+) scores \(100\.0%\) are .* before the fault"
    found = re.search(same, out, re.MULTILINE)
    assert found is not None, out
    assert found[1] == found[2]
    return elapsed_s(out)


def calm_is_calm(start: Start, lasted_s: float) -> None:
    """Check a demo in which nothing goes wrong, and that lasts as long."""
    # Without a store: one that stalls under load would be a fault indeed, only not ours.
    demo = start("--drift", "none", "--store", "none", "--seconds", str(lasted_s))
    with Prometheus(demo.addresses["sidecar"], patience=PATIENCE) as prometheus:
        out = demo.wait()
        assert prometheus.query(f"count_over_time(ALERTS{ALERTS}[10m])") == []
        # It did look, for as long as the other one.
        assert one(prometheus, "count_over_time(job:ml_data_drift_score:max[10m])") > lasted_s / 2
        assert one(prometheus, "max_over_time(ml_data_drift_score[10m])") < 0.1
        assert one(prometheus, 'max_over_time(ml_drift_state{state="stable"}[10m])') == 1
        states = prometheus.query('max_over_time(ml_drift_state{state!~"warming|stable"}[10m])')
        assert {row["value"][1] for row in states} == {"0"}
    assert "earlier run" in out
    assert re.search(r"^injected +nothing *$", out, re.MULTILINE), out
    assert re.search(r"^drift of 1\.0 +stable, score 0\.0\d", out, re.MULTILINE), out
    assert states_told(out)[-1] == "stable"
    assert "alert " not in out
