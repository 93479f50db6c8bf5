"""Versions on disk and in memory: what is listed, and why something is broken."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from server.control.models import KnownThresholds, look_at
from server.pb.scoregate.v1 import control_pb2 as pb
from server.rollout.loaded import Key
from tests.support.control import ControlWorld, refused
from tests.support.serving import MODEL, copy_repository, example_repository

AVAILABLE = pb.MODEL_VERSION_STATE_AVAILABLE
LOADED = pb.MODEL_VERSION_STATE_LOADED
SERVING = pb.MODEL_VERSION_STATE_SERVING
BROKEN = pb.MODEL_VERSION_STATE_BROKEN
Code = grpc.StatusCode


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_repository(tmp_path / "repository")


@pytest.fixture
def world(repository: Path) -> Iterator[ControlWorld]:
    with ControlWorld(repository) as made:
        yield made


def versions(world: ControlWorld, model: str = "") -> dict[str, pb.ModelVersion]:
    answer = world.control.ListModels(pb.ListModelsRequest(model=model), timeout=10)
    [found] = answer.models
    assert (found.model, found.is_default) == (MODEL, True)
    return {version.version: version for version in found.versions}


def test_what_is_listed(world: ControlWorld) -> None:
    world.control.SetLabels(pb.SetLabelsRequest(set={"next": "2", "stable": "1"}), timeout=10)
    found = versions(world)
    assert list(found) == ["2", "1"]
    one, two = found["1"], found["2"]
    assert (one.state, one.arm, one.weight_basis_points) == (SERVING, "champion", 10_000)
    assert (one.engine, list(one.labels), one.detail) == ("forest", ["stable"], "")
    assert one.resident_bytes > 0
    assert one.sha256 == world.score().sha256
    assert (two.state, two.arm, two.resident_bytes) == (AVAILABLE, "", 0)
    assert list(two.labels) == ["next"]
    manifest = example_repository().path / MODEL / "2" / "manifest.json"
    assert two.created == json.loads(manifest.read_text("utf-8"))["created"]
    assert versions(world, MODEL) == found


def test_load_keeps_and_unload_frees(world: ControlWorld) -> None:
    answer = world.control.LoadModel(pb.LoadModelRequest(version="2"), timeout=30)
    assert (answer.version.version, answer.version.state) == ("2", LOADED)
    assert answer.load_ms > 0
    assert answer.version.engine == "linear"
    world.rollout.keep(set())
    assert versions(world)["2"].state == LOADED
    freed = world.control.UnloadModel(pb.UnloadModelRequest(version="2"), timeout=10).freed_bytes
    assert freed == answer.version.resident_bytes > 0
    assert versions(world)["2"].state == AVAILABLE


@pytest.mark.parametrize(
    ("method", "request_", "code", "message"),
    [
        ("LoadModel", pb.LoadModelRequest(version="9"), Code.NOT_FOUND, "there is 1, 2"),
        ("LoadModel", pb.LoadModelRequest(model="x"), Code.NOT_FOUND, "no such directory"),
        ("LoadModel", pb.LoadModelRequest(version="../1"), Code.INVALID_ARGUMENT, "not a name"),
        ("LoadModel", pb.LoadModelRequest(model="a/b"), Code.INVALID_ARGUMENT, "not a name"),
        ("UnloadModel", pb.UnloadModelRequest(), Code.INVALID_ARGUMENT, "say which one"),
        ("UnloadModel", pb.UnloadModelRequest(version="1"), Code.INVALID_ARGUMENT, "serves"),
        ("UnloadModel", pb.UnloadModelRequest(version="2"), Code.INVALID_ARGUMENT, "not loaded"),
        ("ListModels", pb.ListModelsRequest(model="x"), Code.NOT_FOUND, "there is fraud"),
        ("ListModels", pb.ListModelsRequest(model=".."), Code.INVALID_ARGUMENT, "not a name"),
    ],
)
def test_refusals(
    world: ControlWorld, method: str, request_: object, code: grpc.StatusCode, message: str
) -> None:
    failed = refused(lambda: getattr(world.control, method)(request_, timeout=10))
    assert failed.code is code
    assert message in failed.text


def no_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()


def garbled_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("{")


def other_version(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "version": "7"}), "utf-8")


def shorter_model(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"x")


def no_model(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()


def garbled_schema(bundle: Path) -> None:
    path = bundle / "schema.json"
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_manifest, "manifest.json: the file is missing"),
        (garbled_manifest, "manifest.json"),
        (other_version, "the manifest says fraud 7"),
        (shorter_model, "model.onnx: holds 1 bytes"),
        (no_model, "model.onnx: No such file"),
        (garbled_schema, "schema.json"),
    ],
)
def test_what_is_broken_says_why(
    world: ControlWorld, repository: Path, damage: Callable[[Path], None], message: str
) -> None:
    assert look_at(repository / MODEL / "2", MODEL, "2").problem == ""
    damage(repository / MODEL / "2")
    two = versions(world)["2"]
    assert two.state == BROKEN
    assert message in two.detail
    # And what serves from memory says that it could not be loaded again.
    damage(repository / MODEL / "1")
    one = versions(world)["1"]
    assert one.state == SERVING
    assert one.detail.startswith("serves from memory; on disk it could not be loaded again")


def test_what_only_a_load_finds_is_remembered(world: ControlWorld, repository: Path) -> None:
    path = repository / MODEL / "2" / "model.onnx"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert versions(world)["2"].state == AVAILABLE
    failed = refused(lambda: world.control.LoadModel(pb.LoadModelRequest(version="2"), timeout=30))
    assert failed.code is Code.FAILED_PRECONDITION
    two = versions(world)["2"]
    assert (two.state, two.detail) == (BROKEN, failed.text)
    path.write_bytes(data)
    world.control.LoadModel(pb.LoadModelRequest(version="2"), timeout=30)
    assert versions(world)["2"].state == LOADED


def test_content_replaced_under_what_serves_is_told(world: ControlWorld, repository: Path) -> None:
    path = repository / MODEL / "1" / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**document, "created": "2000-01-01T00:00:00Z"}), "utf-8")
    one = versions(world)["1"]
    assert one.state == SERVING
    assert "on disk is another content" in one.detail
    assert one.sha256 == world.score().sha256
    assert one.created == document["created"]


def test_thresholds_of_a_bundle_that_is_not_in_memory(
    world: ControlWorld, repository: Path
) -> None:
    known = KnownThresholds(world.rollout)
    key = Key(MODEL, "2", world.rollout.repository.digest(MODEL, "2"))
    assert [(name, score) for name, _, score in known(key)] == [("review", 0.3), ("decline", 0.8)]
    assert known(Key(MODEL, "2", "0" * 64)) == ()
    assert known(Key(MODEL, "9", key.sha256)) == ()
    no_manifest(repository / MODEL / "2")
    assert known(key)  # remembered: a content does not change
    assert KnownThresholds(world.rollout)(key) == ()
