"""Captured decisions: whole, in order, each with the same chance, never at the loop's expense."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy.stats import chisquare, geom

from fastpath.capture import Capture, CapturedRows, id_hash
from fastpath.engine import Engine
from fastpath.errors import FastpathError
from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from fastpath.routing import siphash
from fastpath.spec import FeatureSpec
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.plans import linear_arm, make_plan

WALL_NS = 1_700_000_000_123_000_000
WALL_MS = WALL_NS // 1_000_000


class World:
    """An engine of one arm with so many features, and its ring."""

    def __init__(
        self, n_features: int = 4, *, capacity_bytes: int = 1 << 20, seed: int = 1
    ) -> None:
        specs = [FeatureSpec(f"f{j}", "numeric", default=-1.0) for j in range(n_features)]
        self.metrics = Metrics(1)
        self.board = PlanBoard()
        self.arm = linear_arm(self.metrics, specs=specs)
        self.board.publish(make_plan(self.metrics, generation=77, arms=[self.arm]))
        self.capture = Capture(1, capacity_bytes=capacity_bytes, seed=seed)
        self.engine = Engine(
            self.board, self.metrics, capture=self.capture, fixed_wall_ns=WALL_NS, seed=3
        )
        self.n_features = n_features

    def message(self, i: int, **fields: object) -> bytes:
        request = pb.ScoreRequest(request_id=f"tx-{i}", **fields)  # type: ignore[arg-type]
        request.dense.layout = self.arm.schema.fingerprint
        request.dense.values.extend([float(i)] * (self.n_features - 1) + [float("nan")])
        return request.SerializeToString()

    def answer(self, numbers: range) -> None:
        for first in range(numbers.start, numbers.stop, 200):
            some = range(first, min(first + 200, numbers.stop))
            answers = self.engine.answer([self.message(i) for i in some], now_ns=0)
            assert {status for status, _, _ in answers} == {0}

    def drain(self) -> CapturedRows:
        [rows] = self.capture.drain()
        return rows


def test_a_decision_is_captured_as_it_was_taken() -> None:
    world = World()
    world.capture.set_rate(world.arm.slot, 1.0)
    message = world.message(5, event_time_ms=123_456, routing_key="card")
    [(_, body, _)] = world.engine.answer([message], now_ns=0)
    answer = pb.ScoreResponse.FromString(body)
    rows = world.drain()
    assert rows.slot == world.arm.slot
    assert rows.rows.tolist() == [[5.0, 5.0, 5.0, -1.0]]
    assert rows.sources.tolist() == [[1, 1, 1, 4]]
    assert rows.raw.tolist() == [answer.raw_score]
    assert (rows.event_time_ms.tolist(), rows.decided_time_ms.tolist()) == ([123_456], [WALL_MS])
    assert rows.generation.tolist() == [77]
    assert rows.bucket.tolist() == [answer.bucket]
    assert (rows.arm.tolist(), rows.degraded.tolist()) == ([0], [False])
    decisions = ["approve", "review", "block"]
    assert decisions[rows.decision[0]] == answer.decision
    assert rows.id_hash.tolist() == [list(id_hash("tx-5"))]
    assert world.capture.drain() == []


def test_the_hash_of_an_id_is_siphash_of_128_bits() -> None:
    key = b"Scoregat"[::-1] + b"e-reques"[::-1]
    low, high = id_hash("é")
    assert low | high << 64 == siphash(key, "é".encode(), n_bits=128)


@pytest.mark.parametrize("n_features", [1, 3, 30, 1000])
def test_everything_is_captured_in_order_around_the_rings_end(n_features: int) -> None:
    world = World(n_features, capacity_bytes=1 << 16)
    world.capture.set_rate(world.arm.slot, 1.0)
    seen: list[float] = []
    for first in range(0, 600, 10):
        world.answer(range(first, first + 10))
        seen += world.drain().raw.tolist()
    assert len(seen) == 600
    [stats] = world.capture.stats()
    assert (stats["captured"], stats["dropped"], stats["fill"]) == (600, 0, 0)
    if n_features > 1:
        assert seen == sorted(set(seen), key=lambda raw: abs(raw))


def test_a_full_ring_drops_and_counts_and_answers_go_on() -> None:
    world = World(30, capacity_bytes=1 << 16)
    world.capture.set_rate(world.arm.slot, 1.0)
    world.answer(range(1000))
    [stats] = world.capture.stats()
    rows = world.drain()
    assert stats["captured"] == len(rows.raw) > 200
    assert stats["dropped"] == 1000 - stats["captured"]
    assert stats["fill"] > 0.99
    # The oldest are kept, whole; there is room again afterwards.
    assert rows.rows[:, 0].tolist() == [float(i) for i in range(len(rows.raw))]
    world.answer(range(2000, 2010))
    assert world.drain().rows[:, 0].tolist() == [float(i) for i in range(2000, 2010)]


@pytest.mark.parametrize("rate", [0.5, 0.05])
def test_gaps_between_captured_decisions_are_geometric(rate: float) -> None:
    # A fixed seed: the test asks whether the arithmetic is right, not whether luck was good.
    world = World(2, seed=12)
    world.capture.set_rate(world.arm.slot, rate)
    world.answer(range(40_000))
    places = world.drain().rows[:, 0]
    gaps = np.diff(np.concatenate([[-1.0], places])).astype(int)
    most = int(geom.ppf(1 - 20 / len(gaps), rate))
    counts = np.bincount(np.minimum(gaps, most), minlength=most + 1)[1:]
    expected = geom.pmf(np.arange(1, most + 1), rate)
    expected[-1] = geom.sf(most - 1, rate)
    assert chisquare(counts, expected * len(gaps)).pvalue > 1e-3
    assert places.max() < 2**24  # float32 counts exactly so far


def test_a_rate_may_change_at_any_time() -> None:
    world = World(2)
    slot = world.arm.slot
    world.answer(range(100))
    assert world.capture.drain() == []
    world.capture.set_rate(slot, 1.0)
    world.answer(range(100))
    assert len(world.drain().raw) == 100
    world.capture.set_rate(slot, 0.0)
    world.answer(range(1))
    world.capture.drain()
    world.answer(range(100))
    assert world.capture.drain() == []
    world.capture.set_rate(slot, 0.001)
    assert world.capture.rate(slot) == 0.001
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(FastpathError, match="a capture rate is 0 to 1"):
            world.capture.set_rate(slot, wrong)


def test_draining_beside_the_loop_loses_and_invents_nothing() -> None:
    world = World(7, capacity_bytes=1 << 16)
    world.capture.set_rate(world.arm.slot, 1.0)
    taken: list[float] = []
    done = threading.Event()

    def drain() -> None:
        while not done.is_set():
            for rows in world.capture.drain():
                assert (rows.rows[:, 0] == rows.rows[:, 5]).all()
                taken.extend(rows.rows[:, 0].tolist())

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        for first in range(0, 30_000, 50):
            world.answer(range(first, first + 50))
    finally:
        done.set()
        thread.join()
    for rows in world.capture.drain():
        taken.extend(rows.rows[:, 0].tolist())
    [stats] = world.capture.stats()
    assert len(taken) == stats["captured"]
    assert stats["captured"] + stats["dropped"] == 30_000
    assert taken == sorted(set(taken))
