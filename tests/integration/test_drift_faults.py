"""Drift when things go wrong in a real server: whatever happens to it, calls are answered right.

Calls come from the compiled generator, and each raw score is compared, bit for bit, with what
stock onnxruntime makes of the row.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest

from bench.generator import Generator, Limits, Schedule
from bench.message import Message
from bench.random_forests import stock_scores
from server.bundle.arrays import encode_arrays
from server.drift import MonitoredFeature
from server.export.reference import build_reference
from server.pb.scoregate.v1 import control_pb2, scoring_pb2
from tests.support import prometheus
from tests.support.clients import SCORE, control
from tests.support.serving import (
    FEATURES,
    MODEL,
    ROOT,
    Serving,
    copy_repository,
    example_repository,
    example_rows,
)

WAIT_S = 30.0
POISON = 666_666.0
PATIENT = Limits(max_lag_p99_ms=1e6, max_late_share=1, max_busy_share=1, max_stall_ms=1e6)
SETTINGS = {
    "models": [f"{MODEL}@1"],
    "drift.min_span_s": 0,
    "drift.interval_s": 0.1,
    "drift.drain_s": 0.05,
    "drift.window_rows": 1000,
    "drift.rows_per_s": 1e6,
    "drift.ring_bytes": 16 << 20,
}


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


def usual(n_rows: int, seed: int = 1) -> pd.DataFrame:
    """Rows like those of the validation."""
    return example_rows(n_rows, seed)[0].astype(np.float32)


def messages(rows: pd.DataFrame, event_time_ms: int = 0, version: str = "1") -> list[Message]:
    """Return a request of each row, with its score where it can be told to the bit."""
    values = rows.to_numpy(np.float32)
    graph = (example_repository().path / MODEL / version / "model.onnx").read_bytes()
    scores = stock_scores(graph, values)
    found = []
    for row, score in zip(values.tolist(), scores.tolist(), strict=True):
        request = scoring_pb2.ScoreRequest(event_time_ms=event_time_ms)
        for name, value in zip(FEATURES, row, strict=True):
            request.named.values[name].number = value
        expected = score if version == "1" else None  # the other's sum is in doubles
        found.append(Message(SCORE, request.SerializeToString(), expected_raw=expected))
    return found


class Watched:
    """A server whose drift is watched, and what it says of a version."""

    def __init__(self, server: Serving) -> None:
        self.server = server
        self._channel = grpc.insecure_channel(server.control)
        self.control = control(self._channel)

    def close(self) -> None:
        self._channel.close()

    def report(self, version: str = "1") -> control_pb2.DriftReport:
        """Return what is known of a version; a state of "" where it is not watched at all."""
        answer = self.control.GetDrift(control_pb2.GetDriftRequest(), timeout=10)
        found = [one for one in answer.reports if one.version == version]
        return found[0] if found else control_pb2.DriftReport()

    def is_watched(self, version: str = "1") -> bool:
        return self.report(version).state not in ("", "unwatched")

    def n_rows(self, version: str = "1") -> int:
        """Rows in the slow window."""
        return self.report(version).slow.n_rows

    def n(self, result: str, version: str = "1") -> float:
        """Evaluations so far."""
        return self.server.metric(
            "ml_drift_evaluations_total", model=MODEL, model_version=version, result=result
        )

    def send(self, made: list[Message], *, is_counted: bool = True) -> None:
        """Send requests; every one has to be answered, and right. Then all are in the windows."""
        before = self.server.metric("ml_drift_samples_total")
        assert self.server.metric("ml_drift_samples_dropped_total") == 0
        result = Generator(
            self.server.fast, made, n_connections=1, n_streams=8, timeout_s=10, limits=PATIENT
        ).run_closed(n_calls=len(made))
        assert (result.n_answered, result.n_errors, result.n_wrong) == (len(made), 0, 0)
        if is_counted:
            until(lambda: self.server.metric("ml_drift_samples_total") == before + len(made))


def begin(server: Serving, version: str = "1") -> Watched:
    """Return what watches a server, once a version is watched."""
    watched = Watched(server)
    until(lambda: watched.is_watched(version))
    return watched


# -------------------------------------------------------------------- monitors

POISONED = f"""
import server.drift.monitor

real = server.drift.monitor.Monitor.observe

def observe(self, rows, *others):
    if (rows[:, 0] == {POISON}).any():
        raise RuntimeError("a row it cannot bear")
    return real(self, rows, *others)

