"""Changing what serves: every step, what refuses it, what it leaves behind, and the way back."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastpath.errors import PlanError
from server.errors import BundleError, ChangeError, ConflictError, JournalError, StartError
from server.rollout.change import Author
from server.rollout.entry import Entry
from server.rollout.keeper import Keeper
from server.rollout.state import unpack_table
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


def test_a_version_is_deployed_raised_promoted_and_taken_back(world: World) -> None:
    first = world.rollout.generation
    assert world.split() == {"champion": ("1", 10_000)}
    outcome = world.verbs.deploy(ANNA, "", "2", 1_000)
    assert world.split() == {"champion": ("1", 9_000), "canary": ("2", 1_000)}
    assert outcome.n_buckets_moved == 1_000
    world.verbs.set_traffic(ANNA, MODEL, {"1": 5_000, "canary": 5_000})
    assert world.split() == {"champion": ("1", 5_000), "canary": ("2", 5_000)}
    halves = {key: world.score(key).version for key in map(str, range(200))}
    assert set(halves.values()) == {"1", "2"}
    half = world.rollout.generation
    world.verbs.promote(ANNA, MODEL)
    assert world.split() == {"champion": ("2", 10_000)}
    assert {world.score(key).version for key in halves} == {"2"}
    world.verbs.rollback(ANNA)
    assert world.split() == {"champion": ("1", 5_000), "canary": ("2", 5_000)}
    assert {key: world.score(key).version for key in halves} == halves
    world.verbs.rollback(ANNA, first)
    assert world.split() == {"champion": ("1", 10_000)}
    assert world.verbs_of_journal() == [
        "start", "deploy", "traffic", "promote", "rollback", "rollback",
    ]  # fmt: skip
    last = world.rollout.journal.last()
    assert last is not None
    assert (last.who, last.is_verified, last.why) == ("anna", True, "because")
    assert last.arguments == {"generation": first}
    assert first < half < last.generation == world.score().plan_generation


def test_each_rollback_goes_one_plan_farther_back(world: World) -> None:
    splits = [world.split()]
    for basis_points in (1_000, 5_000):
        if len(splits) == 1:
            world.verbs.deploy(ANNA, MODEL, "2", basis_points)
        else:
            weights = {"champion": 10_000 - basis_points, "canary": basis_points}
            world.verbs.set_traffic(ANNA, MODEL, weights)
        splits.append(world.split())
    world.verbs.promote(ANNA, MODEL)
    promoted = world.rollout.generation
    world.verbs.rollback(ANNA)
    assert world.split() == splits[2]
    # Neither a freeze nor new tables of features make the bad plan "the one before".
    world.verbs.freeze(ANNA, frozen=True)
    world.rollout.renew_tables()
    world.verbs.rollback(ANNA)
    assert world.split() == splits[1]
    world.verbs.rollback(ANNA)
    assert world.split() == splits[0]
    with pytest.raises(ChangeError, match="no plan before"):
        world.verbs.rollback(ANNA)
    # What was left is reached by its generation; from there, one step back is where one came from.
    world.verbs.rollback(ANNA, promoted)
    assert world.split() == {"champion": ("2", 10_000)}
    world.verbs.rollback(ANNA)
    assert world.split() == splits[0]


def test_the_only_plan_cannot_be_rolled_back(world: World) -> None:
    plan = world.board.published
    with pytest.raises(ChangeError, match="there is no plan before the one in force"):
        world.verbs.rollback(ANNA)
    with pytest.raises(ChangeError, match="the journal has no generation 17"):
        world.verbs.rollback(ANNA, 17)
    assert world.board.published is plan
    assert world.verbs_of_journal() == ["start"]


def test_a_dry_run_says_everything_and_changes_nothing(world: World) -> None:
    plan = world.board.published
    outcome = world.verbs.deploy(Author("bob", dry_run=True), MODEL, "2", 1_000)
    assert outcome.dry_run
    assert outcome.n_buckets_moved == 1_000
    [model] = outcome.after.models
    assert [(arm.version, arm.weight_basis_points) for arm in model.arms] == [
        ("1", 9_000),
        ("2", 1_000),
    ]
    assert world.board.published is plan
    assert world.verbs_of_journal() == ["start"]


def test_a_change_decided_on_another_generation_is_refused(world: World) -> None:
    seen = world.rollout.generation
    world.verbs.deploy(Author("anna", expected_generation=seen), MODEL, "2", 1_000)
    with pytest.raises(ConflictError, match=f"the change was decided on {seen}"):
        world.verbs.promote(Author("bob", expected_generation=seen), MODEL)
    assert world.split() == {"champion": ("1", 9_000), "canary": ("2", 1_000)}


def test_frozen_changes_are_refused_but_for_a_rollback(world: World) -> None:
    world.verbs.deploy(ANNA, MODEL, "2", 1_000)
    world.verbs.freeze(Author("anna", why="black friday"), frozen=True)
    with pytest.raises(ConflictError, match="frozen: black friday"):
        world.verbs.promote(ANNA, MODEL)
    world.verbs.rollback(ANNA)
    assert world.split() == {"champion": ("1", 10_000)}
    with pytest.raises(ConflictError, match="frozen"):
        world.verbs.deploy(ANNA, MODEL, "2", 1_000)
    world.verbs.freeze(ANNA, frozen=False)
    world.verbs.deploy(ANNA, MODEL, "2", 1_000)


def test_thresholds_are_scores_that_become_raw_scores(world: World) -> None:
    [before] = world.rollout.arms
    outcome = world.verbs.set_thresholds(ANNA, MODEL, "", {"review": 0.6})
    assert outcome.n_buckets_moved == 0
    [arm] = world.rollout.arms
    (review, raw, score), decline = arm.thresholds
    assert (review, score) == ("review", 0.6)
    assert 1 / (1 + math.exp(-raw)) == pytest.approx(0.6, abs=1e-7)
    assert decline == before.thresholds[1]
    answer = world.score()
    assert answer.decision == ("approve" if answer.score < 0.6 else "review")
    with pytest.raises(ChangeError, match="no threshold revue"):
        world.verbs.set_thresholds(ANNA, MODEL, "", {"revue": 0.5})
    with pytest.raises(ChangeError, match=r"review=0\.9 has to be below decline=0\.8"):
        world.verbs.set_thresholds(ANNA, MODEL, "champion", {"review": 0.9})
    world.verbs.set_thresholds(ANNA, MODEL, "1", {})
    assert world.rollout.arms[0].thresholds == before.thresholds


def test_keys_are_pinned_and_labels_name_versions(world: World) -> None:
    world.verbs.set_labels(ANNA, MODEL, {"next": "2"})
    world.verbs.deploy(ANNA, MODEL, "next", 0)
    assert world.split() == {"champion": ("1", 10_000), "canary": ("2", 0)}
    world.verbs.set_overrides(ANNA, MODEL, {"card-7": "canary"})
    assert world.score("card-7").arm == "canary"
    assert world.score("card-8").arm == "champion"
    with pytest.raises(StartError, match="no version 99"):
        world.verbs.set_labels(ANNA, MODEL, {"next": "99"})
    world.verbs.set_overrides(ANNA, MODEL, {}, ["card-7"])
    assert world.score("card-7").arm == "champion"


def test_another_model_answers_requests_that_name_none(world: World) -> None:
    add_version(world.path, "7", "2", model="limits")
    with pytest.raises(ChangeError, match="'limits' does not serve; models that do: fraud"):
        world.verbs.set_default_model(ANNA, "limits")
    world.verbs.deploy(ANNA, "limits", "7", 10_000)
    assert world.score().model == MODEL
    dry = world.verbs.set_default_model(Author("bob", dry_run=True), "limits")
    assert (dry.dry_run, dry.after.default_model) == (True, "limits")
    assert world.score().model == world.rollout.default_model == MODEL
    outcome = world.verbs.set_default_model(ANNA, "limits")
    assert (outcome.n_buckets_moved, world.score().model) == (0, "limits")
    assert world.score(model=MODEL).model == MODEL
    last = world.rollout.journal.last()
    assert last is not None
    assert (last.verb, last.arguments, last.why) == ("default", {"model": "limits"}, "because")
    # A restart keeps it, whatever the settings say; a rollback takes it back.
    world.rollout.close()
    again = World(world.path)
    again.rollout.start([f"{MODEL}@1"], MODEL)
    assert again.score().model == "limits"
    again.verbs.rollback(ANNA)
    assert again.score().model == MODEL
    again.rollout.close()


def test_versions_that_split_by_different_entities_do_not_serve_together(world: World) -> None:
    manifest = world.path / MODEL / "2" / "manifest.json"
    document = json.loads(manifest.read_text("utf-8"))
    manifest.write_text(json.dumps({**document, "routing_entity": "card"}), "utf-8")
    with pytest.raises(PlanError, match="1: customer, 2: card"):
        world.verbs.deploy(ANNA, MODEL, "2", 1_000)
    assert world.split() == {"champion": ("1", 10_000)}


def test_what_changes_nothing_is_not_written_down(world: World) -> None:
    outcome = world.verbs.set_traffic(ANNA, MODEL, {"champion": 10_000})
    assert outcome.before == outcome.after
    assert "nothing to change" in outcome.notes[-1]
    assert world.verbs_of_journal() == ["start"]


@pytest.mark.parametrize(
    ("version", "harm", "kind", "message"),
    [
        ("2", damaged, BundleError, "the content was changed"),
        ("2", shutil.rmtree, StartError, "no version 2"),
        ("9", None, StartError, "no version 9 of this model; there is 1, 2, 3, 4"),
    ],
)
def test_what_cannot_be_loaded_leaves_everything_as_it_is(
    world: World,
    version: str,
    harm: Callable[[Path], object] | None,
    kind: type[Exception],
    message: str,
) -> None:
    plan = world.board.published
    if harm is not None:
        harm(world.path / MODEL / version)
    with pytest.raises(kind, match=message):
        world.verbs.deploy(ANNA, MODEL, version, 1_000)
    assert world.board.published is plan
    assert world.verbs_of_journal() == ["start"]
    world.verbs.deploy(ANNA, MODEL, "3", 1_000)


def test_what_cannot_be_written_down_is_not_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.board.published

    def full(entry: Entry) -> Entry:
        raise JournalError("the disk is full; nothing was changed")

    monkeypatch.setattr(world.rollout.journal, "append", full)
    with pytest.raises(JournalError, match="disk is full"):
        world.verbs.deploy(ANNA, MODEL, "2", 1_000)
    assert world.board.published is plan
    assert world.split() == {"champion": ("1", 10_000)}
    monkeypatch.undo()
    world.verbs.deploy(ANNA, MODEL, "2", 1_000)
    assert world.split()["canary"] == ("2", 1_000)


def test_a_restart_resumes_the_exact_plan(world: World) -> None:
    world.verbs.deploy(ANNA, MODEL, "2", 3_333)
    world.verbs.set_traffic(ANNA, MODEL, {"champion": 8_000, "canary": 2_000})
    world.verbs.set_thresholds(ANNA, MODEL, "canary", {"review": 0.123})
    world.verbs.set_overrides(ANNA, MODEL, {"vip": "canary"})
    before = [world.score(str(key)) for key in range(300)] + [world.score("vip")]
    served = world.rollout.served
    assert served is not None
    world.rollout.close()
    again = World(world.path)
    again.rollout.start([f"{MODEL}@4"])
    assert [again.score(str(key)) for key in range(300)] + [again.score("vip")] == before
    assert again.rollout.served is not None
    assert again.rollout.served.state == served.state
    assert again.verbs_of_journal()[-1] == "overrides"
    again.rollout.close()


def test_a_restart_without_the_journal_starts_as_it_is_told(world: World) -> None:
    world.verbs.deploy(ANNA, MODEL, "2", 5_000)
    last = world.rollout.generation
    world.rollout.close()
    again = World(world.path)
    again.rollout.start([f"{MODEL}@4"], resume=False)
    assert again.split() == {"champion": ("4", 10_000)}
    assert again.rollout.generation > last
    again.verbs.rollback(ANNA)
    assert again.split() == {"champion": ("1", 5_000), "canary": ("2", 5_000)}
    again.rollout.close()


@pytest.mark.parametrize("harm", [damaged, shutil.rmtree])
def test_a_plan_that_cannot_be_read_again_gives_way_to_the_last_that_can(
    world: World, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    world.verbs.deploy(ANNA, MODEL, "2", 1_000)
    world.verbs.deploy(ANNA, MODEL, "4", 1_000)
    broken = world.rollout.generation
    world.verbs.set_thresholds(ANNA, MODEL, "", {"review": 0.4})
    world.rollout.close()
    harm(world.path / MODEL / "4")
    again = World(world.path)
    again.rollout.start([])
    assert again.split() == {"champion": ("1", 9_000), "canary": ("2", 1_000)}
    assert again.verbs_of_journal()[-1] == "recover"
    assert "RECOVERED" in caplog.text
    with pytest.raises((BundleError, StartError)):
        again.verbs.rollback(ANNA, broken)
    again.rollout.close()


def test_a_bundle_that_was_replaced_is_another_model(world: World) -> None:
    world.verbs.deploy(ANNA, MODEL, "2", 1_000)
    world.rollout.close()
    replaced(world.path / MODEL / "2")
    again = World(world.path)
    again.rollout.start([])
    # What was journaled was another content under this version.
    assert again.split() == {"champion": ("1", 10_000)}
    again.rollout.close()


def test_a_listener_that_fails_does_not_make_a_change_look_failed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Entry] = []

    def fail(entry: Entry) -> None:
        raise RuntimeError("deaf")

    world.rollout.listen(fail)
    world.rollout.listen(heard.append)
    world.verbs.deploy(ANNA, MODEL, "2", 1_000)
    assert [entry.generation for entry in heard] == [world.rollout.generation]
    assert "failed to take generation" in caplog.text


def test_models_of_former_plans_stay_as_long_as_they_may(repository: Path) -> None:
    world = World(repository, keep_plans=1, keep_s=1000.0)
    world.rollout.start([f"{MODEL}@1"])

    def loaded() -> set[str]:
        return {one.key.version for one in world.rollout.models.all()}

    for version in ("2", "3"):
        world.verbs.deploy(ANNA, MODEL, version, 0)
        world.verbs.promote(ANNA, MODEL)
    # In force: 3 alone. Before it: 2 and 3. What was before that is gone.
    assert loaded() == {"2", "3"}
    world.rollout.load(MODEL, "4")
    world.verbs.set_thresholds(ANNA, MODEL, "", {"review": 0.4})
    assert loaded() == {"3", "4"}
    with pytest.raises(ChangeError, match="version 3 serves"):
        world.rollout.unload(MODEL, "3")
    assert world.rollout.unload(MODEL, "4") > 0
    assert loaded() == {"3"}
    with pytest.raises(ChangeError, match="version 4 is not loaded"):
        world.rollout.unload(MODEL, "4")
    world.rollout.close()


def test_a_policy_keeps_versions_ready(repository: Path) -> None:
    world = World(repository)
    world.rollout.start([f"{MODEL}@1"])
    damaged(repository / MODEL / "4")
    keeper = Keeper(world.rollout, "latest:2", 0.0)
    keeper.look()
    loaded = {one.key.version for one in world.rollout.models.all()}
    assert loaded == {"1", "3"}  # 4 is damaged, and that is only logged
    add_version(repository, "5", "1")
    keeper.look()
    assert {"1", "5"} <= {one.key.version for one in world.rollout.models.all()}
    assert world.split() == {"champion": ("1", 10_000)}
    world.rollout.close()


def test_tables_are_kept_whole(world: World) -> None:
    world.verbs.deploy(ANNA, MODEL, "2", 1_000)
    world.verbs.set_traffic(ANNA, MODEL, {"champion": 8_000, "canary": 2_000})
    served = world.rollout.served
    assert served is not None
    [model] = served.models
    assert unpack_table(model.state.table) == model.table.to_bytes()
    assert model.table.weights(2) == [8_000, 2_000]
