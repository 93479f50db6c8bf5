"""Metrics: names, values, and that Prometheus's own parsers accept every scrape."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fastpath.engine import Engine
from fastpath.metrics import DURATION_BOUNDS_NS, Metrics
from fastpath.plan import PlanBoard
from server.collector import CODES, ScoregateCollector, make_registry
from server.config import FeatureSettings, RedisSettings, RolloutSettings, Settings
from server.control.describe import describe_model
from server.pb.scoregate.v1 import scoring_pb2 as pb
from server.rollout.change import Author
from server.rollout.opening import open_rollout
from server.rollout.verbs import Verbs
from server.stores import FeatureStores
from tests.support.serving import MODEL, example_repository

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
NO_CALLS = {
    **dict.fromkeys(("open_connections", "accepted", "calls", "iterations"), 0),
    **dict.fromkeys(("bytes_in", "bytes_out"), 0),
    **{f"status_{number}": 0 for number in range(17)},
}


class World:
    """A served model, an engine to call it, and its metrics."""

    def __init__(self, folder: Path) -> None:
        self.board = PlanBoard()
        self.metrics = Metrics(1)
        settings = Settings(
            repository=str(example_repository().path),
            rollout=RolloutSettings(journal=str(folder / "journal.db")),
        )
        self.rollout = open_rollout(settings, self.board, self.metrics, describe_model)
        self.verbs = Verbs(self.rollout)
        self.rollout.start([f"{MODEL}@1"])
        self.engine = Engine(self.board, self.metrics)
        self.loops = [dict(NO_CALLS), dict(NO_CALLS)]
        self.registry = make_registry(
            ScoregateCollector(
                self.metrics,
                lambda: self.loops,
                lambda: self.rollout.arms,
                lambda: self.rollout.generation,
                FeatureStores(FeatureSettings(), RedisSettings(), 2),
            )
        )

    def score(self, **values: float) -> int:
        request = pb.ScoreRequest()
        for name, value in values.items():
            request.named.values[name].number = value
        [(status, _, _)] = self.engine.answer(
            [request.SerializeToString()], now_ns=time.monotonic_ns()
        )
        return status

    def scrape(self, accept: str = "") -> str:
        encode, _ = choose_encoder(accept)
        return encode(self.registry).decode()

    def value(self, name: str, **labels: str) -> float:
        found = [
            sample.value
            for family in parse_text(self.scrape())
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        assert len(found) == 1, f"{name}{labels}: {found}"
        return found[0]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.rollout.close()


def test_counters_exist_from_the_start_at_zero(world: World) -> None:
    version = {"model": MODEL, "model_version": "1"}
    assert world.value("ml_predictions_total", **version) == 0
    assert world.value("ml_prediction_duration_seconds_count", model=MODEL) == 0
    assert world.value("ml_decisions_total", **version, decision="decline") == 0
    assert (
        world.value("ml_feature_fallbacks_total", **version, source="default", group="request") == 0
    )
    for code in CODES[1:]:
        assert world.value("ml_prediction_errors_total", code=code) == 0
    for code in CODES:
        assert world.value("scoregate_grpc_calls_total", code=code) == 0


def test_codes_are_grpcs_own() -> None:
    import grpc

    assert tuple(code.name for code in sorted(grpc.StatusCode, key=lambda c: c.value[0])) == CODES


def test_values_follow_the_calls(world: World) -> None:
    assert world.score(amount=1.0) == 0
    assert world.score(amount=1.0, n_day=2.0, risk=math.inf) == 0
    assert world.score(risk=0.5) == 3  # INVALID_ARGUMENT: amount is required
    version = {"model": MODEL, "model_version": "1"}
    assert world.value("ml_predictions_total", **version) == 2
    assert world.value("ml_prediction_errors_total", code="INVALID_ARGUMENT") == 1
    assert world.value("ml_feature_values_total", **version, source="request") == 3
    assert (
        world.value("ml_feature_fallbacks_total", **version, source="default", group="request") == 5
    )
    assert world.value("ml_feature_missing_total", **version, cause="infinite") == 1
    assert world.value("ml_prediction_duration_seconds_count", model=MODEL) == 2
    assert world.value("ml_prediction_duration_seconds_bucket", model=MODEL, le="+Inf") == 2
    assert world.value("scoregate_batch_rows_total") == 2
    decisions = [
        world.value("ml_decisions_total", **version, decision=decision)
        for decision in ("approve", "review", "decline")
    ]
    assert sum(decisions) == 2


def test_the_histogram_adds_up_the_versions_of_a_model(world: World) -> None:
    world.score(amount=1.0)
    author = Author("test")
    world.verbs.deploy(author, MODEL, "2", 0)
    world.verbs.promote(author, MODEL)
    world.score(amount=1.0)
    world.score(amount=1.0)
    assert world.value("ml_predictions_total", model=MODEL, model_version="1") == 1
    assert world.value("ml_predictions_total", model=MODEL, model_version="2") == 2
    assert world.value("ml_prediction_duration_seconds_count", model=MODEL) == 3
    assert world.value("ml_prediction_duration_seconds_sum", model=MODEL) > 0
    served = [
        sample.labels["model_version"]
        for family in parse_text(world.scrape())
        for sample in family.samples
        if sample.name == "ml_model_info"
    ]
    assert served == ["2"]


def test_histogram_buckets_are_cumulative_on_the_promised_bounds(world: World) -> None:
    for _ in range(20):
        world.score(amount=1.0)
    buckets = [
        (sample.labels["le"], sample.value)
        for family in parse_text(world.scrape())
        for sample in family.samples
        if sample.name == "ml_prediction_duration_seconds_bucket"
    ]
    values = [value for _, value in buckets]
    assert values == sorted(values)
    assert [float(le) for le, _ in buckets] == [
        *(bound / 1e9 for bound in DURATION_BOUNDS_NS),
        math.inf,
    ]


def test_transport_counters_add_up_the_loops(world: World) -> None:
    world.loops[0].update(status_0=5, status_3=1, open_connections=2, bytes_in=10, iterations=7)
    world.loops[1].update(status_0=6, open_connections=3, bytes_in=20)
    assert world.value("scoregate_grpc_calls_total", code="OK") == 11
    assert world.value("scoregate_grpc_calls_total", code="INVALID_ARGUMENT") == 1
    assert world.value("scoregate_open_connections", loop="1") == 3
    assert world.value("scoregate_received_bytes_total") == 30
    assert world.value("scoregate_loop_iterations_total", loop="0") == 7


def test_the_process_is_there(world: World) -> None:
    assert world.value("process_resident_memory_bytes") > 1e6


def names(families: Iterable[Metric]) -> set[str]:
    return {sample.name for family in families for sample in family.samples}


def test_both_formats_parse_and_agree(world: World) -> None:
    world.score(amount=1.0)
    openmetrics = world.scrape(OPENMETRICS)
    assert openmetrics.endswith("# EOF\n")
    families = parse_openmetrics(openmetrics)  # type: ignore[no-untyped-call]
    assert names(parse_text(world.scrape())) == names(families)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say(world: World) -> None:
    world.score(amount=1.0)
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=world.scrape(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