server.drift.monitor.Monitor.observe = observe
"""


def test_a_monitor_that_throws_is_counted_and_begins_anew_and_calls_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python runs a module of this name at its start: the server's own code knows of nothing.
    (tmp_path / "sitecustomize.py").write_text(POISONED)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    server = Serving(settings=SETTINGS)
    try:
        watched = begin(server)
        watched.send(messages(usual(800)))
        until(lambda: watched.report().state == "stable")
        poison = usual(3)
        poison.loc[1, "amount"] = POISON
        for n_failed in (1, 2, 3):
            watched.send(messages(poison))
            until(lambda n=n_failed: watched.n("failed") == n)  # type: ignore[misc]
            until(watched.is_watched)  # again; a third failure in a row costs a rest
        rest = watched.report()
        assert rest.slow.n_rows < 800
        watched.send(messages(usual(900, seed=2)))
        until(lambda: watched.n_rows() == 900)
        until(lambda: watched.report().state == "stable")
        assert watched.n("failed") == 3
        watched.close()
    finally:
        code = server.end()
    assert code == 0
    log = server.stderr()
    assert log.count("RuntimeError: a row it cannot bear") == 3
    assert log.count(f"the drift monitor of {MODEL} 1 failed, and begins anew") == 3


# -------------------------------------------------------------------- scrapes


def test_prometheus_ten_times_a_second_beside_load(monkeypatch: pytest.MonkeyPatch) -> None:
    prometheus.needs_prometheus()
    monkeypatch.setattr(prometheus, "INTERVAL", "100ms")
    with Serving(settings=SETTINGS) as server, prometheus.Prometheus(server.sidecar) as scraper:
        watched = begin(server)
        until(lambda: bool(scraper.query("up == 1")))
        made = messages(usual(2000))
        generator = Generator(
            server.fast, made, n_connections=2, n_streams=64, timeout_s=10, limits=PATIENT
        )
        result = generator.run_open(Schedule.constant(2000).times_ns(4.0))
        assert result.n_answered == result.n_scheduled == 8000
        assert (result.n_errors, result.n_wrong) == (0, 0)
        assert result.n_checked == result.n_answered
        [row] = scraper.query("sum_over_time(up[10s])")
        assert float(row["value"][1]) >= 10
        until(lambda: bool(scraper.query(f"sum(ml_predictions_total) == {result.n_answered}")))
        seen = "sum(ml_drift_samples_total + ml_drift_samples_dropped_total)"
        until(lambda: bool(scraper.query(f"{seen} == {result.n_answered}")))
        until(lambda: watched.report().state == "stable")
        assert watched.n("failed") == 0
        watched.close()


# ---------------------------------------------------------------------- clocks


def test_event_times_from_anywhere_break_nothing() -> None:
    year_ms = 365 * 86_400_000
    now_ms = time.time_ns() // 1_000_000
    moments = (now_ms + 10 * year_ms, now_ms - 3 * year_ms, 2**63 - 1, -(2**63), 1, 0, now_ms)
    with Serving(settings=SETTINGS) as server:
        watched = begin(server)
        for i, moment in enumerate(moments):
            watched.send(messages(usual(700, seed=i), moment))
            n_before = watched.n("ok")
            until(lambda n=n_before: watched.n("ok") > n + 1)  # type: ignore[misc]
            report = watched.report()
            assert report.state == "stable", (moment, list(report.reasons))
            for window in (report.fast, report.slow):
                assert 0 <= window.span_s < 120, moment
                assert window.n_rows >= 700, moment
        assert watched.n("failed") == 0
        watched.close()


# -------------------------------------------------------------------- restarts


def test_a_restart_in_mid_window_loses_what_was_not_kept_at_most(tmp_path: Path) -> None:
    settings = {**SETTINGS, "rollout.journal": str(tmp_path / "journal.db")}
    with Serving(settings=settings) as server:
        watched = begin(server)
        watched.send(messages(usual(800)))
        watched.close()
    [kept] = (tmp_path / "drift").rglob("*.drift")
    content = kept.read_bytes()
    killed = Serving(settings=settings)
    watched = begin(killed)
    until(lambda: watched.n_rows() == 800)
    watched.send(messages(usual(300, seed=2)))
    until(lambda: watched.n_rows() == 1100)
    watched.close()
    killed.signal(signal.SIGKILL)
    killed.end()
    assert kept.read_bytes() == content
    with Serving(settings=settings) as server:
        watched = begin(server)
        until(lambda: watched.n_rows() == 800)
        watched.send(messages(usual(50, seed=3)))
        until(lambda: watched.n_rows() == 850)
        watched.close()
    with Serving(settings=settings) as server:
        watched = begin(server)
        until(lambda: watched.n_rows() == 850)
        watched.close()
    assert [path.name for path in (tmp_path / "drift").rglob("*.*")] == [kept.name]


# Forks a child for each call that changes a file, and ends it there.
KILLED_WRITES = textwrap.dedent(
    """
    import ctypes, os, sys
    from pathlib import Path
    from server.files import write_whole

    path, before, after = Path(sys.argv[1]), b"before" * 50_000, b"after" * 80_000
    seen = []
    for call in range(1, 50):
        write_whole(path, before)
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).disk_faults_arm(1, ctypes.c_long(call), ctypes.c_long(0))
            write_whole(path, after)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        found = path.read_bytes()
        assert found in (before, after), (call, len(found))
        seen.append(found == after)
        if status == 0:
            break
        assert os.WTERMSIG(status) == 9, status
    assert seen == [False, False, False, True], seen  # in the write, the sync, the rename; never
    """
)


def test_a_kill_while_windows_are_written_leaves_the_old_ones_or_the_new(tmp_path: Path) -> None:
    library = tmp_path / "disk_faults.so"
    source = ROOT / "tests" / "support" / "disk_faults.c"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WRITES, str(tmp_path / "windows.drift")],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------ references


def replace_reference(bundle: Path, arrays: Mapping[str, Any]) -> None:
    """Give a bundle another reference; its manifest says so."""
    data = encode_arrays(dict(arrays))
    (bundle / "reference.npz").write_bytes(data)
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["files"]["reference.npz"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    path.write_text(json.dumps(manifest), "utf-8")


def foreign_reference() -> dict[str, Any]:
    names = ("amount", "height", "weight")
    rows = np.random.default_rng(3).random((2000, 3), np.float32)
    features = tuple(MonitoredFeature(name=name) for name in names)
    return build_reference(rows, rows[:, 0].copy(), features)


def test_a_reference_of_another_schema_leaves_its_version_unwatched_and_served(
    tmp_path: Path,
) -> None:
    repository = copy_repository(tmp_path / "repository")
    replace_reference(repository / MODEL / "1", foreign_reference())
    with Serving(repository, SETTINGS) as server:
        watched = Watched(server)
        until(lambda: watched.report().state == "unwatched")
        trouble = watched.report().trouble
        assert "made for 3 features, the schema has 4: it belongs to another model" in trouble
        assert "export again" in trouble
        watched.send(messages(usual(500)), is_counted=False)
        assert server.metric("ml_drift_samples_total") == 0
        # Another version is watched beside it.
        watched.control.Deploy(
            control_pb2.DeployRequest(version="2", traffic_basis_points=10_000), timeout=30
        )
        until(lambda: watched.is_watched("2"))
        watched.send(messages(usual(700), version="2"))
        until(lambda: watched.report("2").state == "stable")
        assert watched.report().state == "unwatched"
        watched.close()
        assert server.stderr().count(f"drift of {MODEL} 1 is not watched") == 1


# ------------------------------------------------------------------- rollbacks


def swap_to_2(watched: Watched) -> None:
    """Let version 2 take the place of 1."""
    watched.control.Deploy(
        control_pb2.DeployRequest(version="2", traffic_basis_points=0), timeout=30
    )
    watched.control.Promote(control_pb2.PromoteRequest(arm="2"), timeout=30)
    until(lambda: watched.is_watched("2") and not watched.is_watched("1"))


def swap_back(watched: Watched) -> None:
    """Roll both changes back."""
    for _ in range(2):
        watched.control.Rollback(control_pb2.RollbackRequest(), timeout=30)
    until(lambda: watched.is_watched("1") and not watched.is_watched("2"))


def test_a_version_that_comes_back_by_rollback_goes_on_with_its_windows(tmp_path: Path) -> None:
    settings = {**SETTINGS, "rollout.journal": str(tmp_path / "journal.db"), "drift.drain_s": 0.5}
    with Serving(settings=settings) as server:
        watched = begin(server)
        made = messages(usual(900))
        watched.send(made, is_counted=False)
        swap_to_2(watched)  # before all of it was looked at
        watched.send(messages(usual(700, seed=2), version="2"))
        until(lambda: watched.n_rows("2") == 700)
        swap_back(watched)
        until(lambda: watched.n_rows() == 900)
        watched.send(messages(usual(10, seed=3)))
        until(lambda: watched.n_rows() == 910)
        assert watched.report().state == "stable"
        watched.close()


# ----------------------------------------------------------------------- disks


def test_windows_that_cannot_be_kept_are_told_once_and_cost_nothing_else(tmp_path: Path) -> None:
    # Root may write into any directory; nobody can make one where a file is.
    (tmp_path / "drift").write_text("in the way")
    settings = {**SETTINGS, "rollout.journal": str(tmp_path / "journal.db")}
    with Serving(settings=settings) as server:
        watched = begin(server)
        watched.send(messages(usual(800)))
        until(lambda: watched.n_rows() == 800)
        swap_to_2(watched)
        swap_back(watched)
        assert watched.n_rows() == 0
        watched.send(messages(usual(700, seed=2)))
        until(lambda: watched.report().state == "stable")
        assert watched.n("failed") == 0
        watched.close()
        assert server.end() == 0
        assert server.stderr().count("drift windows cannot be kept in") == 1
