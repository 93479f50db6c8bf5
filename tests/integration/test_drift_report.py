"""`scoregate drift report` against a server: it names the right feature, in words and plots."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from scipy import stats

from server.pb.scoregate.v1 import control_pb2 as pb
from tests.integration.test_drift_serving import SETTINGS, Traffic, until, usual
from tests.support.clients import control
from tests.support.control import refused
from tests.support.html import read_page
from tests.support.serving import (
    FEATURES,
    MODEL,
    ROOT,
    Serving,
    copy_repository,
    example_repository,
)


def cli(server: Serving, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "server",
            "drift",
            "report",
            *arguments,
            "--address",
            server.control,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Drifted(NamedTuple):
    """A server whose clients send amounts in cents, and what was sent."""

    server: Serving
    cents: np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def drifted() -> Iterator[Drifted]:
    with Serving(settings=SETTINGS) as server:
        traffic = Traffic(server)
        rows = usual(1000, 21)
        rows["amount"] *= 100.0
        traffic.send(rows)
        until(lambda: traffic.state() == "warning")
        # An evaluation of all of them.
        with grpc.insecure_channel(server.control) as channel:
            ask = control(channel).GetDrift
            until(lambda: ask(pb.GetDriftRequest()).reports[0].fast.n_rows == 1000)
        yield Drifted(server, rows["amount"].to_numpy(np.float32))


def report_of(server: Serving) -> pb.DriftReport:
    with grpc.insecure_channel(server.control) as channel:
        answer = control(channel).GetDrift(pb.GetDriftRequest(histograms=True))
    [found] = answer.reports
    assert isinstance(found, pb.DriftReport)
    return found


def test_the_report_names_the_right_feature_first(drifted: Drifted) -> None:
    done = cli(drifted.server)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{MODEL} 2: ▲ warning"
    assert "  score        0.9" in done.stdout
    assert "  - amount: KS distance 0.9" in done.stdout
    at = next(i for i, line in enumerate(lines) if line.split()[:2] == ["feature", "score"])
    table = [line.split() for line in lines[at + 2 : at + 7]]
    assert table[0][0] == "amount"
    assert {row[0] for row in table[:4]} == set(FEATURES)
    assert table[4][:2] == ["raw", "score"]
    # How it changed: the medians of what was validated on, and of what was sent.
    [before] = [line.split() for line in lines if line.split()[:1] == ["before"]]
    [now] = [line.split() for line in lines if line.split()[:1] == ["now"]]
    validated = np.sort(example_repository().rows["amount"].to_numpy(np.float32))
    assert float(before[4]) == pytest.approx(validated[len(validated) // 2 - 1], rel=1e-3)
    middle = np.sort(drifted.cents)[499]
    assert float(now[4].replace(",", "")) == pytest.approx(middle, rel=1e-3)


def test_p_values_are_scipys(drifted: Drifted) -> None:
    done = cli(drifted.server, "--json")
    [found] = json.loads(done.stdout)["reports"]
    features = {one["name"]: one for one in found["features"]}
    valid = example_repository().rows
    sent = usual(1000, 21)
    for name in ("amount", "n_day", "risk"):
        now = drifted.cents if name == "amount" else sent[name].to_numpy(np.float32)
        theirs = stats.ks_2samp(now, valid[name].to_numpy(np.float32), method="asymp")
        assert features[name]["distance"] == pytest.approx(theirs.statistic, abs=1e-9)
        assert features[name]["p_value"] == pytest.approx(theirs.pvalue, abs=1e-9)
    assert 0.01 < features["risk"]["p_value"] <= 1
    assert features["amount"]["p_value"] < 1e-100


def test_the_page_holds_everything_and_fetches_nothing(drifted: Drifted, tmp_path: Path) -> None:
    path = tmp_path / "drift.html"
    done = cli(drifted.server, MODEL, "2", "--html", str(path))
    assert done.returncode == 0, done.stderr
    assert f"{path}: written" in done.stdout
    assert list(tmp_path.iterdir()) == [path]
    page = read_page(path)
    assert f"{MODEL} 2: warning" in page.texts("h2")
    assert page.texts("h4")[0].startswith("amount")
    plots = [title for title in page.texts("title") if title.startswith("amount: share of rows")]
    assert len(plots) == 1
    assert "Median bin before" in plots[0]
    assert "now over" in plots[0]  # every cent is beyond the last euro
    assert not page.fetched
    assert path.stat().st_mode & 0o777 == 0o644


def test_histograms_count_what_was_sent(drifted: Drifted) -> None:
    report = report_of(drifted.server)
    amount = report.features[FEATURES.index("amount")]
    place = np.searchsorted(np.array(amount.bin_edges, np.float32), drifted.cents, side="left")
    expected = np.bincount(place, minlength=len(amount.bin_edges) + 1)
    assert list(amount.window_counts) == expected.tolist()
    assert list(amount.slow_counts) == expected.tolist()
    assert sum(amount.reference_counts) == 800
    night = report.features[FEATURES.index("night")]
    assert list(night.bin_names) == ["false", "true", "unseen"]


@pytest.mark.parametrize(("state", "code"), [("warning", 1), ("retrain", 0), ("broken", 0)])
def test_scripts_can_ask_for_an_exit_code(drifted: Drifted, state: str, code: int) -> None:
    done = cli(drifted.server, "--fail-on", state)
    assert done.returncode == code
    assert done.stdout  # the report all the same


def test_a_warming_window_says_how_far_it_is() -> None:
    with Serving(settings={**SETTINGS, "drift.min_span_s": 600}) as server:
        Traffic(server).send(usual(50, 22))
        until(lambda: report_of(server).fast.n_rows == 50)
        done = cli(server, "--fail-on", "warning")
        assert done.returncode == 0
        assert f"{MODEL} 2: ◌ warming\n" in done.stdout
        assert "  score        none yet" in done.stdout
        assert "  - 50 of 600 rows, 0 of 10 minutes" in done.stdout


def test_what_cannot_be_reported_is_said(drifted: Drifted) -> None:
    done = cli(drifted.server, "other")
    assert (done.returncode, done.stdout) == (2, "")
    assert "takes no part in serving" in done.stderr
    done = cli(drifted.server, "--html", "/nowhere/drift.html")
    assert done.returncode == 2
    assert "/nowhere/drift.html: cannot be written" in done.stderr
    with Serving(settings={"drift.enabled": False}) as server:
        done = cli(server)
        assert done.returncode == 2
        assert "drift.enabled" in done.stderr
        with grpc.insecure_channel(server.control) as channel:
            ask = control(channel)
            failure = refused(lambda: ask.GetDrift(pb.GetDriftRequest()))
        assert failure.code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_built_reference_is_what_is_compared_with(tmp_path: Path) -> None:
    """Amounts that are in cents for good: not drift against rows that are in cents."""
    repository = copy_repository(tmp_path / "repository")
    rows = usual(2000, 23)
    rows["amount"] *= 100.0
    rows.to_parquet(tmp_path / "cents.parquet")
    command = ["reference", "build", str(repository / MODEL), str(tmp_path / "cents.parquet")]
    built = subprocess.run(
        [sys.executable, "-m", "server", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    label = {"model": MODEL, "model_version": "2-ref1"}
    with Serving(repository, SETTINGS) as server:  # the newest
        traffic = Traffic(server, label)
        traffic.send(rows[:1000])
        until(lambda: traffic.state() == "stable")
        done = cli(server)
        assert f"{MODEL} 2-ref1: ● stable" in done.stdout
        assert "reference    2,000 rows, cents.parquet, made 20" in done.stdout
