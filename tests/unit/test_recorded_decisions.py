"""What the engine records of decisions, and which of them it explores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binomtest

from fastpath.capture import id_hash
from fastpath.engine import Engine
from fastpath.errors import PlanError
from fastpath.ledger import DEGRADED, EXPLORED, UNSTICKY, Ledger, explored
from fastpath.metrics import Metrics
from fastpath.plan import PlanArm, PlanBoard
from fastpath.spec import FallbackLimits
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.plans import linear_arm, make_plan

WALL_NS = 1_700_000_000_123_000_000
BLOCKED, REVIEWED, APPROVED = 16.0, 4.0, -64.0  # amounts by which a row reaches its decision


class World:
    """An engine of one arm, and its ledger."""

    def __init__(self, share: float = 0.0, *, capacity: int = 1 << 14, ledger: bool = True) -> None:
        self.metrics = Metrics(1)
        self.board = PlanBoard()
        self.arm: PlanArm = linear_arm(self.metrics)._replace(explore_share=share)
        self.board.publish(make_plan(self.metrics, generation=77, arms=[self.arm]))
        self.ledger = Ledger(1, capacity=capacity)
        self.ledger.set_rate(self.arm.slot, 1.0)
        self.engine = Engine(
            self.board,
            self.metrics,
            ledger=self.ledger if ledger else None,
            fixed_wall_ns=WALL_NS,
            seed=3,
        )

    def answer(self, ids: Sequence[str], amount: float = BLOCKED) -> list[pb.ScoreResponse]:
        found = []
        for first in range(0, len(ids), 200):
            messages = []
            for name in ids[first : first + 200]:
                request = pb.ScoreRequest(request_id=name, routing_key=f"card-{name}")
                request.named.values["amount"].number = max(0.0, amount)
                request.named.values["age_days"].number = amount if amount < 0 else 0.0
                messages.append(request.SerializeToString())
            answers = self.engine.answer(messages, now_ns=1_000)
            assert {status for status, _, _ in answers} == {0}
            found += [pb.ScoreResponse.FromString(body) for _, body, _ in answers]
        return found


def ids(n: int) -> list[str]:
    return [f"tx-{i}" for i in range(n)]


def test_what_is_recorded_is_what_was_answered() -> None:
    world = World()
    answers = world.answer(ids(300), BLOCKED) + world.answer([f"b{i}" for i in range(9)], APPROVED)
    rows = world.ledger.drain()
    names = [*ids(300), *(f"b{i}" for i in range(9))]
    assert rows["id_hash"].tolist() == [list(id_hash(name)) for name in names]
    assert rows["raw"].tolist() == [answer.raw_score for answer in answers]
    np.testing.assert_array_equal(
        rows["score"], np.array([answer.score for answer in answers], np.float32)
    )
    decisions = ["approve", "review", "block"]
    assert [decisions[d] for d in rows["decision"]] == [answer.decision for answer in answers]
    assert (rows["policy_decision"] == rows["decision"]).all()
    assert set(rows["decided_time_ms"]) == {WALL_NS // 1_000_000}
    assert set(rows["generation"]) == {77}
    assert set(rows["slot"]) == {world.arm.slot}
    assert set(rows["propensity"]) == set(rows["sampling_probability"]) == {1.0}
    assert set(rows["flags"]) == {0}
    assert len(set(rows["entity_hash"])) == len(names)


def test_a_card_is_told_from_others_and_a_request_without_one_says_so() -> None:
    world = World()
    messages = []
    for i, key in enumerate(["card-1", "card-2", "card-1", ""]):
        request = pb.ScoreRequest(request_id=f"r{i}", routing_key=key)
        request.named.values["age_days"].number = 1.0
        messages.append(request.SerializeToString())
    world.engine.answer(messages, now_ns=1_000)
    rows = world.ledger.drain()
    one, other, again, _ = rows["entity_hash"]
    assert one == again != other
    assert rows["flags"].tolist() == [0, 0, 0, UNSTICKY]


def test_the_strictest_decisions_are_explored_and_weighed() -> None:
    share, names = 0.2, ids(4_000)
    world = World(share)
    answers = world.answer(names, BLOCKED)
    rows = world.ledger.drain()
    drawn = np.array([explored(id_hash(name), share) for name in names])
    assert binomtest(int(drawn.sum()), len(names), share).pvalue > 1e-6
    assert [answer.explored for answer in answers] == drawn.tolist()
    assert [answer.decision for answer in answers] == ["approve" if d else "block" for d in drawn]
    assert not any(answer.HasField("threshold") for answer in answers if answer.explored)
    wanted = np.where(drawn, share, 1 - share)
    np.testing.assert_allclose([answer.decision_propensity for answer in answers], wanted)
    np.testing.assert_allclose(rows["propensity"], wanted, rtol=1e-7)
    assert (rows["policy_decision"] == 2).all()
    assert (rows["decision"] == np.where(drawn, 0, 2)).all()
    assert (rows["flags"] == np.where(drawn, EXPLORED, 0)).all()
    # Whoever weighs by the inverse counts everything once: approved ones for all that was blocked.
    assert (1 / rows["propensity"][drawn]).sum() == pytest.approx(len(names), rel=0.1)


@pytest.mark.parametrize("amount", [REVIEWED, APPROVED])
def test_nothing_else_is_explored(amount: float) -> None:
    world = World(0.5)
    answers = world.answer(ids(200), amount)
    assert not any(answer.explored for answer in answers)
    assert {answer.decision_propensity for answer in answers} == {1.0}
    assert set(world.ledger.drain()["propensity"]) == {1.0}


def test_exploring_needs_no_ledger() -> None:
    world = World(0.5, ledger=False)
    answers = world.answer(ids(200))
    assert [answer.explored for answer in answers] == [explored(id_hash(n), 0.5) for n in ids(200)]


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
def test_a_share_that_cannot_be_explored(share: float) -> None:
    with pytest.raises(PlanError, match="explore_share"):
        World(share)


def test_a_sample_by_id_and_all_from_a_score_on() -> None:
    names = ids(4_000)
    world = World()
    world.ledger.set_rate(world.arm.slot, 0.25, always_from=2.0)
    world.answer(names, APPROVED)
    rows = world.ledger.drain()
    assert binomtest(len(rows), len(names), 0.25).pvalue > 1e-6
    assert set(rows["sampling_probability"]) == {0.25}
    world.answer(names, APPROVED)
    again = world.ledger.drain()
    assert again["id_hash"].tolist() == rows["id_hash"].tolist()  # the same at every attempt
    world.answer(names, BLOCKED)
    high = world.ledger.drain()
    assert len(high) == len(names)
    assert set(high["sampling_probability"]) == {1.0}
    [stats] = world.ledger.stats()
    assert stats["recorded"] == len(rows) + len(again) + len(high)
    assert stats["passed"] == 2 * len(names) - len(rows) - len(again)
    assert stats["dropped"] == 0


def test_none_is_recorded_of_a_slot_without_a_rate() -> None:
    world = World()
    world.ledger.set_rate(world.arm.slot, 0.0)
    world.answer(ids(100))
    assert len(world.ledger.drain()) == 0


def test_a_full_ring_drops_and_counts_and_answers_go_on() -> None:
    world = World(capacity=1024)
    world.ledger.set_rate(world.arm.slot, 1.0, always_from=float("-inf"))
    assert len(world.answer(ids(3_000))) == 3_000
    [stats] = world.ledger.stats()
    assert (stats["recorded"], stats["dropped"], stats["fill"]) == (1024, 3_000 - 1024, 1.0)
    rows = world.ledger.drain()
    assert rows["id_hash"].tolist() == [list(id_hash(name)) for name in ids(1024)]
    world.answer(ids(5))
    assert len(world.ledger.drain()) == 5


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_ring_that_fills_thins_itself_and_says_so(share: float) -> None:
    world, names = World(capacity=1 << 12), ids(40_000)
    world.ledger.set_rate(world.arm.slot, share, always_from=2.0)
    world.answer(names, APPROVED)
    [stats] = world.ledger.stats()
    rows = world.ledger.drain()
    probability = rows["sampling_probability"]
    steps = probability.tolist()
    assert steps == sorted(steps, reverse=True)
    counts = {step: int((probability == step).sum()) for step in set(steps)}
    half, quarter = 1 << 11, 1 << 10
    assert counts[share] == half + 1  # one more: what is full is known only after it
    assert counts[share / 8] == quarter
    assert 0 < counts[share / 64] < quarter
    assert stats["dropped"] == 0
    assert stats["passed"] == len(names) - len(rows)
    # Whoever weighs by the inverse counts everything: a variance of (1 - p) / p for each.
    deviation = float(((1 - probability) / probability**2).sum()) ** 0.5
    assert abs(float((1 / probability).sum()) - len(names)) < 4.5 * deviation


def test_what_is_always_recorded_takes_the_room_that_thinning_leaves() -> None:
    world = World(capacity=1 << 12)
    world.ledger.set_rate(world.arm.slot, 1.0, always_from=2.0)
    world.answer(ids(3_500), APPROVED)
    n_before = len(world.ledger.drain())
    world.answer(ids(3_500), APPROVED)
    world.answer([f"high-{i}" for i in range(800)], BLOCKED)
    rows = world.ledger.drain()
    assert len(rows) == n_before + 800
    assert set(rows["sampling_probability"][-800:]) == {1.0}
    assert world.ledger.stats()[0]["dropped"] == 0


def test_a_ring_is_drained_in_parts() -> None:
    world = World(capacity=1024)
    for lap in range(4):  # around the ring's end
        names = [f"{lap}-{i}" for i in range(450)]
        world.answer(names)
        parts = [world.ledger.drain(200) for _ in range(4)]
        assert [len(part) for part in parts] == [200, 200, 50, 0]
        assert np.concatenate(parts)["id_hash"].tolist() == [list(id_hash(n)) for n in names]


def test_rings_go_round() -> None:
    world = World(capacity=1024)
    for lap in range(5):
        names = [f"{lap}-{i}" for i in range(500)]
        world.answer(names)
        assert world.ledger.drain()["id_hash"].tolist() == [list(id_hash(n)) for n in names]


def test_degraded_decisions_say_so() -> None:
    metrics, board, ledger = Metrics(1), PlanBoard(), Ledger(1)
    arm = linear_arm(metrics, limits=FallbackLimits(degrade_over=0))
    board.publish(make_plan(metrics, arms=[arm]))
    ledger.set_rate(arm.slot, 1.0)
    engine = Engine(board, metrics, ledger=ledger, fixed_wall_ns=WALL_NS, seed=3)
    request = pb.ScoreRequest(request_id="r", routing_key="card")
    request.named.values["age_days"].number = 1.0
    [(_, body, _)] = engine.answer([request.SerializeToString()], now_ns=1_000)
    assert pb.ScoreResponse.FromString(body).degraded
    assert ledger.drain()["flags"].tolist() == [DEGRADED]
