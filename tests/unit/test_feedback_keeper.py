"""The keeper: what is recorded of whom, at which rate, and what a failing disk costs."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fastpath.engine import Engine
from fastpath.ledger import Ledger
from server.config import Settings
from server.config.feedback import FeedbackSettings
from server.errors import FeedbackError
from server.feedback.deciders import Deciders
from server.feedback.keeper import Keeper
from server.feedback.opening import Facts, segment_s
from server.feedback.rates import RecordRates
from server.feedback.records import Added, Records
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.rollouts import ANNA, World
from tests.support.serving import FEATURES, MODEL, copy_repository


class Rates(Ledger):
    """A ledger that remembers what it was told."""

    def __init__(self, n_threads: int) -> None:
        self.told: dict[int, tuple[float, float]] = {}

    def set_rate(self, slot: int, share: float, always_from: float = float("nan")) -> None:
        super().set_rate(slot, share, always_from)
        self.told[slot] = (share, always_from)


class Kept:
    """A keeper over a rollout, and an engine that its ledger records."""

    def __init__(self, folder: Path) -> None:
        self.world = World(copy_repository(folder / "repository"))
        self.world.rollout.start([f"{MODEL}@1"], MODEL)
        self.ledger = Rates(1)
        self.path = folder / "decisions.db"
        self.records = Records(self.path)
        self.deciders = Deciders(self.world.rollout.repository)
        self.keeper = Keeper(
            self.ledger, self.records, self.deciders, self.world.metrics,
            lambda: self.world.rollout.served, records_per_s=1000.0, drain_s=0.01,
        )  # fmt: skip
        self.engine = Engine(self.world.board, self.world.metrics, ledger=self.ledger)

    def score(self, *ids: str) -> None:
        for one in ids:
            request = pb.ScoreRequest(request_id=one, routing_key=one)
            for name in FEATURES:
                request.named.values[name].number = 1.0
            [(status, _, text)] = self.engine.answer(
                [request.SerializeToString()], now_ns=time.monotonic_ns()
            )
            assert status == 0, text

    def versions(self) -> dict[tuple[str, str], int]:
        """Return the decisions on disk by (version, arm)."""
        with closing(sqlite3.connect(self.path)) as database:
            return {
                (version, arm): rows
                for version, arm, rows in database.execute(
                    "SELECT version, arm, sum(rows) FROM tallies JOIN versions USING (v) "
                    "GROUP BY version, arm"
                )
            }

    def close(self) -> None:
        self.records.close()
        self.world.rollout.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.close()


def test_decisions_go_to_whoever_took_them(kept: Kept) -> None:
    kept.keeper.follow()
    kept.score("a", "b")
    # Drained after the change, they are the old plan's all the same.
    kept.world.verbs.deploy(ANNA, MODEL, "2", 10_000)
    kept.keeper.follow()
    kept.score("c")
    kept.keeper.look()
    assert kept.versions() == {("1", "champion"): 2, ("2", "canary"): 1}
    assert (kept.keeper.n_recorded, kept.keeper.n_dropped_unknown) == (3, 0)


def test_high_scores_are_recorded_always_and_a_version_that_left_not_at_all(kept: Kept) -> None:
    kept.keeper.follow()
    [arm] = kept.world.rollout.arms
    told = kept.ledger.told
    assert told == {arm.loaded.slot: (1.0, arm.thresholds[0][1])}
    kept.world.verbs.deploy(ANNA, MODEL, "2", 1000)
    kept.world.verbs.promote(ANNA, MODEL, "2")
    kept.keeper.look()
    [after] = kept.world.rollout.arms
    assert told[arm.loaded.slot][0] == 0.0
    assert told[after.loaded.slot] == (1.0, after.thresholds[0][1])
    assert kept.keeper.shares == {(MODEL, "2"): 1.0}


def test_a_plan_that_is_not_known_yet_is_waited_for_once(kept: Kept) -> None:
    kept.keeper.follow()
    before = kept.world.rollout.served
    kept.world.verbs.deploy(ANNA, MODEL, "2", 10_000)
    kept.ledger.set_rate(kept.world.rollout.arms[1].loaded.slot, 1.0)
    kept.score("early")
    after, kept.keeper._served = kept.keeper._served, lambda: before
    kept.keeper.look()
    assert kept.keeper.n_recorded == kept.keeper.n_dropped_unknown == 0
    kept.keeper._served = after
    kept.keeper.look()
    assert kept.versions() == {("2", "canary"): 1}


def test_a_disk_that_takes_nothing_is_told_once_and_counted(
    kept: Kept, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.keeper.follow()

    def fails(*_: object) -> Added:
        raise FeedbackError("the disk is full")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(kept.records, "add", fails)
        for i in range(3):
            kept.score(f"lost-{i}")
            kept.keeper.look()
    assert kept.keeper.n_dropped_disk == 3
    kept.score("kept")
    with caplog.at_level(logging.WARNING):
        kept.keeper.look()
    said = [record.message for record in caplog.records if "recorded" in record.message]
    assert said == [
        "decisions are not recorded until this ends: the disk is full",
        "decisions are recorded again; 3 are missing",
    ]
    assert kept.keeper.n_recorded == 1


def test_the_end_drains_once_more(kept: Kept) -> None:
    kept.keeper.start()
    kept.score("a")
    kept.keeper.stop()
    assert kept.keeper.n_recorded == 1


def test_a_version_without_its_bundle_is_recorded_in_even_bins(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.keeper.follow()
    (kept.world.path / MODEL / "1" / "manifest.json").write_text("{}")
    kept.score("a")
    with caplog.at_level(logging.WARNING):
        kept.keeper.look()
    assert kept.versions() == {("1", "champion"): 1}
    assert "measured in even bins" in caplog.text


def test_facts_are_of_the_thresholds_in_force(kept: Kept) -> None:
    facts = Facts(kept.world.rollout, ())
    [arm] = kept.world.rollout.arms
    found = facts.find(MODEL, "1", arm.sha256.hex())
    assert found is not None
    assert found.thresholds == tuple((name, raw) for name, raw, _ in arm.thresholds)
    assert facts.find(MODEL, "1", arm.sha256.hex()) is found
    assert facts.find(MODEL, "1", "00") is None


def test_a_share_follows_the_traffic_in_steps() -> None:
    rates = RecordRates(1000.0)
    count, shares = 0, []
    for calls_per_s in [500] * 3 + [20_000] * 30 + [19_000] * 30 + [100] * 3000:
        count += calls_per_s
        shares.append(rates.shares({0: count}, 1.0)[0])
    assert set(shares[:3]) == {1.0}
    assert shares[32] == pytest.approx(0.05, rel=0.5)
    assert len(set(shares[32:63])) == 1  # a little less traffic changes nothing
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    ("maturity_s", "window_s", "wanted_s"),
    [(30 * 86_400.0, 30 * 86_400.0, 86_400.0), (60.0, 600.0, 5.0), (3600.0, 30 * 86_400.0, 6489.0)],
)
def test_segments_are_short_enough_for_cohorts_and_not_too_many(
    maturity_s: float, window_s: float, wanted_s: float
) -> None:
    settings = FeedbackSettings(maturity_s=maturity_s, window_s=window_s)
    assert segment_s(settings) == pytest.approx(wanted_s)
    assert segment_s(Settings().feedback) == 86_400.0
