"""Stages, queue and loop timings: what is counted, how often, and between which moments."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

from fastpath.capture import Capture
from fastpath.echo import EchoService
from fastpath.engine import Engine
from fastpath.engine_driver import EngineDriver
from fastpath.loop import LoopGroup
from fastpath.metrics import STAGES, Metrics, Snapshot
from fastpath.plan import PlanBoard
from fastpath.spec import FeatureSpec, GroupSpec
from fastpath.timings import TIMING_BOUNDS_NS
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.plans import linear_arm, make_plan
from tests.support.stored import CUSTOMER, StoredWorld, key, record

EVERY = 61
MS = 1_000_000
C1 = key("customer", "c1")


def bucket(duration_ns: int) -> int:
    """Index of the bucket that a duration belongs to, by the plainest rule."""
    return sum(duration_ns > bound for bound in TIMING_BOUNDS_NS)


def counts(snapshot: Snapshot) -> dict[str, int]:
    return {stage: sum(timing[0]) for stage, timing in snapshot.stages.items()}


class Plain:
    """An engine of one arm or two without stores, on the real clock."""

    def __init__(self, n_arms: int = 1) -> None:
        self.metrics = Metrics(1)
        self.board = PlanBoard()
        arms = [linear_arm(self.metrics, name=f"arm{i}", version=str(i + 1)) for i in range(n_arms)]
        weights = [10_000 // n_arms] * n_arms
        self.board.publish(make_plan(self.metrics, arms=arms, weights=weights))
        self.layout = arms[0].schema.fingerprint
        self.engine = Engine(self.board, self.metrics, seed=1)

    def message(self, **fields: object) -> bytes:
        request = pb.ScoreRequest(**fields)  # type: ignore[arg-type]
        request.dense.layout = self.layout
        request.dense.values.extend([1.0, 1.0, 1.0, 1.0])
        return request.SerializeToString()

    def answer(self, messages: list[bytes]) -> list[int]:
        answers = self.engine.answer(messages, now_ns=time.monotonic_ns())
        return [status for status, _, _ in answers]


def test_of_sixty_one_calls_the_first_is_timed_in_every_stage() -> None:
    world = Plain()
    for n in range(1, 3 * EVERY):
        assert world.answer([world.message()]) == [0]
        expected = (n - 1) // EVERY + 1
        if n % 20 == 1 or n % EVERY < 3:
            snapshot = world.metrics.snapshot()
            assert counts(snapshot) == dict.fromkeys(STAGES, expected)
            assert sum(snapshot.queue[0]) == expected
    assert all(total > 0 for _, total in snapshot.stages.values())


def test_whatever_the_size_of_batches_each_timed_row_is_counted_once() -> None:
    world = Plain()
    n_sent = 0
    for size in (1, 7, 64, 200, 300):  # the last does not fit one batch
        assert set(world.answer([world.message()] * size)) == {0}
        n_sent += size
    expected = (n_sent - 1) // EVERY + 1
    snapshot = world.metrics.snapshot()
    assert counts(snapshot) == dict.fromkeys(STAGES, expected)
    assert sum(snapshot.queue[0]) == expected


def test_only_the_arm_that_has_a_timed_row_is_timed() -> None:
    world = Plain(n_arms=2)
    messages = [world.message(routing_key=f"k{i}") for i in range(40)]
    answers = world.engine.answer(messages, now_ns=time.monotonic_ns())
    assert len({pb.ScoreResponse.FromString(body).version for _, body, _ in answers}) == 2
    assert counts(world.metrics.snapshot()) == dict.fromkeys(STAGES, 1)


def test_calls_that_fail_count_as_far_as_they_came() -> None:
    world = Plain()
    assert world.answer([b"\xff"]) == [3]  # timed, being the first: not even parsed
    assert counts(world.metrics.snapshot()) == dict.fromkeys(STAGES, 0)
    assert set(world.answer([world.message()] * (EVERY - 1))) == {0}
    assert world.answer([world.message(model="nobody's")]) == [5]
    found = counts(world.metrics.snapshot())
    assert found == {**dict.fromkeys(STAGES, 0), "parse": 1}


def test_without_a_plan_nothing_is_timed() -> None:
    metrics = Metrics(1)
    engine = Engine(PlanBoard(), metrics)
    [(status, _, _)] = engine.answer([b""], now_ns=0)
    assert status == 14
    assert counts(metrics.snapshot()) == dict.fromkeys(STAGES, 0)


def test_features_hold_the_wait_for_a_store_and_the_queue_does_not() -> None:
    world = StoredWorld()
    world.store.set(C1, record(CUSTOMER, [7.0, 8.0, 1.0]), delay_ns=3 * MS)
    driver = EngineDriver(world.engine)
    driver.submit(world.request(amount=1.0).SerializeToString(), now_ns=0)
    driver.iterate(now_ns=200_000)  # the iteration ends a little later than it began
    assert counts(world.metrics.snapshot())["features"] == 0
    [done] = driver.iterate(now_ns=3 * MS)
    assert done[1] == 0
    snapshot = world.metrics.snapshot()
    # The clock stands still but for what the driver says: exact figures.
    assert snapshot.stages["features"][1] == 3 * MS
    assert snapshot.stages["features"][0][bucket(3 * MS)] == 1
    assert snapshot.queue[1] == 0
    assert {stage: total for stage, (_, total) in snapshot.stages.items() if total} == {
        "features": 3 * MS
    }


def test_the_queue_lasts_from_the_iteration_that_brought_the_call_to_its_scoring() -> None:
    world = StoredWorld(with_store=False)
    driver = EngineDriver(world.engine)
    driver.submit(world.request(amount=1.0).SerializeToString(), now_ns=1000)
    [done] = driver.iterate(now_ns=41_000)
    assert done[1] == 0
    snapshot = world.metrics.snapshot()
    assert snapshot.queue[1] == 40_000
    assert snapshot.queue[0][bucket(40_000)] == 1


def test_bounds_ascend_and_a_duration_on_a_bound_is_below_it() -> None:
    assert all(low < high for low, high in pairwise(TIMING_BOUNDS_NS))
    for index, bound in enumerate(TIMING_BOUNDS_NS):
        for duration_ns, where in ((bound, index), (bound + 1, index + 1)):
            world = StoredWorld(with_store=False)
            driver = EngineDriver(world.engine)
            driver.submit(world.request(amount=1.0).SerializeToString(), now_ns=0)
            driver.iterate(now_ns=duration_ns)
            queue, _ = world.metrics.snapshot().queue
            assert [i for i, n in enumerate(queue) if n] == [where]


@pytest.mark.parametrize("spin_us", [0, 200_000])
def test_a_loop_counts_what_it_does_and_not_that_it_waits(spin_us: int) -> None:
    loops = LoopGroup([EchoService()], spin_us=spin_us)
    loops.listen("127.0.0.1", 0)
    loops.start()
    try:
        started_ns = time.monotonic_ns()
        for _ in range(200):
            status, _, _ = loops.call("/scoregate.bench.Echo/Echo", b"x", 10.0)
            assert status == 0
        time.sleep(0.3)  # nothing to do: asleep, or polling
        loops.call("/scoregate.bench.Echo/Echo", b"x", 10.0)
        elapsed_ns = time.monotonic_ns() - started_ns
    finally:
        loops.stop()
    [row] = loops.stats()
    [(buckets, total_ns)] = loops.iterations()
    assert 0 < total_ns <= row["busy_ns"]
    assert row["busy_ns"] < elapsed_ns - 200 * MS
    # The iteration that ended the loop is never followed by a wait.
    assert row["iterations"] - 1 <= sum(buckets) <= row["iterations"]
    assert sum(buckets) > 10


COUNTRY = FeatureSpec("country", "categorical", default=0.0, vocabulary=("BE", "FR"))


def test_an_unseen_category_is_marked_in_the_ring_and_nowhere_else() -> None:
    metrics = Metrics(1)
    board = PlanBoard()
    specs = [FeatureSpec("amount", "numeric", default=1.0), COUNTRY]
    arm = linear_arm(metrics, specs=specs)
    board.publish(make_plan(metrics, arms=[arm]))
    capture = Capture(1)
    capture.set_rate(arm.slot, 1.0)
    engine = Engine(board, metrics, capture=capture, fixed_wall_ns=MS)
    messages = []
    for country in ("FR", "XX", None):
        request = pb.ScoreRequest()
        request.options.provenance = True
        request.named.values["amount"].number = 2.0
        if country is not None:
            request.named.values["country"].text = country
        messages.append(request.SerializeToString())
    for code in (1.0, 7.0, float("nan")):
        request = pb.ScoreRequest()
        request.dense.layout = arm.schema.fingerprint
        request.dense.values.extend([2.0, code])
        messages.append(request.SerializeToString())
    answers = [
        pb.ScoreResponse.FromString(body) for _, body, _ in engine.answer(messages, now_ns=0)
    ]
    assert [list(answer.provenance) for answer in answers[:3]] == [[1, 1], [1, 4], [1, 4]]
    assert [answer.source_counts.default_value for answer in answers] == [0, 1, 1] * 2
    [rows] = capture.drain()
    assert rows.sources.tolist() == [[1, 1], [1, 5], [1, 4]] * 2
    [slot] = metrics.snapshot().slots
    assert slot.features_by_source["default"] == 4
    assert slot.features_missing["unseen"] == 2
    assert slot.fallbacks["default", "request"] == 4


def test_an_unseen_code_in_a_stored_record_is_marked_unless_another_source_has_one() -> None:
    group = GroupSpec("customer", "customer", (("country", "categorical"),))
    specs = [FeatureSpec("amount", "numeric", default=1.0), COUNTRY._replace(source="customer")]
    for code, batch, expected in (
        (7.0, None, 5),
        (float("nan"), None, 4),
        (7.0, 1.0, 3),
        (0.0, None, 2),
        (0.5, None, 5),
    ):
        records = {} if batch is None else {"customer": {C1: record(group, [batch])}}
        world = StoredWorld(groups=(group,), specs=specs, batch=records)
        world.store.set(C1, record(group, [code]))
        capture = Capture(1)
        capture.set_rate(0, 1.0)
        engine = Engine(
            world.board,
            world.metrics,
            store=world.store,
            capture=capture,
            fixed_wall_ns=1_700_000_000_000 * MS,
        )
        request = pb.ScoreRequest(entities=[pb.Entity(type="customer", id="c1")])
        request.named.values["amount"].number = 2.0
        [(status, _, text)] = engine.answer([request.SerializeToString()], now_ns=0)
        assert (status, text) == (0, "")
        [rows] = capture.drain()
        assert rows.sources.tolist() == [[1, expected]]
        assert np.isfinite(rows.rows).all()
