"""Events of a real server: at the webhook, in the file, in the command and in the metrics."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import scoring_pb2
from tests.support.clients import control, scoring
from tests.support.control import wait_for
from tests.support.receiver import Receiver
from tests.support.serving import (
    FEATURES,
    MODEL,
    ROOT,
    Serving,
    copy_repository,
    example_rows,
    run_serve,
    write_config,
)

DRIFT = {
    "drift.min_span_s": 0.1,
    "drift.interval_s": 0.1,
    "drift.drain_s": 0.05,
    "drift.window_rows": 600,
    "drift.rows_per_s": 100_000,
    "drift.slow_span_s": 60,
    "drift.pane_s": 1,
}


def run_events(server: Serving, *words: str) -> str:
    """Return what `scoregate events` prints."""
    command = [sys.executable, "-m", "server", "events", "--address", server.control, *words]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def operator(server: Serving) -> Any:
    return control(grpc.insecure_channel(server.control))


def count(server: Serving, kind: str, result: str) -> float:
    return server.metric("scoregate_events_total", kind=kind, result=result)


def score(
    server: Serving,
    n: int,
    *,
    seed: int = 1,
    span_s: float = 1.0,
    ago_s: float = 0.0,
    **changed: float,
) -> None:
    """Score usual transactions, some features times a factor; a factor of NaN leaves them out.

    They span a time, and the last of them happened a while ago.
    """
    begin_s = time.time() - span_s - ago_s
    with grpc.insecure_channel(server.fast) as channel:
        stub = scoring(channel)
        for number, row in enumerate(example_rows(n, seed)[0].to_dict("records")):
            at_ms = round((begin_s + span_s * number / n) * 1000)
            request = scoring_pb2.ScoreRequest(event_time_ms=at_ms)
            for name in FEATURES:
                value = float(row[name]) * changed.get(name, 1.0)
                if not math.isnan(value):
                    request.named.values[name].number = value
            stub.Score(request, timeout=10)


def test_a_rollback_is_told_everywhere(tmp_path: Path) -> None:
    secret, log_file = tmp_path / "secret", tmp_path / "events.jsonl"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    with Receiver() as receiver:
        settings = {
            "events.webhook_url": receiver.url,
            "events.webhook_secret_file": str(secret),
            "events.log_file": str(log_file),
            "log.format": "json",
        }
        with Serving(settings=settings) as server:
            calls = operator(server)
            calls.Deploy(pb.DeployRequest(version="1", traffic_basis_points=1000), timeout=10)
            options = pb.ChangeOptions(why="too many declines", who="ann")
            calls.Rollback(pb.RollbackRequest(options=options), timeout=10)
            posted = receiver.wait(3)
            wait_for(lambda: count(server, "rollout.rollback", "delivered") == 1)
            assert count(server, "rollout.rollback", "emitted") == 1
            assert count(server, "rollout.change", "delivered") == 2  # the start, the deploy
            assert server.metric("scoregate_events_waiting") == 0

            table = run_events(server).splitlines()
            assert len(table) == 4
            assert table[0].split() == [
                "time", "severity", "kind", "model", "version", "delivery", "summary",
            ]  # fmt: skip
            column = table[0].index("summary")
            assert all(line[column - 2 : column].isspace() for line in table)
            assert "rollout.rollback" in table[1]
            assert "delivered" in table[1]
            assert "rollback by ann (too many declines)" in table[1]

            [shown] = json_lines(run_events(server, "--json", "--kind", "rollout.rollback"))
            assert json.loads(shown["details"])["who"] == "ann"
            assert run_events(server, "--kind", "drift.broken").strip() == "no events"
            logged = [json.loads(line) for line in server.stderr().splitlines()]

    last = posted[-1]
    assert last.event["kind"] == "rollout.rollback"
    assert last.event["version"] == "2"
    time_part, _, signature = last.headers["Scoregate-Signature"].partition(",v1=")
    signed = time_part.removeprefix("t=").encode() + b"." + last.body
    assert signature == hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    # The same document in the file and in the log.
    written = json_lines(log_file.read_text())
    assert written == [request.event for request in posted]
    assert [line["event"] for line in logged if "event" in line] == written
    ids = [event["id"] for event in written]
    assert ids == sorted(set(ids))


def test_drift_that_breaks_and_recovers_is_told() -> None:
    with Receiver() as receiver, Serving(
        settings={**DRIFT, "events.webhook_url": receiver.url}
    ) as server:  # fmt: skip
        wait_for(lambda: "ml_drift_state{" in server.http("/metrics")[1])
        score(server, 900, risk=math.nan, ago_s=2.0)
        broken = wait_for(lambda: [e for e in receiver.events if e["kind"] == "drift.broken"])[0]
        assert (broken["model"], broken["version"], broken["severity"]) == (MODEL, "2", "critical")
        assert "risk" in broken["summary"]
        assert broken["details"]["features"][0]["name"] == "risk"
        score(server, 1000, seed=2)
        wait_for(lambda: [e for e in receiver.events if e["kind"] == "drift.recovered"], 30)
        assert count(server, "drift.failed", "emitted") == 0


def test_drift_that_asks_for_a_retrain_is_told() -> None:
    with Receiver() as receiver, Serving(
        settings={**DRIFT, "events.webhook_url": receiver.url}
    ) as server:  # fmt: skip
        wait_for(lambda: "ml_drift_state{" in server.http("/metrics")[1])
        for number in range(4):
            ago_s = 30.0 * (3 - number)
            score(server, 600, seed=number, span_s=30.0, ago_s=ago_s, amount=100.0)
            time.sleep(0.3)  # an evaluation for each window
        retrain = wait_for(lambda: [e for e in receiver.events if e["kind"] == "drift.retrain"])[0]
        assert retrain["details"]["features"][0]["name"] == "amount"
        assert retrain["details"]["score"] >= 0.3
        kinds = [event["kind"] for event in receiver.events]
        assert kinds.index("drift.warning") < kinds.index("drift.retrain")


def hang(handler: Any) -> None:
    handler.rfile.read(1)


def test_a_webhook_that_hangs_holds_nothing_up() -> None:
    settings = {"events.webhook_timeout_s": 60, "events.queue": 2}
    with Receiver(behave=hang) as receiver:
        server = Serving(settings={**settings, "events.webhook_url": receiver.url})
        with server:
            receiver.wait(1)  # of the start, and it never ends
            calls = operator(server)
            deploy = pb.DeployRequest(version="1", traffic_basis_points=1000)
            calls.Deploy(deploy, timeout=10)
            for share in (2000, 3000, 4000):
                shares = {"canary": share, "champion": 10_000 - share}
                calls.SetTraffic(pb.SetTrafficRequest(basis_points=shares), timeout=10)
            score(server, 50)
            assert count(server, "rollout.change", "emitted") == 5
            assert count(server, "rollout.change", "dropped") == 2
            assert server.metric("scoregate_events_waiting") == 3
            deliveries = [event["delivery"] for event in json_lines(run_events(server, "--json"))]
            assert deliveries == ["waiting", "waiting", "dropped", "dropped", "waiting"]
            began_s = time.monotonic()
            server.signal()
            assert server.wait() == 0
            assert time.monotonic() - began_s < 20  # the attempt has 60
            assert "3 events are not delivered" in server.stderr()


def test_serving_an_older_plan_is_told(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path / "models")
    settings = {"rollout.journal": str(tmp_path / "journal.db")}
    with Serving(repository, settings) as server:
        calls = operator(server)
        calls.Deploy(pb.DeployRequest(version="1", traffic_basis_points=5000), timeout=10)
    shutil.rmtree(repository / MODEL / "1")
    log_file = tmp_path / "events.jsonl"
    server = Serving(repository, {**settings, "events.log_file": str(log_file)})
    with server:
        [event] = wait_for(lambda: json_lines(log_file.read_text()))
        assert (event["kind"], event["severity"]) == ("server.fallback", "critical")
        assert "fraud 2 100 %" in event["summary"]
        server.end()  # its log says what cannot be served, at length
    shutil.rmtree(repository / MODEL / "2")
    log_file.unlink()
    with Serving(repository, {**settings, "events.log_file": str(log_file)}) as server:
        [event] = wait_for(lambda: json_lines(log_file.read_text()))
        assert event["kind"] == "server.not_ready"


def test_events_are_followed() -> None:
    with Serving() as server:
        command = [sys.executable, "-m", "server", "events", "--address", server.control,
                   "--follow", "-n", "1"]  # fmt: skip
        follow = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert follow.stdout is not None
        try:
            assert "start by scoregate" in follow.stdout.readline()
            operator(server).Deploy(
                pb.DeployRequest(version="1", traffic_basis_points=1000), timeout=10
            )
            assert "deploy by" in follow.stdout.readline()
            follow.send_signal(signal.SIGINT)
            assert follow.wait(20) == 0
        finally:
            follow.kill()
            follow.wait()
            follow.stdout.close()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"events.webhook_url": "http://127.0.0.1:1/", "events.webhook_secret_file": "none"},
            "events.webhook_secret_file: ",
        ),
        ({"events.log_file": "none/events.jsonl"}, "events.log_file: "),
        ({"events.webhook_url": "https://u:secret@a/"}, "events.webhook_url: "),
    ],
)
def test_what_cannot_be_used_ends_the_start_in_one_line(
    tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    config = write_config(tmp_path / "serve.toml", copy_repository(tmp_path / "m"), settings)
    done = run_serve("--config", str(config))
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("scoregate: ")]
    assert line.startswith(f"scoregate: {says}")
    assert "Traceback" not in done.stderr
    assert "u:secret" not in done.stderr
