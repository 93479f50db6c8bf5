"""Who may call what: the table is total, and the port keeps to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)

from server.config import ControlSettings
from server.control.access import OPEN, ROLES, Access, open_access
from server.control.relay import METHODS
from server.control.tokens import Role
from server.errors import UnauthenticatedError
from server.pb.scoregate.v1 import control_pb2 as pb
from tests.support.clients import SCORE, check_health, raw_call
from tests.support.control import ControlWorld, bearer, refused, tokens_file
from tests.support.serving import copy_repository

CONTROL = pb.DESCRIPTOR.services_by_name["Control"]
WHO = {"reader": Role.READ, "operator": Role.OPERATE, "admin": Role.ADMIN}


def methods_of(service: ServiceDescriptor) -> set[str]:
    return {f"/{service.full_name}/{method.name}" for method in service.methods}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def secrets(folder: Path) -> dict[str, str]:
    return tokens_file(folder / "t.toml", reader="read", operator="operate", admin="admin")


@pytest.fixture(scope="module")
def world(folder: Path, secrets: dict[str, str]) -> Iterator[ControlWorld]:
    settings = ControlSettings(port=0, tokens_file=str(folder / "t.toml"))
    with ControlWorld(copy_repository(folder / "repository"), settings) as made:
        yield made


@pytest.fixture
def access(folder: Path, secrets: dict[str, str]) -> Access:
    return open_access(ControlSettings(tokens_file=str(folder / "t.toml")))


def call(world: ControlWorld, method: str, **options: Any) -> grpc.StatusCode:
    """Call a Control method with an empty message; how it ends."""
    made = getattr(world.control, method)
    request = made_request(method)
    try:
        if method == "Watch":
            stream = made(request, timeout=10, **options)
            next(iter(stream))
            stream.cancel()
        else:
            made(request, timeout=10, **options)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def made_request(method: str) -> Any:
    name = CONTROL.methods_by_name[method].input_type.name
    request = getattr(pb, name)()
    if "options" in request.DESCRIPTOR.fields_by_name:
        request.options.dry_run = True
    return request


def test_every_method_of_the_port_has_a_role(world: ControlWorld, secrets: dict[str, str]) -> None:
    metadata = bearer(secrets["admin"])
    # What the port itself says that it serves, reflection included.
    channel = grpc.intercept_channel(world.channel, AddMetadata(metadata))
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    served = set()
    for service in database.get_services():
        served |= methods_of(pool.FindServiceByName(service))
    needed = {method for method in served if not method.startswith(OPEN)}
    # Of Scoring, a loop answers these; the others are UNIMPLEMENTED here.
    needed -= {m for m in needed if m.startswith("/scoregate.v1.Scoring/")} - set(METHODS)
    assert needed == set(ROLES)
    assert methods_of(CONTROL) < needed


class AddMetadata(grpc.StreamStreamClientInterceptor):
    def __init__(self, metadata: Any) -> None:
        self.metadata = metadata

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        details = details._replace(metadata=self.metadata)
        return continuation(details, requests)


def test_roles_are_as_the_manual_says() -> None:
    by_role: dict[Role, set[str]] = {role: set() for role in Role}
    for method, role in ROLES.items():
        by_role[role].add(method.rpartition("/")[2])
    assert by_role[Role.ADMIN] == {"Freeze"}
    assert by_role[Role.READ] == {
        *("GetStatus", "ListModels", "GetHistory", "Watch", "Score", "GetModel"),
        *("ServerReflectionInfo", "GetDrift", "GetEvents", "GetQuality"),
    }


@pytest.mark.parametrize("method", sorted(CONTROL.methods_by_name))
def test_the_matrix(world: ControlWorld, secrets: dict[str, str], method: str) -> None:
    needed = ROLES[f"/{CONTROL.full_name}/{method}"]
    for name, role in WHO.items():
        code = call(world, method, metadata=bearer(secrets[name]))
        assert (code is grpc.StatusCode.PERMISSION_DENIED) == (role < needed), name
        assert code is not grpc.StatusCode.UNAUTHENTICATED
    for metadata in ((), bearer("sgt_wrong"), (("authorization", "Basic eA=="),)):
        assert call(world, method, metadata=metadata) is grpc.StatusCode.UNAUTHENTICATED


def test_texts_say_what_to_do(world: ControlWorld, secrets: dict[str, str]) -> None:
    text = refused(lambda: world.control.GetStatus(pb.GetStatusRequest())).text
    assert "needs a token" in text
    assert "SCOREGATE_TOKEN" in text
    metadata = bearer(secrets["reader"])
    failed = refused(lambda: world.control.Freeze(pb.FreezeRequest(), metadata=metadata))
    assert failed.text == "Freeze needs the role admin; the token reader has read"


def test_a_refused_message_is_not_parsed(world: ControlWorld) -> None:
    answer = raw_call(world.channel, f"/{CONTROL.full_name}/Deploy", b"\xff not protobuf")
    assert answer.code is grpc.StatusCode.UNAUTHENTICATED


def test_scoring_needs_the_least_role(world: ControlWorld, secrets: dict[str, str]) -> None:
    assert raw_call(world.channel, SCORE, b"").code is grpc.StatusCode.UNAUTHENTICATED
    made: Any = world.channel.unary_unary(SCORE)
    assert made(b"", metadata=bearer(secrets["reader"]), timeout=10) == b""


def test_health_is_open_and_reflection_is_not(world: ControlWorld) -> None:
    assert check_health(world.channel) == "SERVING"
    watch: Any = world.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    stream = watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert next(stream).status == health_pb2.HealthCheckResponse.SERVING
    stream.cancel()
    ask: Any = world.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    failed = refused(lambda: list(ask(iter([reflection_pb2.ServerReflectionRequest()]))))
    assert failed.code is grpc.StatusCode.UNAUTHENTICATED


def test_what_is_not_served_stays_unimplemented(world: ControlWorld) -> None:
    answer = raw_call(world.channel, "/scoregate.v1.Control/Nope", b"")
    assert answer.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "sgt_x", "Basic sgt_x", "Bearer sgt_x", "Bearer \u20ac"]
)
def test_what_is_no_token(access: Access, value: str) -> None:
    with pytest.raises(UnauthenticatedError):
        access.caller((("authorization", value),))


def test_two_tokens_are_none_and_the_scheme_has_no_case(
    access: Access, secrets: dict[str, str]
) -> None:
    one = ("authorization", f"bEARER  {secrets['admin']} ")
    found = access.caller((("other", "x"), one))
    assert found is not None
    assert found.name == "admin"
    with pytest.raises(UnauthenticatedError, match="not one bearer token"):
        access.caller((one, one))


def test_without_a_file_everybody_may_do_everything() -> None:
    access = Access()
    for method in ROLES:
        access.check(method, ())
    assert access.caller(bearer("x")) is None


def test_a_revoked_token_ends_its_watch(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    secret = tokens_file(path, alice="read")["alice"]
    settings = ControlSettings(port=0, tokens_file=str(path))
    with ControlWorld(copy_repository(tmp_path / "repository"), settings) as world:
        stream = world.control.Watch(
            pb.WatchRequest(interval_ms=50), metadata=bearer(secret), timeout=30
        )
        assert next(stream).HasField("plan")
        tokens_file(path, bob="read")
        failed = refused(lambda: list(stream))
        assert failed.code is grpc.StatusCode.UNAUTHENTICATED
        assert "revoked" in failed.text


def test_changes_carry_the_tokens_name(world: ControlWorld, secrets: dict[str, str]) -> None:
    options = pb.ChangeOptions(who="somebody else", why="because")
    metadata = bearer(secrets["operator"])
    request = pb.SetLabelsRequest(set={"stable": "1"}, options=options)
    world.control.SetLabels(request, metadata=metadata, timeout=10)
    [newest] = world.control.GetHistory(
        pb.GetHistoryRequest(limit=1), metadata=metadata, timeout=10
    ).changes
    assert (newest.who, newest.is_verified, newest.why) == ("operator", True, "because")
