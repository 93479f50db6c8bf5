"""The control port: status, health, reflection, failures, and what it shares with a loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)

from server.config import ControlSettings
from server.control.server import ControlPort
from server.errors import StartError
from server.lifecycle import Lifecycle
from server.pb.scoregate.v1 import control_pb2, control_pb2_grpc
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.clients import GET_MODEL, SCORE, check_health, control, raw_call, scoring
from tests.support.serving import MODEL, Serving


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with Serving() as serving:
        yield serving


@pytest.fixture
def channel(server: Serving) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.control) as opened:
        yield opened


def status(channel: grpc.Channel) -> control_pb2.GetStatusResponse:
    answer: control_pb2.GetStatusResponse = control(channel).GetStatus(
        control_pb2.GetStatusRequest(), timeout=10
    )
    return answer


def test_status_says_what_serves(server: Serving, channel: grpc.Channel) -> None:
    answer = status(channel)
    assert answer.state == control_pb2.SERVING_STATE_SERVING
    assert answer.state_reason == ""
    assert abs(answer.started_time_ms / 1000 - time.time()) < 600
    assert answer.default_model == MODEL
    [model] = answer.models
    assert (model.model, model.version, model.engine) == (MODEL, "2", "linear")
    assert (model.arm, model.weight_basis_points) == ("champion", 10_000)
    assert len(model.sha256) == 32
    assert {a.door: a.address for a in answer.addresses} == server.ready["addresses"]
    assert answer.resident_bytes > 1 << 20


def test_status_and_metrics_count_the_calls_of_both_doors(
    server: Serving, channel: grpc.Channel
) -> None:
    labels = {"model": MODEL, "model_version": "2"}
    before = status(channel)
    counted = server.metric("ml_predictions_total", **labels)
    observed = server.metric("ml_prediction_duration_seconds_count", model=MODEL)
    refused = server.metric("ml_prediction_errors_total", code="INVALID_ARGUMENT")
    transport = server.metric("scoregate_grpc_calls_total", code="OK")
    request = pb.ScoreRequest()
    request.named.values["amount"].number = 3.0
    with grpc.insecure_channel(server.fast) as fast:
        for _ in range(3):
            scoring(fast).Score(request, timeout=10)
        raw_call(fast, SCORE, b"")
    for _ in range(2):
        answer = scoring(channel).Score(request, timeout=10)
    after = status(channel)
    assert after.models[0].predictions - before.models[0].predictions == 5
    assert after.models[0].sha256 == answer.sha256
    assert after.plan_generation == answer.plan_generation
    assert after.loops[0].calls > before.loops[0].calls
    assert server.metric("ml_predictions_total", **labels) - counted == 5
    assert server.metric("ml_prediction_duration_seconds_count", model=MODEL) - observed == 5
    assert server.metric("ml_prediction_errors_total", code="INVALID_ARGUMENT") - refused == 1
    assert server.metric("scoregate_grpc_calls_total", code="OK") - transport >= 3
    sha256 = answer.sha256.hex()
    assert server.metric("ml_model_info", **labels, engine="linear", sha256=sha256) == 1


@pytest.mark.parametrize("service", ["", "scoregate.v1.Scoring", "scoregate.v1.Control"])
def test_health_at_the_control_port(channel: grpc.Channel, service: str) -> None:
    assert check_health(channel, service) == "SERVING"


@pytest.mark.parametrize("service", ["", "scoregate.v1.Scoring"])
def test_health_at_the_fast_door(server: Serving, service: str) -> None:
    with grpc.insecure_channel(server.fast) as fast:
        assert check_health(fast, service) == "SERVING"


@pytest.mark.parametrize("door", ["fast", "control"])
def test_health_of_a_service_that_is_not_there(server: Serving, door: str) -> None:
    with (
        grpc.insecure_channel(getattr(server, door)) as opened,
        pytest.raises(grpc.RpcError) as caught,
    ):
        check_health(opened, "nope")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_describes_our_services(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {"scoregate.v1.Scoring", "scoregate.v1.Control", "grpc.health.v1.Health"} <= set(
        database.get_services()
    )
    pool = DescriptorPool(database)
    methods = pool.FindServiceByName("scoregate.v1.Scoring").methods
    assert {"Score", "GetModel"} <= {method.name for method in methods}
    assert "raw_score" in pool.FindMessageTypeByName("scoregate.v1.ScoreResponse").fields_by_name


class Broken(control_pb2_grpc.ControlServicer):
    """Raises whatever a test gives it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def GetStatus(self, request: Any, context: Any) -> Any:
        raise self.error


