"""What is found in a repository, served at first, and that failed changes change nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fastpath.engine import Engine
from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from server.config import Settings
from server.control.describe import describe_model
from server.errors import BundleError, ScoregateError, StartError
from server.pb.scoregate.v1 import scoring_pb2 as pb
from server.repository import Repository, natural_key
from server.rollout.change import Author
from server.rollout.opening import open_rollout
from server.rollout.verbs import Verbs
from tests.support.serving import FEATURES, MODEL, copy_repository, example_repository


class World:
    """A registry over a repository, and an engine that shows what serves."""

    def __init__(self, repository: Path, default_model: str = "") -> None:
        self.board = PlanBoard()
        self.metrics = Metrics(1)
        self.repository = Repository(repository)
        self.default_model = default_model
        settings = Settings(repository=str(repository))
        self.rollout = open_rollout(settings, self.board, self.metrics, describe_model)
        self.verbs = Verbs(self.rollout)
        self.engine = Engine(self.board, self.metrics)

    def start(self, wanted: Sequence[str] = ()) -> None:
        """Serve the first plan."""
        self.rollout.start(wanted, self.default_model)

    def switch(self, version: str, model: str = "") -> None:
        """Serve another version instead."""
        author = Author("test")
        self.verbs.deploy(author, model, version, 0)
        self.verbs.promote(author, model, version)

    def score(self, model: str = "") -> pb.ScoreResponse:
        request = pb.ScoreRequest(request_id="r", model=model)
        for name in FEATURES:
            request.named.values[name].number = 1.0
        [(status, body, text)] = self.engine.answer(
            [request.SerializeToString()], now_ns=time.monotonic_ns()
        )
        assert status == 0, text
        return pb.ScoreResponse.FromString(body)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_repository(tmp_path / "repository")


def rename(bundle: Path, version: str, model: str = MODEL) -> Path:
    """Give a bundle another version; only the manifest says it."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    manifest.update(name=model, version=version)
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    target = bundle.parents[1] / model / version
    target.parent.mkdir(exist_ok=True)
    return bundle.rename(target)


@pytest.mark.parametrize(
    "ordered",
    [
        ["1", "2", "9", "10", "11"],
        ["1.2", "1.10", "1.10.1", "2"],
        ["2024-9", "2024-10", "2025-1"],
        ["v9", "v10", "v10-rc1", "v10-rc2"],
        ["1", "a"],
        ["7", "007a"],
    ],
)
def test_natural_order(ordered: list[str], rng: np.random.Generator) -> None:
    assert sorted(rng.permutation(ordered).tolist(), key=natural_key) == ordered


