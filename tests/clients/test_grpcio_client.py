"""A stock grpcio client at both doors: right scores, clear refusals, the same bytes.

Scores are held against stock onnxruntime on the bundle's model.onnx (raw score, bit for bit) and
against scikit-learn (within the quantization error that the bundle reports).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.bundle import read_bundle
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.clients import GET_MODEL, SCORE, raw_call, scoring
from tests.support.h2client import SocketClient, frame, headers
from tests.support.serving import FEATURES, MODEL, Serving, example_repository

DOORS = ("fast", "control")
ENGINES = {"1": "forest", "2": "linear"}
MAX_MESSAGE_BYTES = 1 << 16
Code = grpc.StatusCode


class Served(NamedTuple):
    """A server of one version, and a channel to each door."""

    version: str
    process: Serving
    channels: dict[str, grpc.Channel]

    def score(self, request: pb.ScoreRequest, door: str = "fast") -> pb.ScoreResponse:
        answer: pb.ScoreResponse = scoring(self.channels[door]).Score(request, timeout=10)
        return answer

    def describe(self, door: str = "fast") -> pb.GetModelResponse:
        answer: pb.GetModelResponse = scoring(self.channels[door]).GetModel(
            pb.GetModelRequest(), timeout=10
        )
        return answer


@pytest.fixture(scope="module", params=list(ENGINES), ids=list(ENGINES.values()))
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    changes = {"models": [f"{MODEL}@{request.param}"], "fast.max_message_bytes": MAX_MESSAGE_BYTES}
    with Serving(settings=changes) as process:
        channels = {door: grpc.insecure_channel(getattr(process, door)) for door in DOORS}
        yield Served(request.param, process, channels)
        for channel in channels.values():
            channel.close()


def dense(layout: int, values: Any, **fields: Any) -> pb.ScoreRequest:
    return pb.ScoreRequest(dense=pb.DenseFeatures(layout=layout, values=values), **fields)


def named(**values: float | bool | str | None) -> pb.ScoreRequest:
    request = pb.ScoreRequest(request_id="named")
    for name, value in values.items():
        target = request.named.values[name]
        if isinstance(value, bool):
            target.flag = value
        elif isinstance(value, str):
            target.text = value
        elif value is None:
            target.SetInParent()
        else:
            target.number = value
    return request


class TestScores:
    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("form", ["dense", "named"])
    def test_equal_onnxruntime_and_scikit_learn(self, served: Served, door: str, form: str) -> None:
        example = example_repository()
        rows = example.rows.to_numpy(np.float32)[:100]
        layout = served.describe(door).arms[0].layout
        answers = [
            served.score(
                dense(layout, row)
                if form == "dense"
                else named(**dict(zip(FEATURES, row.tolist(), strict=True))),
                door,
            )
            for row in rows
        ]
        bundle = read_bundle(example.path / MODEL / served.version)
        session = onnxruntime.InferenceSession(bundle.content["model.onnx"])
        [expected] = session.run(None, {session.get_inputs()[0].name: rows})
        raw = np.array([answer.raw_score for answer in answers], np.float32)
        assert raw.tobytes() == np.asarray(expected, np.float32).reshape(-1).tobytes()

        frame = pd.DataFrame(rows.astype(np.float64), columns=list(FEATURES))
        probability = example.models[served.version].predict_proba(frame)[:, 1]
        difference = np.abs(np.array([answer.score for answer in answers]) - probability).max()
        report = bundle.manifest.quantization
        assert difference <= report.max_abs_delta_p + (report.float32_max_abs_delta_p or 0) + 1e-12
        assert len({answer.decision for answer in answers}) > 1

    def test_decisions_follow_the_thresholds(self, served: Served) -> None:
        arm = served.describe().arms[0]
        rows = example_repository().rows.to_numpy(np.float32)[:200]
        for row in rows:
            answer = served.score(dense(arm.layout, row))
            reached = [t for t in arm.thresholds if answer.raw_score >= t.raw_score]
            assert answer.decision == (reached[-1].name if reached else arm.default_decision)
            assert answer.HasField("threshold") == bool(reached)
            if reached:
                assert answer.threshold == np.float32(reached[-1].raw_score)

    def test_an_answer_says_what_produced_it(self, served: Served) -> None:
        description = served.describe()
        request = named(amount=5.0, risk=None)
        request.entities.add(role="payer", type="customer", id="c-1")
        request.options.provenance = request.options.timings = True
        answer = served.score(request)
        arm = description.arms[0]
        assert (answer.model, answer.version, answer.arm) == (MODEL, served.version, arm.arm)
        assert answer.sha256 == arm.sha256
        assert arm.engine == ENGINES[served.version]
        assert answer.plan_generation == description.plan_generation
        assert answer.score_kind == pb.SCORE_KIND_PROBABILITY
        assert answer.decision_propensity == 1
        assert list(answer.provenance) == [
            pb.FEATURE_SOURCE_REQUEST,
            *[pb.FEATURE_SOURCE_DEFAULT] * 3,
        ]
        assert (answer.source_counts.request, answer.source_counts.default_value) == (1, 3)
        assert answer.timings.total_ns > 0
        assert not served.score(named(amount=5.0)).HasField("timings")

    def test_request_ids(self, served: Served) -> None:
        assert served.score(named(amount=1.0)).request_id == "named"
        request = named(amount=1.0)
        request.request_id = ""
        made = [uuid.UUID(served.score(request).request_id) for _ in range(20)]
        assert len(set(made)) == 20
        assert {one.version for one in made} == {7}

    def test_routing_is_sticky_by_key_then_entity(self, served: Served) -> None:
        def bucket(**fields: Any) -> tuple[int, bool]:
            request = named(amount=1.0)
            request.MergeFrom(pb.ScoreRequest(**fields))
            answer = served.score(request)
            return answer.bucket, answer.unsticky

        customer = pb.Entity(role="payer", type="customer", id="c-7")
        device = pb.Entity(role="payer", type="device", id="d-9")
        by_key = bucket(routing_key="c-7")
        assert by_key == bucket(entities=[device, customer]) == bucket(entities=[customer, device])
        assert by_key[1] is False
        assert bucket(routing_key="c-7", entities=[device]) == by_key
        assert bucket(entities=[device])[1] is True


NAN, INF = math.nan, math.inf

# Request -> status and a part of the text. Every one is sent to both doors.
REFUSED: dict[str, tuple[pb.ScoreRequest, grpc.StatusCode, str]] = {
    "no features": (pb.ScoreRequest(), Code.INVALID_ARGUMENT, "no features"),
    "required missing": (named(risk=0.5), Code.INVALID_ARGUMENT, "amount"),
    "required null": (named(amount=None), Code.INVALID_ARGUMENT, "amount"),
    "required nan": (named(amount=NAN), Code.INVALID_ARGUMENT, "amount"),
    "required infinite": (named(amount=-INF), Code.INVALID_ARGUMENT, "amount"),
    "required out of range": (named(amount=-1.0), Code.INVALID_ARGUMENT, "amount"),
    "unknown name": (named(amount=1.0, ammount=1.0), Code.INVALID_ARGUMENT, "ammount"),
    "text for a number": (named(amount="12"), Code.INVALID_ARGUMENT, "amount"),
    "wrong fingerprint": (dense(1, [1.0] * 4), Code.FAILED_PRECONDITION, "layout"),
    "unknown model": (
        pb.ScoreRequest(model="nope", named=named(amount=1.0).named),
        Code.NOT_FOUND,
        "nope",
    ),
    "long request id": (
        pb.ScoreRequest(request_id="x" * 129, named=named(amount=1.0).named),
        Code.INVALID_ARGUMENT,
        "128",
    ),
    "too many entities": (
        pb.ScoreRequest(entities=[pb.Entity(id="x")] * 17, named=named(amount=1.0).named),
        Code.INVALID_ARGUMENT,
        "16",
    ),
}


class TestBadInput:
    @pytest.mark.parametrize("case", list(REFUSED))
    def test_is_refused_with_one_clear_text_at_both_doors(self, served: Served, case: str) -> None:
        request, code, text = REFUSED[case]
        fast, control = (
            raw_call(served.channels[door], SCORE, request.SerializeToString()) for door in DOORS
        )
        assert fast == control
        assert fast.code is code
        assert text in fast.text
        assert "\n" not in fast.text

    @pytest.mark.parametrize("n_values", [0, 3, 5])
    def test_a_wrong_number_of_values(self, served: Served, n_values: int) -> None:
        layout = served.describe().arms[0].layout
        message = dense(layout, [1.0] * n_values).SerializeToString()
        fast, control = (raw_call(served.channels[door], SCORE, message) for door in DOORS)
        assert fast == control
        assert fast.code is Code.INVALID_ARGUMENT

    @pytest.mark.parametrize("value", [NAN, INF, -INF])
    def test_nan_and_infinities_count_as_missing(self, served: Served, value: float) -> None:
        layout = served.describe().arms[0].layout
        odd = served.score(dense(layout, [5.0, 0.0, value, 0.5], request_id="r"))
        absent = served.score(named(amount=5.0, night=False, risk=0.5))
        assert odd.source_counts.default_value == 1
        assert odd.raw_score == absent.raw_score
        assert math.isfinite(odd.score)

    @pytest.mark.parametrize("method", [SCORE, GET_MODEL])
    def test_malformed_protobuf(self, served: Served, method: str) -> None:
        for message in (b"\xff", b"\x0a\x05abc", b"\x0a\x02\xc3\x28", b"\x07"):
            fast, control = (raw_call(served.channels[door], method, message) for door in DOORS)
            assert fast == control
            assert fast.code is Code.INVALID_ARGUMENT, message

    def test_truncated_messages(self, served: Served) -> None:
        layout = served.describe().arms[0].layout
        whole = dense(layout, [5.0, 0.0, 1.0, 0.5], request_id="r").SerializeToString()
        for size in range(len(whole)):
            fast, control = (raw_call(served.channels[door], SCORE, whole[:size]) for door in DOORS)
            assert fast == control
            assert fast.code is not Code.OK

    def test_unknown_methods(self, served: Served) -> None:
        for method in (
            "/scoregate.v1.Scoring/Nope",
            "/scoregate.v1.Scoring/ScoreBatch",
            "/scoregate.v1.Scoring/Lookup",
            "/nope.Nope/Nope",
        ):
            for door in DOORS:
                assert raw_call(served.channels[door], method, b"").code is Code.UNIMPLEMENTED

    @pytest.mark.parametrize("door", DOORS)
    def test_an_oversized_message(self, served: Served, door: str) -> None:
        fits = pb.ScoreRequest(routing_key="x" * (MAX_MESSAGE_BYTES - 100)).SerializeToString()
        channel = served.channels[door]
        assert raw_call(channel, SCORE, fits).code is Code.INVALID_ARGUMENT
        answer = raw_call(channel, SCORE, fits + bytes(200))
        assert answer.code is Code.RESOURCE_EXHAUSTED
        assert served.score(named(amount=1.0), door).request_id == "named"

    def test_an_expired_deadline_is_not_scored(self, served: Served) -> None:
        labels = {"model": MODEL, "model_version": served.version}
        scored = served.process.metric("ml_predictions_total", **labels)
        late = {"code": "DEADLINE_EXCEEDED"}
        before = served.process.metric("scoregate_grpc_calls_total", **late)
        host, _, port = served.process.fast.rpartition(":")
        with SocketClient((host, int(port))) as client:
            stream = client.begin(headers(path=SCORE, grpc_timeout="1n"))
            client.h2.ping(b"12345678")
            client.flush()
            while not client.n_ping_acks:  # the deadline has passed before the message comes
                assert client.read()
            client.data(stream, frame(named(amount=1.0).SerializeToString()), end=True)
            [answer] = client.wait(stream)
        assert answer.status == Code.DEADLINE_EXCEEDED.value[0]
        assert served.process.metric("scoregate_grpc_calls_total", **late) == before + 1
        assert served.process.metric("ml_predictions_total", **labels) == scored
        assert served.score(named(amount=1.0)).request_id == "named"


class TestBothDoors:
    def test_the_same_bytes_get_the_same_bytes(self, served: Served) -> None:
        layout = served.describe().arms[0].layout
        rows = example_repository().rows.to_numpy(np.float32)[:50]
        for index, row in enumerate(rows):
            request = dense(layout, row, request_id=f"r{index}", routing_key=f"k{index}")
            request.options.provenance = bool(index % 2)
            message = request.SerializeToString()
            fast, control = (raw_call(served.channels[door], SCORE, message) for door in DOORS)
            assert fast.code is Code.OK
            assert fast == control

    @pytest.mark.parametrize("model", ["", MODEL, "nope"])
    def test_get_model_too(self, served: Served, model: str) -> None:
        message = pb.GetModelRequest(model=model).SerializeToString()
        fast, control = (raw_call(served.channels[door], GET_MODEL, message) for door in DOORS)
        assert fast == control
        assert fast.code is (Code.NOT_FOUND if model == "nope" else Code.OK)

    @settings(max_examples=150, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(message=st.binary(max_size=64))
    def test_random_bytes_too(self, served: Served, message: bytes) -> None:
        # A request id of our own: the server would make a different one for each door.
        message += pb.ScoreRequest(request_id="r").SerializeToString()
        fast, control = (raw_call(served.channels[door], SCORE, message) for door in DOORS)
        assert fast == control
