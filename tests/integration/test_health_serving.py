"""What a real server says of its own health under calls, and of categories that it never saw."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from sklearn.linear_model import LogisticRegression

from fastpath.metrics import STAGES
from server.bundle import load_model, read_bundle, write_bundle
from server.bundle.arrays import encode_arrays
from server.bundle.manifest import REFERENCE, SCHEMA, encode
from server.bundle.schema import requirements
from server.drift.settings import monitored_features
from server.export import ExportOptions, export_model
from server.export.reference import build_reference
from server.pb.scoregate.v1 import control_pb2, scoring_pb2, scoring_pb2_grpc
from tests.support.clients import control
from tests.support.prometheus import promtool
from tests.support.serving import MODEL, Serving, example_repository, example_rows

WAIT_S = 30.0
VOCABULARY = ["web", "pos", "phone"]


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)


def send(server: Serving, n: int) -> None:
    request = scoring_pb2.ScoreRequest()
    request.named.values["amount"].number = 1.0
    with grpc.insecure_channel(server.fast) as channel:
        stub = scoring_pb2_grpc.ScoringStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(n):
            stub.Score(request)


def test_a_scrape_tells_stages_loops_and_readiness() -> None:
    with Serving(settings={"fast.loops": 2}) as server:
        send(server, 130)
        text = server.http("/metrics")[1]
        found = {
            (sample.name, *sample.labels.values()): sample.value
            for family in parse_text(text)
            for sample in family.samples
        }
        # One connection is on one loop: its calls 1, 62 and 123 were timed.
        for stage in STAGES:
            assert found["scoregate_stage_duration_seconds_count", stage] == 3
            assert found["scoregate_stage_duration_seconds_sum", stage] > 0
        assert found["scoregate_queue_delay_seconds_count",] == 3
        iterations = [found["scoregate_loop_iteration_seconds_count", loop] for loop in "01"]
        assert max(iterations) >= 130
        for loop in "01":
            busy_s = found["scoregate_loop_busy_seconds_total", loop]
            assert busy_s >= found["scoregate_loop_iteration_seconds_sum", loop]
            assert 0 <= found["scoregate_loop_busy_ratio", loop] < 1
        assert found["scoregate_ready",] == 1
        version = (MODEL, "2")
        made_s = found["ml_drift_reference_timestamp_seconds", *version]
        assert time.time() - 3600 < made_s < time.time() + 1  # no event times: when it was made
        openmetrics = server.http("/metrics", Accept="application/openmetrics-text")[1]
        names = {family.name for family in parse_openmetrics(openmetrics)}  # type: ignore[no-untyped-call]
        assert "scoregate_stage_duration_seconds" in names
        done = promtool("check", "metrics", text=text)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_without_a_model_the_server_says_that_it_is_not_ready(tmp_path: Path) -> None:
    repository = Path(shutil.copytree(example_repository().path, tmp_path / "models"))
    settings = {"rollout.journal": str(tmp_path / "journal.db")}
    with Serving(repository, settings) as server:
        assert server.metric("scoregate_ready") == 1
    for version in (repository / MODEL).iterdir():
        (version / "model.onnx").write_bytes(b"damaged")
    with Serving(repository, settings) as server:
        assert server.http("/readyz")[0] == 503
        assert server.metric("scoregate_ready") == 0
        assert server.metric("scoregate_stage_duration_seconds_count", stage="parse") == 0


def channels(n_rows: int, seed: int) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Return the example's rows with a channel as a code instead of the night flag."""
    rows, target = example_rows(n_rows, seed)
    codes = np.random.default_rng(seed).choice(3, n_rows, p=[0.5, 0.3, 0.2])
    rows = rows.drop(columns=["night"]).assign(channel=codes.astype(np.float64))
    return rows, target


def categorical_repository(folder: Path) -> Path:
    """Export a model on codes, then let its schema say what the codes stand for."""
    train, target = channels(1500, 1)
    valid, valid_target = channels(1500, 2)
    model = LogisticRegression(max_iter=2000).fit(train, target)
    plain = folder / "plain" / MODEL / "1"
    export_model(model, train, target, valid, valid_target, out=plain, options=ExportOptions())
    bundle = read_bundle(plain)
    schema = bundle.schema
    [channel] = [feature for feature in schema.features if feature.name == "channel"]
    channel.type, channel.vocabulary = "categorical", VOCABULARY
    channel.minimum = channel.maximum = None
    channel.default = 0.0
    rows = np.ascontiguousarray(valid, np.float32)
    raw = load_model(bundle).model.score(rows)
    content = {
        **{name: (plain / name).read_bytes() for name in bundle.manifest.files},
        SCHEMA: encode(schema),
        REFERENCE: encode_arrays(build_reference(rows, raw, monitored_features(schema.features))),
    }
    manifest = msgspec.structs.replace(bundle.manifest, requires=requirements(schema))
    write_bundle(folder / "models" / MODEL / "1", manifest, content)
    return folder / "models"


def send_channels(server: Serving, n_rows: int, seed: int, *, new_share: float) -> None:
    rows, _ = channels(n_rows, seed)
    is_new = np.random.default_rng(seed).random(n_rows) < new_share
    with grpc.insecure_channel(server.fast) as channel:
        stub = scoring_pb2_grpc.ScoringStub(channel)  # type: ignore[no-untyped-call]
        texts = [VOCABULARY[code] for code in rows["channel"].astype(int)]
        for row, text, new in zip(rows.itertuples(), texts, is_new, strict=True):
            request = scoring_pb2.ScoreRequest()
            for name in ("amount", "n_day", "risk"):
                request.named.values[name].number = getattr(row, name)
            request.named.values["channel"].text = "kiosk" if new else text
            request.options.provenance = True
            answer = stub.Score(request)
            assert (4 in answer.provenance) == new
            assert 5 not in answer.provenance


def test_a_new_category_is_told_as_unseen_and_not_as_missing(tmp_path: Path) -> None:
    settings = {
        "drift.min_span_s": 0.1,
        "drift.interval_s": 0.2,
        "drift.drain_s": 0.05,
        "drift.window_rows": 1000,
        "drift.rows_per_s": 100_000,
    }
    with (
        Serving(categorical_repository(tmp_path), settings) as server,
        grpc.insecure_channel(server.control) as port,
    ):
        ask = control(port).GetDrift
        until(lambda: "ml_drift_state{" in server.http("/metrics")[1])

        def report() -> control_pb2.DriftReport:
            found: control_pb2.DriftReport
            [found] = ask(control_pb2.GetDriftRequest()).reports
            return found

        def rates(found: control_pb2.DriftReport) -> control_pb2.FeatureDrift:
            [channel] = [feature for feature in found.features if feature.name == "channel"]
            return channel

        send_channels(server, 1000, 3, new_share=0.0)
        until(lambda: report().fast.n_rows == 1000 and report().state == "stable")
        assert rates(report()).unseen.window == 0.0
        send_channels(server, 1000, 4, new_share=0.25)
        until(lambda: report().state == "broken")
        until(lambda: abs(rates(report()).unseen.window - 0.25) < 0.05)
        channel = rates(report())
        assert channel.unseen.reference == 0.0
        assert channel.missing.window == 0.0
        assert channel.score >= 0.2
        label = {"model": MODEL, "model_version": "1"}
        assert server.metric("ml_feature_missing_ratio", **label, feature="channel") == 0.0
        assert any("channel" in reason and "unseen" in reason for reason in report().reasons)