class TestFinding:
    def test_the_newest_version_serves(self, repository: Path) -> None:
        rename(repository / MODEL / "1", "10")
        world = World(repository)
        world.start()
        assert world.repository.versions(MODEL) == ["2", "10"]
        assert world.score().version == "10"
        assert [arm.engine for arm in world.rollout.arms] == ["forest"]

    def test_a_version_can_be_named(self, repository: Path) -> None:
        world = World(repository)
        world.start([f"{MODEL}@1"])
        assert world.score().version == "1"

    def test_what_is_not_a_bundle_directory_is_not_looked_at(self, repository: Path) -> None:
        (repository / "README").write_text("x", "utf-8")
        (repository / ".tmp").mkdir()
        (repository / MODEL / ".2.aside").mkdir()
        world = World(repository)
        assert world.repository.models() == [MODEL]
        assert world.repository.versions(MODEL) == ["1", "2"]

    def test_several_models(self, repository: Path) -> None:
        rename(repository / MODEL / "2", "5", model="limits")
        first = World(repository)
        with pytest.raises(StartError, match="default_model: say which of fraud, limits answers"):
            first.start()
        first.rollout.close()
        world = World(repository, default_model="limits")
        world.start()
        assert world.score().model == "limits"
        assert world.score("fraud").model == "fraud"
        assert world.rollout.default_model == "limits"

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            (["nope"], "no such directory"),
            ([f"{MODEL}@3"], "no version 3 of this model; there is 1, 2"),
            (["../repository"], "is not a model's name"),
            ([f"{MODEL}@../1"], "is not a version's name"),
            ([MODEL, f"{MODEL}@1"], "one version of a model can serve"),
        ],
    )
    def test_what_is_not_there(self, repository: Path, wanted: list[str], message: str) -> None:
        world = World(repository)
        with pytest.raises(StartError, match=message):
            world.start(wanted)
        assert world.rollout.generation == 0

    def test_an_empty_or_missing_repository(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        with pytest.raises(StartError, match="no models; `scoregate export` writes"):
            world.start()
        (tmp_path / MODEL).mkdir()
        with pytest.raises(StartError, match="no versions of this model"):
            world.start()
        with pytest.raises(StartError, match="nope: no such directory"):
            World(tmp_path / "nope").start()

    def test_the_default_model_must_be_served(self, repository: Path) -> None:
        with pytest.raises(StartError, match="other is not among the models: fraud"):
            World(repository, default_model="other").start()


def flip_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def drop(file: Path) -> None:
    file.unlink()


def newer_format(file: Path) -> None:
    manifest = file.with_name("manifest.json")
    document = json.loads(manifest.read_text("utf-8"))
    manifest.write_text(json.dumps({**document, "format": "2.0"}), "utf-8")


def other_name(file: Path) -> None:
    manifest = file.with_name("manifest.json")
    document = json.loads(manifest.read_text("utf-8"))
    manifest.write_text(json.dumps({**document, "version": "7"}), "utf-8")


class TestFailedLoads:
    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (flip_byte, "model.onnx: the content was changed"),
            (drop, "model.onnx: the file is missing"),
            (newer_format, "manifest.json: format 2.0 is newer"),
            (other_name, "the manifest says fraud 7"),
        ],
    )
    def test_leave_what_serves_untouched(
        self, repository: Path, damage: Callable[[Path], None], message: str
    ) -> None:
        world = World(repository)
        world.start([f"{MODEL}@1"])
        before = world.score()
        plan = world.board.published
        damage(repository / MODEL / "2" / "model.onnx")
        with pytest.raises(BundleError, match=message):
            world.switch("2")
        assert world.board.published is plan
        assert world.score() == before
        assert [arm.version for arm in world.rollout.arms] == ["1"]
        # And nothing is stuck: an arm can still change its share.
        world.verbs.set_thresholds(Author("test"), MODEL, "", {"review": 0.5})
        assert world.rollout.arms[0].thresholds[0][2] == 0.5

    def test_a_version_that_is_not_there(self, repository: Path) -> None:
        world = World(repository)
        world.start([MODEL])
        with pytest.raises(ScoregateError, match="no version 99"):
            world.switch("99")
        assert world.score().version == "2"


class TestGenerations:
    def test_grow_with_every_change_and_across_restarts(self, repository: Path) -> None:
        world = World(repository)
        seen = []
        world.start([f"{MODEL}@1"])
        for version in ("2", "1", "2"):
            seen.append(world.score().plan_generation)
            world.switch(version)
            assert world.score().version == version
        assert seen == sorted(set(seen))
        last = world.score()
        world.rollout.close()
        again = World(repository)
        again.start()
        # The very plan: models, generation, buckets.
        assert again.score() == last
        again.switch("1")
        assert again.rollout.generation > last.plan_generation > seen[-1]

    def test_routing_survives_a_swap(self, repository: Path) -> None:
        world = World(repository)
        world.start([f"{MODEL}@1"])
        bucket = world.score().bucket
        world.switch("2")
        assert world.score().bucket == bucket


def test_the_description_says_what_the_bundle_says(repository: Path) -> None:
    world = World(repository)
    world.start([f"{MODEL}@1"])
    assert world.rollout.served is not None
    [served] = world.rollout.served.models
    answer = pb.GetModelResponse.FromString(describe_model(served, True, 7))
    [arm] = answer.arms
    assert (answer.model, answer.is_default, answer.plan_generation) == (MODEL, True, 7)
    assert answer.routing_entity == "customer"
    assert [layout.fingerprint for layout in answer.layouts] == [arm.layout]
    assert [column.name for column in answer.layouts[0].columns] == list(FEATURES)
    assert [(t.name, t.score) for t in arm.thresholds] == [("review", 0.3), ("decline", 0.8)]
    amount, night, n_day, risk = arm.features
    assert (amount.required, amount.minimum, amount.maximum) == (True, 0.0, 1e6)
    assert night.type == pb.FEATURE_TYPE_BOOLEAN
    assert n_day.default_value == 1.0
    assert not risk.HasField("minimum")
    assert not risk.HasField("maximum")
    assert example_repository().models["1"].n_features_in_ == len(arm.features)
