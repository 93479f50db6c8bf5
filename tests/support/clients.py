"""Stubs of our services for tests, typed where protoc's are not, and raw calls."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from server.pb.scoregate.v1 import control_pb2_grpc, scoring_pb2_grpc

SCORE = "/scoregate.v1.Scoring/Score"
GET_MODEL = "/scoregate.v1.Scoring/GetModel"
TIMEOUT_S = 10.0


class Answer(NamedTuple):
    """How one call ended, as bytes: what two doors are compared by."""

    code: grpc.StatusCode
    body: bytes
    text: str


def scoring(channel: grpc.Channel) -> Any:
    """Return a stub of scoregate.v1.Scoring."""
    return scoring_pb2_grpc.ScoringStub(channel)  # type: ignore[no-untyped-call]


def control(channel: grpc.Channel) -> Any:
    """Return a stub of scoregate.v1.Control."""
    return control_pb2_grpc.ControlStub(channel)  # type: ignore[no-untyped-call]


def health(channel: grpc.Channel) -> Any:
    """Return a stub of grpc.health.v1.Health."""
    return health_pb2_grpc.HealthStub(channel)


def check_health(channel: grpc.Channel, service: str = "") -> str:
    """Return what the health service says, by name."""
    request = health_pb2.HealthCheckRequest(service=service)
    status = health(channel).Check(request, timeout=TIMEOUT_S).status
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(status))


def raw_call(
    channel: grpc.Channel, method: str, message: bytes, timeout_s: float = TIMEOUT_S
) -> Answer:
    """Call a method with bytes; errors are returned, not raised."""
    call: Any = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
    try:
        return Answer(grpc.StatusCode.OK, call(message, timeout=timeout_s), "")
    except grpc.RpcError as error:
        return Answer(error.code(), b"", error.details() or "")
