"""A real server process for tests: small bundles, free ports, ended with the test.

    with Serving(repository) as server:
        channel = grpc.insecure_channel(server.fast)

`example_repository()` exports two versions of one small model, once per test session. Whoever
changes a repository takes a copy (`copy_repository`).
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from server.export import ExportOptions, FeatureOptions, export_model

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
STOP_S = 30.0

MODEL = "fraud"
FEATURES = ("amount", "night", "n_day", "risk")


class Example(NamedTuple):
    """What `example_repository` made: version "1" is boosted trees, "2" linear."""

    path: Path
    models: dict[str, Any]  # version -> the scikit-learn model
    rows: pd.DataFrame  # validation rows, never trained on


def example_rows(n_rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Return transactions with the columns of FEATURES, and whether each is fraud."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "amount": rng.gamma(2.0, 40.0, n_rows),
            "night": rng.random(n_rows) < 0.2,
            "n_day": rng.poisson(3.0, n_rows).astype(np.float64),
            "risk": rng.random(n_rows),
        }
    )
    odds = 0.02 * rows["amount"] + 1.5 * rows["night"] + 4.0 * rows["risk"] - 6.0
    return rows, (rng.random(n_rows) < 1 / (1 + np.exp(-odds))).to_numpy()


@functools.cache
def example_repository() -> Example:
    """Export the example models; the folder is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="scoregate-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    train, target = example_rows(2000, 1)
    valid, valid_target = example_rows(800, 2)
    options = ExportOptions(
        thresholds={"review": 0.3, "decline": 0.8},
        routing_entity="customer",
        features={
            "amount": FeatureOptions(required=True, minimum=0.0, maximum=1e6),
            "n_day": FeatureOptions(default=1.0),
        },
    )
    models = {
        "1": GradientBoostingClassifier(n_estimators=20, max_depth=3, random_state=0),
        "2": LogisticRegression(max_iter=2000),
    }
    for version, model in models.items():
        model.fit(train, target)
        out = folder / MODEL / version
        export_model(model, train, target, valid, valid_target, out=out, options=options)
    return Example(folder, models, valid)


def copy_repository(target: Path) -> Path:
    """Copy the example repository, for tests that damage it."""
    ignored = shutil.ignore_patterns(".*")  # journals of servers that ran there
    return Path(shutil.copytree(example_repository().path, target, ignore=ignored))


def write_config(path: Path, repository: Path, settings: Mapping[str, Any]) -> Path:
    """Write a settings file with free ports; `settings` maps "fast.loops" to a value."""
    values: dict[str, Any] = {
        "repository": str(repository),
        "fast.port": 0,
        "control.port": 0,
        "sidecar.port": 0,
        **settings,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def serve_command(*args: str) -> list[str]:
    """Return the command line of a server."""
    return [sys.executable, "-m", "server", "serve", *args]


class Serving:
    """A server process, from ready to its end.

    Parameters
    ----------
    repository
        What it serves; by default the example.
    settings
        Path of a setting -> value, on top of free ports.
    """

    def __init__(
        self, repository: Path | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="scoregate-serve-"))
        self._ready_file = self.folder / "ready.json"
        config = write_config(
            self.folder / "serve.toml",
            repository or example_repository().path,
            {
                "ready_file": str(self._ready_file),
                # Several servers of one repository may run at the same time.
                "rollout.journal": str(self.folder / "journal.db"),
                **(settings or {}),
            },
        )
        self._stdout = (self.folder / "stdout").open("wb")
        self._stderr = (self.folder / "stderr").open("wb")
        self.process = subprocess.Popen(
            serve_command("--config", str(config)),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
            env={key: value for key, value in os.environ.items() if not key.startswith("SCOREG")},
        )
        try:
            self.ready = self._wait_ready()
        except BaseException:
            self.end()
            raise
        addresses = self.ready["addresses"]
        self.fast: str = addresses["fast"]
        self.control: str = addresses["control"]
        self.sidecar: str = addresses["sidecar"]

    def _wait_ready(self) -> dict[str, Any]:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self._ready_file.exists():
                document: dict[str, Any] = json.loads(self._ready_file.read_text("utf-8"))
                return document
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"the server is not ready: {self.stderr()}")

    def stdout(self) -> str:
        """Return what the server has printed: once it says so, that it is up, and where."""
        until = time.monotonic() + START_S
        # The file that says "ready" is written first.
        while not (text := (self.folder / "stdout").read_text("utf-8")):
            assert time.monotonic() < until, "the server prints nothing"
            time.sleep(0.01)
        return text

    def stderr(self) -> str:
        """Return what the server has logged."""
        return (self.folder / "stderr").read_text("utf-8")

    def http(self, path: str, **headers: str) -> tuple[int, str]:
        """Get a page of the sidecar: its status and text."""
        request = urllib.request.Request(f"http://{self.sidecar}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of one series; the labels have to match whole."""
        from prometheus_client.parser import text_string_to_metric_families

        for family in text_string_to_metric_families(self.http("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        raise AssertionError(f"no series {name}{labels}")

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(STOP_S)

    def end(self) -> int:
        """End the server, gently if it can; return its exit code."""
        if self.process.poll() is None:
            self.signal()
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._stdout.close()
        self._stderr.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        code = self.end()
        text = self.stderr()
        shutil.rmtree(self.folder, ignore_errors=True)
        if error is None:
            assert code == 0, f"the server ended with {code}: {text}"
            assert "Traceback" not in text, text


def run_serve(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `scoregate serve` where it has to fail; return its output."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SCOREG")}
    return subprocess.run(
        serve_command(*args),
        cwd=ROOT,
        env={**clean, "SCOREGATE_ROLLOUT_JOURNAL": "none", **env},
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
