"""Where no plan of the journal can be served: what brings a server back, and what it leaves out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.errors import BundleError, ChangeError, ConflictError, StartError
from server.rollout.change import Author
from server.rollout.rollout import NothingServableError
from tests.support.rollouts import ANNA, World, damaged, replaced
from tests.support.serving import MODEL, copy_repository
from tests.support.versions import add_version


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = copy_repository(tmp_path / "repository")
    add_version(path, "3", "1")
    add_version(path, "4", "2")
    return path


@pytest.fixture
def world(repository: Path) -> Iterator[World]:
    world = World(repository)
    world.rollout.start([f"{MODEL}@1"])
    yield world
    world.rollout.close()


def stranded(path: Path) -> World:
    """A rollout over a repository where no plan of the journal can be served."""
    world = World(path)
    with pytest.raises(NothingServableError, match=r"no plan of the journal .*rollback --to \d+"):
        world.rollout.start([])
    assert world.rollout.served is None
    return world


@pytest.mark.parametrize("harm", [damaged, shutil.rmtree])
def test_where_nothing_can_be_served_a_deployment_begins_again(
    world: World, harm: Callable[[Path], object]
) -> None:
    world.verbs.set_labels(ANNA, MODEL, {"next": "2"})
    world.verbs.set_overrides(ANNA, MODEL, {"vip": "champion"})
    last = world.rollout.generation
    world.rollout.close()
    harm(world.path / MODEL / "1")
    again = stranded(world.path)
    with pytest.raises(ChangeError, match=r"model fraud cannot be served as it was.* with 100 %,"):
        again.verbs.deploy(ANNA, MODEL, "2", 1_000)
    with pytest.raises((BundleError, StartError)):
        again.verbs.deploy(ANNA, MODEL, "1", 10_000)
    dry = again.verbs.deploy(Author("bob", dry_run=True), "", "next", 10_000)
    assert dry.dry_run
    assert again.rollout.served is None
    outcome = again.verbs.deploy(ANNA, "", "next", 10_000)
    assert outcome.notes == (*dry.notes,)
    assert outcome.notes[0] == ("model fraud begins again with 2; former arms: champion (1, 100 %)")
    assert "overrides that pinned 'vip'" in outcome.notes[1]
    assert again.split() == {"champion": ("2", 10_000)}
    assert again.score().version == "2"
    assert again.rollout.generation > last
    assert again.rollout.state().models[0].labels == {"next": "2"}
    assert again.verbs_of_journal()[-1] == "deploy"
    again.rollout.close()
    # From then on everything is as ever.
    third = World(world.path)
    third.rollout.start([])
    assert third.split() == {"champion": ("2", 10_000)}
    third.verbs.deploy(ANNA, MODEL, "4", 1_000)
    assert third.split() == {"champion": ("2", 9_000), "canary": ("4", 1_000)}
    third.rollout.close()


def test_a_bundle_that_was_replaced_can_be_deployed_as_what_it_is_now(world: World) -> None:
    world.rollout.close()
    replaced(world.path / MODEL / "1")
    again = stranded(world.path)
    again.verbs.deploy(ANNA, MODEL, "1", 10_000)
    assert again.score().version == "1"
    again.rollout.close()


def test_where_nothing_can_be_served_a_rollback_serves_what_is_back(world: World) -> None:
    world.verbs.set_thresholds(ANNA, MODEL, "", {"review": 0.4})
    last = world.rollout.generation
    world.rollout.close()
    bundle = world.path / MODEL / "1"
    bundle.rename(world.path / "elsewhere")
    again = stranded(world.path)
    with pytest.raises(StartError, match="no version 1"):
        again.verbs.rollback(ANNA, last)
    (world.path / "elsewhere").rename(bundle)
    again.verbs.rollback(ANNA, last)
    assert again.split() == {"champion": ("1", 10_000)}
    assert again.rollout.arms[0].thresholds[0][2] == 0.4
    assert again.rollout.generation > last
    again.rollout.close()


def test_beginning_again_leaves_out_other_models_but_not_the_default_one(world: World) -> None:
    for model in ("limits", "spend"):
        add_version(world.path, "7", "2", model=model)
        world.verbs.deploy(ANNA, model, "7", 10_000)
    world.rollout.close()
    for model, version in ((MODEL, "1"), ("limits", "7")):
        shutil.rmtree(world.path / model / version)
    # What was first in the journal was fraud 1 alone, and that is gone too.
    add_version(world.path, "8", "2", model="limits")
    again = stranded(world.path)
    with pytest.raises(
        ChangeError, match=r"the default model fraud cannot be served: .*no version"
    ):
        again.verbs.deploy(ANNA, "limits", "8", 10_000)
    with pytest.raises(ChangeError, match="the default model fraud cannot be served"):
        again.verbs.deploy(ANNA, "spend", "7", 10_000)
    with pytest.raises(ChangeError, match="the default model limits cannot be served"):
        again.verbs.set_default_model(ANNA, "limits")
    outcome = again.verbs.set_default_model(ANNA, "spend")
    assert [note[:30] for note in outcome.notes] == [
        "model fraud cannot be served a", "model limits cannot be served ",
    ]  # fmt: skip
    assert again.score().model == "spend"
    again.verbs.deploy(ANNA, MODEL, "2", 10_000)
    assert again.score(model=MODEL).version == "2"
    again.rollout.close()


def test_frozen_changes_do_not_keep_a_server_from_serving(world: World) -> None:
    world.verbs.freeze(Author("anna", why="black friday"), frozen=True)
    world.rollout.close()
    shutil.rmtree(world.path / MODEL / "1")
    again = stranded(world.path)
    with pytest.raises(ConflictError, match="frozen"):
        again.verbs.set_traffic(ANNA, MODEL, {"champion": 10_000})
    assert again.rollout.frozen == "black friday"
    outcome = again.verbs.deploy(ANNA, MODEL, "2", 10_000)
    assert outcome.notes[-1] == "nothing was in force; changes stay frozen: black friday"
    with pytest.raises(ConflictError, match="frozen"):
        again.verbs.deploy(ANNA, MODEL, "3", 1_000)
    again.rollout.close()