class Loops:
    """Answers as a test says; remembers what it was asked."""

    def __init__(self, answer: tuple[int, bytes, str] | Exception = (0, b"answer", "")) -> None:
        self.answer = answer
        self.calls: list[tuple[str, bytes, float | None]] = []

    def call(self, method: str, message: bytes, timeout_s: float | None) -> tuple[int, bytes, str]:
        self.calls.append((method, message, timeout_s))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Port:
    """A control port in this process, over loops of a test's own."""

    def __init__(self, loops: Loops, error: Exception | None = None, port: int = 0) -> None:
        servicer: Any = Broken(error or RuntimeError("unused"))
        settings = ControlSettings(port=port, max_workers=2)
        self.control = ControlPort(settings, 4096, loops, servicer, Lifecycle())
        self.control.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.control.port}")

    def __enter__(self) -> grpc.Channel:
        return self.channel

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self.control.stop(0)


class TestRelay:
    def test_bytes_go_through_unread(self) -> None:
        loops = Loops((0, b"\xff not protobuf", ""))
        with Port(loops) as channel:
            for method in (SCORE, GET_MODEL):
                assert raw_call(channel, method, b"\xfe\0").body == b"\xff not protobuf"
        assert [call[:2] for call in loops.calls] == [(SCORE, b"\xfe\0"), (GET_MODEL, b"\xfe\0")]

    def test_deadlines_go_through(self) -> None:
        loops = Loops((0, b"", ""))
        with Port(loops) as channel:
            raw_call(channel, SCORE, b"", timeout_s=7.0)
            scoring(channel).Score(pb.ScoreRequest())
        with_deadline, without = (call[2] for call in loops.calls)
        assert with_deadline is not None
        assert 0 < with_deadline < 7.1  # clients round up
        assert without is None

    @pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
    def test_every_status_comes_back(self, code: grpc.StatusCode) -> None:
        number: int = code.value[0]
        with Port(Loops((number, b"", "why: é"))) as channel:
            answer = raw_call(channel, SCORE, b"")
        assert (answer.code, answer.text) == (code, "why: é")

    def test_an_oversized_message_never_reaches_a_loop(self) -> None:
        loops = Loops()
        with Port(loops) as channel:
            assert raw_call(channel, SCORE, bytes(4096)).code is grpc.StatusCode.OK
            answer = raw_call(channel, SCORE, bytes(4097))
        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(loops.calls) == 1


class TestFailures:
    def test_an_error_of_ours_is_answered_with_its_message(self) -> None:
        with Port(Loops(), StartError("models/x: no such directory")) as channel:
            answer = raw_call(channel, "/scoregate.v1.Control/GetStatus", b"")
        assert answer.code is grpc.StatusCode.FAILED_PRECONDITION
        assert answer.text == "models/x: no such directory"

    @pytest.mark.parametrize("method", ["/scoregate.v1.Control/GetStatus", SCORE])
    def test_any_other_is_logged_whole_and_not_shown(
        self, method: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        error = KeyError("secret detail")
        with caplog.at_level(logging.ERROR), Port(Loops(error), error) as channel:
            answer = raw_call(channel, method, b"")
        assert answer.code is grpc.StatusCode.INTERNAL
        assert "secret" not in answer.text
        assert "secret detail" in caplog.text
        assert "Traceback" in caplog.text

    def test_a_taken_port_is_refused(self) -> None:
        port = Port(Loops())
        with port, pytest.raises(StartError, match="taken, or no address of this machine"):
            Port(Loops(), port=port.control.port)
