"""A Redis that answers late, in part, with nonsense or errors: a proxy stands before a real one.

What holds in every test is what `test_redis_faults` holds: OK and in time for every call, defaults
where the store did not help, and recovery as soon as the answers are good again. Late and lost
answers must never be given to another read: scores are compared with those of whole requests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.generator import Generator, Limits, Message
from tests.support.clients import SCORE
from tests.support.faulty_redis import Fault, FaultyRedis, cut, flip_record, instead
from tests.support.redis_store import StoreServer
from tests.support.stores import (
    BUDGET_US,
    N_ENTITIES,
    REDIS,
    Load,
    StoredServing,
    request,
    stored_repository,
    until,
    values_of,
    whole_request,
    write_online,
)

BUDGET_S = BUDGET_US / 1e6
STALL_S = 4 * BUDGET_S
DEFAULTS = (1.0, 0.25)


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultyRedis]:
    with StoreServer() as redis:
        write_online(redis.url)
        with FaultyRedis(redis.socket) as proxy:
            yield proxy


@pytest.fixture(scope="module")
def shared(proxy: FaultyRedis) -> Iterator[StoredServing]:
    with StoredServing({**REDIS, "redis.address": proxy.address}) as server:
        yield server


@pytest.fixture
def server(shared: StoredServing, proxy: FaultyRedis) -> Iterator[StoredServing]:
    """Check that all was well before a test, and is again after it."""
    until(shared.all_online, "recovery")
    try:
        yield shared
    finally:
        proxy.heal()
    until(shared.all_online, "recovery")
    assert shared.online_state() == "ok"
    assert shared.metric("scoregate_store_breaker_state", loop="0") == 0


def assert_defaults(server: StoredServing) -> None:
    """One answer comes of the defaults, and says so."""
    answer = server.score(request(3))
    assert answer.source_counts.default_value == 2
    assert answer.degraded
    assert answer.raw_score == server.score(whole_request(*DEFAULTS)).raw_score


def assert_own_values(server: StoredServing) -> None:
    """No answer comes of another entity's record, whichever reads were late."""
    for entity in range(N_ENTITIES):
        answer = server.score(request(entity))
        n_day, risk = values_of(entity)
        if answer.source_counts.online == 2:
            assert answer.raw_score == server.score(whole_request(n_day, risk)).raw_score


def test_later_than_the_budget(server: StoredServing, proxy: FaultyRedis) -> None:
    """Answers come before the connection is given up: they are dropped, one by one."""
    before = server.counts()
    proxy.delay_s = 2 * BUDGET_S
    with Load(server) as load:
        until(lambda: server.online_state() != "ok", "the breaker")
        assert_defaults(server)
        load.more()
        proxy.heal()
        until(server.all_online, "recovery")
        assert_own_values(server)
        load.more()
    told = server.counts() - before
    assert told["feature_reads:online:timeout"] >= 20
    assert told["feature_reads:online:breaker"] > 0
    assert told["store_late_replies"] >= 1
    assert told["store_breaker_openings"] >= 1
    assert told["ml_feature_fallbacks:default:customer"] > 0


def test_so_late_that_the_connection_is_given_up(server: StoredServing, proxy: FaultyRedis) -> None:
    before = server.counts()
    proxy.delay_s = 2 * STALL_S
    with Load(server) as load:
        until(lambda: (server.counts() - before)["store_errors:timeout"] > 0, "the stall")
        load.more()
        proxy.heal()
        until(server.all_online, "recovery")
        assert_own_values(server)
    told = server.counts() - before
    assert told["feature_reads:online:timeout"] >= 1
    assert told["store_connects"] >= 1


def test_hardly_late(server: StoredServing, proxy: FaultyRedis) -> None:
    """Within the budget is in time: rows wait, many at once, and nothing falls back."""
    proxy.delay_s = BUDGET_S / 5
    before = server.counts()
    with Load(server) as load:
        load.more(400)
    told = server.counts() - before
    assert told["feature_waits"] >= 400
    # The machine may be late now and then, the store is not.
    assert told["feature_reads:online:hit"] > 0.9 * 2 * load.answers.total()


def refuse(text: str) -> Fault:
    return instead(f"-{text}\r\n".encode())


@pytest.mark.parametrize(
    ("fault", "outcome", "cause"),
    [
        (cut(0), "unreachable", "closed"),
        (cut(10), "unreachable", "closed"),
        (cut(1), "unreachable", "closed"),
        (instead(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "unreachable", "protocol"),
        (instead(b":5\r\n"), "unreachable", "protocol"),
        (instead(b"*1\r\n$1\r\nx\r\n"), "unreachable", "protocol"),
        (instead(b"$999999999999999999999\r\n"), "unreachable", "protocol"),
        (instead(bytes(range(256)) * 8), "unreachable", "protocol"),
        (instead(b"$3000000\r\n" + bytes(3_000_000) + b"\r\n"), "malformed", "too_large"),
        (refuse("OOM command not allowed when used memory > 'maxmemory'."), "refused",
         "out_of_memory"),
        (refuse("LOADING Redis is loading the dataset in memory"), "refused", "loading"),
        (refuse("NOPERM this user has no permissions"), "refused", "no_auth"),
        (refuse("ERR max number of clients reached"), "refused", "other"),
        (flip_record, "foreign", ""),
        (instead(b"$0\r\n\r\n"), "malformed", ""),
    ],
    ids=[
        *("closes", "closes in a record", "closes in a line", "no redis", "number", "array"),
        *("endless", "noise", "huge", "oom", "loading", "no permission", "other error"),
        *("corrupt record", "empty record"),
    ],
)  # fmt: skip
def test_bad_answers(
    server: StoredServing, proxy: FaultyRedis, fault: Fault, outcome: str, cause: str
) -> None:
    before = server.counts()
    with Load(server) as load:
        proxy.answer = fault
        until(lambda: (server.counts() - before)[f"feature_reads:online:{outcome}"] > 0, outcome)
        assert_defaults(server)
        load.more()
        proxy.heal()
        until(server.all_online, "recovery")
        assert_own_values(server)
    told = server.counts() - before
    assert told["ml_feature_fallbacks:default:customer"] > 0
    if cause:
        assert told[f"store_errors:{cause}"] > 0
    else:
        assert not any(name.startswith("store_errors") for name in told)


def test_a_deadline_that_comes_before_the_budget(proxy: FaultyRedis) -> None:
    """A read may take the call's time but for a rest, in which the answer is still given."""
    settings = {
        **REDIS,
        "redis.address": proxy.address,
        "redis.stall_us": 60_000_000,
        "redis.breaker_min_reads": 1_000_000,
    }
    message = Message(SCORE, request().SerializeToString())
    with StoredServing(settings, stored_repository(10_000_000)) as server:
        until(server.all_online, "the start")
        proxy.delay_s = 5.0
        try:
            load = Generator(server.fast, [message], timeout_s=0.1, limits=Limits())
            result = load.run_closed(n_calls=200)
        finally:
            proxy.heal()
        # A machine that stalls for a millisecond at the wrong moment loses some of them.
        assert result.status_counts["OK"] >= 150, (result.status_counts, result.first_error)
        counts = server.counts()
        assert counts["feature_reads:online:timeout"] >= 2 * result.status_counts["OK"]
        assert counts["ml_feature_fallbacks:default:customer"] >= result.status_counts["OK"]
