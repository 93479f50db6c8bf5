"""Rows that wait: budgets, deadlines, cancellation, plans held, bounds; every call ends once."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from fastpath.engine_driver import EngineDriver
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.stored import CUSTOMER, TERMINAL, StoredWorld, key, record

OK, CANCELLED, LATE = 0, 1, 4
C1, T1 = key("customer", "c1"), key("terminal", "t1")
MS = 1_000_000
HIT, ABSENT, TIMEOUT, BUSY = 1, 2, 7, 11


def waiting_world(*, customer: int | None = MS, terminal: int | None = 0) -> StoredWorld:
    """Return a world whose records come after so many nanoseconds; None: never."""
    world = StoredWorld(batch={"customer": {C1: record(CUSTOMER, [70.0, 80.0, 1.0])}})
    world.store.set(C1, record(CUSTOMER, [7.0, 8.0, 1.0]), delay_ns=customer)
    world.store.set(T1, record(TERMINAL, [0.25]), delay_ns=terminal)
    return world


def body_of(done: tuple[int, int, bytes, str]) -> pb.ScoreResponse:
    return pb.ScoreResponse.FromString(done[2])


def outcomes(answer: pb.ScoreResponse) -> list[int]:
    return [int(read.online) for read in answer.group_reads]


def test_a_row_waits_for_its_last_read_and_asks_to_be_woken() -> None:
    world = waiting_world(customer=MS, terminal=2 * MS)
    driver = EngineDriver(world.engine)
    driver.submit(world.request(amount=1.0).SerializeToString(), now_ns=0)
    assert driver.iterate(now_ns=0) == []
    woken_ns = driver.wake_ns
    assert woken_ns == MS
    assert driver.iterate(now_ns=MS) == []
    # The terminal's budget of 2 ms ends as its record comes: the record wins.
    [done] = driver.iterate(now_ns=2 * MS)
    assert outcomes(body_of(done)) == [HIT, HIT]
    assert driver.wake_ns is None
    snapshot = world.metrics.snapshot()
    assert snapshot.waits == 1
    assert snapshot.read_sum_ns == 3 * MS


def test_past_its_budget_a_read_is_given_up_and_the_batch_record_serves() -> None:
    world = waiting_world(customer=None)
    driver = EngineDriver(world.engine)
    driver.submit(world.request(amount=1.0).SerializeToString(), now_ns=0)
    assert driver.iterate(now_ns=0) == []
    assert driver.wake_ns == CUSTOMER.read_budget_us * 1000
    assert driver.iterate(now_ns=5 * MS - 1) == []
    [done] = driver.iterate(now_ns=5 * MS)
    answer = body_of(done)
    assert (done[1], outcomes(answer)) == (OK, [TIMEOUT, HIT])
    assert answer.source_counts == pb.SourceCounts(request=1, online=1, batch=3)
    assert world.store.abandoned == [(C1, True)]
    assert world.metrics.snapshot().online_reads["timeout"] == 1


def test_each_read_has_the_budget_of_its_group() -> None:
    world = waiting_world(customer=None, terminal=None)
    driver = EngineDriver(world.engine)
    driver.submit(world.request(amount=1.0).SerializeToString(), now_ns=0)
    driver.iterate(now_ns=0)
    assert driver.wake_ns == 2 * MS
    assert driver.iterate(now_ns=2 * MS) == []
    assert world.store.abandoned == [(T1, True)]
    assert driver.wake_ns == 5 * MS
    [done] = driver.iterate(now_ns=5 * MS)
    assert outcomes(body_of(done)) == [TIMEOUT, TIMEOUT]


@pytest.mark.parametrize(
    ("deadline_ns", "wake_ns"),
    [
        (20 * MS, 5 * MS),  # the group's budget
        (4 * MS, 3 * MS),  # the deadline, less a millisecond
        (MS, MS // 2),  # or less half of what is left
    ],
)
def test_a_read_never_takes_the_calls_last_time(deadline_ns: int, wake_ns: int) -> None:
    world = waiting_world(customer=None)
    driver = EngineDriver(world.engine)
    message = world.request(amount=1.0).SerializeToString()
    driver.submit(message, now_ns=0, deadline_ns=deadline_ns)
    driver.iterate(now_ns=0)
    assert driver.wake_ns == wake_ns
    [done] = driver.iterate(now_ns=wake_ns)
    assert done[1] == OK


def test_a_call_without_time_does_not_wait() -> None:
    world = waiting_world(customer=MS)
    driver = EngineDriver(world.engine)
    driver.submit(world.request(amount=1.0).SerializeToString(), now_ns=10, deadline_ns=99_999)
    [done] = driver.iterate(now_ns=10)
    assert (done[1], outcomes(body_of(done))) == (OK, [TIMEOUT, TIMEOUT])
    assert world.store.asked == []


def test_a_row_whose_deadline_passed_while_it_waited_is_not_scored() -> None:
    world = waiting_world(customer=None)
    driver = EngineDriver(world.engine)
    message = world.request(amount=1.0).SerializeToString()
    driver.submit(message, now_ns=0, deadline_ns=3 * MS)
    driver.iterate(now_ns=0)
    [done] = driver.iterate(now_ns=3 * MS)
    assert done[1] == LATE
    assert world.metrics.snapshot().slots[0].predictions == 0


def test_a_cancelled_row_is_completed_at_the_latest_when_its_budget_ends() -> None:
    world = waiting_world(customer=None)
    driver = EngineDriver(world.engine)
    ticket = driver.submit(world.request(amount=1.0).SerializeToString(), now_ns=0)
    driver.iterate(now_ns=0)
    driver.cancel(ticket)
    [done] = driver.iterate(now_ns=5 * MS)
    assert done[:2] == (ticket, CANCELLED)


def test_a_waiting_row_keeps_the_plan_that_it_came_under() -> None:
    world = waiting_world(customer=MS)
    driver = EngineDriver(world.engine)
    driver.submit(world.request(amount=1.0).SerializeToString(), now_ns=0)
    driver.iterate(now_ns=0)
    world.publish()
    assert world.board.reclaim() == 1  # held by the row
    driver.submit(world.request(amount=1.0).SerializeToString(), now_ns=MS // 2)
    driver.iterate(now_ns=MS // 2)
    [first] = driver.iterate(now_ns=MS)
    assert body_of(first).plan_generation == 1
    assert world.board.reclaim() == 0
    [second] = driver.iterate(now_ns=2 * MS)
    assert body_of(second).plan_generation == 2


def test_rows_do_not_wait_under_a_ninth_plan() -> None:
    world = waiting_world(customer=None)
    driver = EngineDriver(world.engine)
    message = world.request(amount=1.0).SerializeToString()
    for _ in range(8):
        driver.submit(message, now_ns=0)
        assert driver.iterate(now_ns=0) == []
        world.publish()
    driver.submit(message, now_ns=0)
    [done] = driver.iterate(now_ns=0)
    assert outcomes(body_of(done)) == [BUSY, BUSY]
    assert world.board.reclaim() == 8
    assert len(driver.iterate(now_ns=5 * MS)) == 8
    assert world.board.reclaim() == 0
    driver.submit(message, now_ns=6 * MS)
    assert driver.iterate(now_ns=6 * MS) == []


def test_more_rows_than_may_wait_are_answered_without() -> None:
    world = waiting_world(customer=None)
    driver = EngineDriver(world.engine)
    message = world.request(amount=1.0).SerializeToString()
    for _ in range(4096):
        driver.submit(message, now_ns=0)
    assert driver.iterate(now_ns=0) == []
    for _ in range(10):
        driver.submit(message, now_ns=1)
    done = driver.iterate(now_ns=1)
    assert [outcomes(body_of(one)) for one in done] == [[BUSY, BUSY]] * 10
    assert world.metrics.snapshot().online_reads["busy"] == 20
    assert len(driver.iterate(now_ns=5 * MS)) == 4096
    driver.submit(message, now_ns=6 * MS)
    assert driver.iterate(now_ns=6 * MS) == []


def test_every_call_is_answered_once_whatever_comes_when(rng: np.random.Generator) -> None:
    random = Random(int(rng.integers(1 << 32)))
    world = StoredWorld()
    delays: list[int | None] = [0, None, *range(MS, 8 * MS, MS)]
    for i in range(200):
        delay_ns = random.choice(delays)
        world.store.set(
            key("customer", f"c{i}"), record(CUSTOMER, [i, 1.0, 1.0]), delay_ns=delay_ns
        )
        world.store.set(
            key("terminal", f"t{i}"), record(TERMINAL, [i]), delay_ns=random.choice(delays)
        )
    driver = EngineDriver(world.engine)
    now_ns = 0
    done: dict[int, tuple[int, pb.ScoreResponse]] = {}
    sent: dict[int, str] = {}
    cancelled: set[int] = set()
    while len(sent) < 3_000 or driver.n_open:
        now_ns += random.randrange(MS)
        for _ in range(random.randrange(40) if len(sent) < 3_000 else 0):
            n = random.randrange(200)
            request = world.request(customer=f"c{n}", terminal=f"t{n}", request_id=str(len(sent)))
            deadline_ns = random.choice([None, now_ns + random.randrange(1, 9 * MS)])
            ticket = driver.submit(
                request.SerializeToString(), now_ns=now_ns, deadline_ns=deadline_ns
            )
            sent[ticket] = str(len(sent))
            if random.random() < 0.05:
                cancelled.add(ticket)
                driver.cancel(ticket)
        if random.random() < 0.1:
            world.publish()
        for ticket, status, body, _ in driver.iterate(now_ns=now_ns):
            assert ticket not in done
            done[ticket] = status, pb.ScoreResponse.FromString(body)
    assert done.keys() == sent.keys()
    for ticket, (status, answer) in done.items():
        assert status == CANCELLED if ticket in cancelled else status in (OK, LATE)
        if status == OK:
            assert answer.request_id == sent[ticket]
    assert driver.wake_ns is None
    assert world.board.reclaim() == 0
    statuses = [status for status, _ in done.values()]
    assert {OK, LATE, CANCELLED} <= set(statuses)
