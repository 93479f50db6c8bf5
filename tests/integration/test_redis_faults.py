"""A real redis-server that is missing, killed, paused, full, or holds what is no record.

In every test the calls have defaults, and every one of them is answered with OK in time; customers
fall back to their batch records, which are told from the online ones by their values, and terminals
to the schema's default. Afterwards the server is back by itself, and the store has all it had.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.generator import Generator, Limits, Message
from fastpath.record import encode_records
from fastpath.spec import group_fingerprint
from server.errors import FeatureStoreError
from server.features import open_writer
from server.features.batch import BatchTableWriter
from tests.support.clients import SCORE
from tests.support.redis_store import StoreServer
from tests.support.stores import (
    CUSTOMER,
    DEADLINE_S,
    N_ENTITIES,
    REDIS,
    TERMINAL,
    Load,
    StoredServing,
    now_ms,
    request,
    until,
    values_of,
    whole_request,
    write_online,
)

BATCH_OFFSET = 10.0  # of n_day in the batch records: no online record has such a value
DEFAULT_RISK = 0.25
KEPT = ("--appendonly", "yes", "--appendfsync", "always")
N_UNKNOWN = 100_000


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a batch table of all customers."""
    path = tmp_path_factory.mktemp("stores")
    with BatchTableWriter(path, CUSTOMER) as table:
        table.write(
            [f"c{i}" for i in range(N_ENTITIES)],
            now_ms(),
            np.array([[values_of(i)[0] + BATCH_OFFSET, 7.0] for i in range(N_ENTITIES)], "f4"),
        )
        table.commit()
    return path


@pytest.fixture(scope="module")
def redis() -> Iterator[StoreServer]:
    """Run a server that keeps what it acknowledged, filled with all entities."""
    with StoreServer(*KEPT) as server:
        write_online(server.url)
        yield server


@pytest.fixture(scope="module")
def shared(redis: StoreServer, directory: Path) -> Iterator[StoredServing]:
    """Run one scoregate for all tests of this module: that it recovers is what they show."""
    settings = {**REDIS, "redis.address": redis.unix, "features.directory": str(directory)}
    with StoredServing(settings) as server:
        yield server


@pytest.fixture
def server(shared: StoredServing, redis: StoreServer) -> Iterator[StoredServing]:
    """Check that all was well before a test, and is again after it."""
    until(shared.all_online, "recovery")
    before = contents(redis)
    yield shared
    until(shared.all_online, "recovery")
    assert shared.online_state() == "ok"
    after = contents(redis)
    assert {key: after.get(key) for key in before} == before


def contents(redis: StoreServer) -> dict[bytes, bytes]:
    """Return every record in the store."""
    with redis.client() as client:
        keys = sorted(client.keys("scoregate:*"))
        return dict(zip(keys, client.mget(keys), strict=True))


def assert_falls_back(server: StoredServing, entity: int = 3) -> None:
    """One answer comes of the batch record and the default, and says so."""
    answer = server.score(request(entity))
    assert (answer.source_counts.batch, answer.source_counts.default_value) == (1, 1)
    assert answer.degraded
    n_day = values_of(entity)[0] + BATCH_OFFSET
    assert answer.raw_score == server.score(whole_request(n_day, DEFAULT_RISK)).raw_score


def test_down_at_the_start(directory: Path) -> None:
    redis = StoreServer(*KEPT)
    settings = {**REDIS, "redis.address": redis.unix, "features.directory": str(directory)}
    with StoredServing(settings) as server, redis_cleanup(redis):
        assert_falls_back(server)
        assert server.group_reads(request()) == {
            "customer": ("unreachable", "hit"),
            "terminal": ("unreachable", "not_read"),
        }
        assert server.online_state() == "unavailable"
        assert "No such file" in server.stores()["online", ""].detail
        with Load(server):
            until(lambda: server.counts()["store_connect_failures:closed"] > 2, "connecting")
            counts = server.counts()
            assert counts["feature_reads:online:unreachable"] > 0
            redis.start()
            write_online(redis.url)
            until(server.all_online, "recovery")
        counts = server.counts()
        assert counts["store_connects"] == 1
        assert counts["ml_feature_fallbacks:batch:customer"] > 0
        assert counts["ml_feature_fallbacks:default:terminal"] > 0
        assert server.online_state() == "ok"
        assert server.stores()["online", ""].detail == ""


def test_killed_under_load(server: StoredServing, redis: StoreServer) -> None:
    before = server.counts()
    with Load(server) as load:
        redis.stop()
        until(lambda: server.online_state() == "unavailable", "the loss")
        assert_falls_back(server)
        load.more()
        redis.start()
        until(server.all_online, "recovery")
        load.more()
    told = server.counts() - before
    assert told["store_errors:closed"] >= 1
    assert told["store_connects"] == 1
    assert told["feature_reads:online:unreachable"] > 0
    assert told["ml_feature_fallbacks:batch:customer"] > 0
    assert told["ml_feature_fallbacks:default:terminal"] > 0


def test_paused_under_load(server: StoredServing, redis: StoreServer) -> None:
    before = server.counts()
    with Load(server) as load:
        redis.pause()
        until(lambda: server.online_state() == "unavailable", "the stall")
        assert_falls_back(server)
        load.more()
        redis.resume()
        until(server.all_online, "recovery")
        load.more()
    told = server.counts() - before
    assert told["feature_reads:online:timeout"] > 0
    assert told["store_errors:timeout"] >= 1  # the connection was given up
    assert told["ml_feature_fallbacks:batch:customer"] > 0


def test_restarted_again_and_again(server: StoredServing, redis: StoreServer) -> None:
    """A rolling restart, as an update of the store makes it; writers go on between."""
    before = server.counts()
    n_files = n_open_files(server)
    with Load(server) as load:
        for turn in range(3):
            redis.stop()
            redis.start()
            with open_writer(redis.url, CUSTOMER) as writer:
                assert writer.write([f"turn{turn}"], now_ms(), [[1.0, 2.0]]) == 1
            until(server.all_online, "recovery")
            load.more()
    assert (server.counts() - before)["store_connects"] == 3
    until(lambda: n_open_files(server) <= n_files, "the end of what was open")
    for turn in range(3):
        assert server.group_reads(request(customer=f"turn{turn}"))["customer"][0] == "hit"


def n_open_files(server: StoredServing) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def test_every_loop_comes_back(redis: StoreServer) -> None:
    """Loops have connections of their own: one that is lost is not the others' to mend."""
    with StoredServing({**REDIS, "redis.address": redis.unix, "fast.loops": 2}) as server:

        def connected() -> list[float]:
            return [server.metric("scoregate_store_connected", loop=str(loop)) for loop in (0, 1)]

        with Load(server) as load:
            until(lambda: connected() == [1, 1], "the start")
            with redis.client() as client:
                # One of the two: the newest connection that reads is this server's.
                readers = [c for c in client.client_list(_type="normal") if c["cmd"] == "get"]
                client.client_kill_filter(_id=str(max(int(c["id"]) for c in readers)))
            until(lambda: server.counts()["store_connects"] == 3, "the loop's return")
            redis.stop()
            until(lambda: connected() == [0, 0], "the loss")
            load.more()
            redis.start()
            until(lambda: connected() == [1, 1], "recovery")
            load.more()
        assert server.online_state() == "ok"
        assert server.counts()["store_errors:closed"] == 3


def test_a_key_of_another_type(server: StoredServing, redis: StoreServer) -> None:
    key = "scoregate:customer:c3"
    before = server.counts()
    with redis.client() as client:
        record = client.get(key)
        client.delete(key)
        client.lpush(key, "no", "record")
        try:
            with Load(server, [3]) as load:
                load.more()
                assert server.group_reads(request(3)) == {
                    "customer": ("refused", "hit"),
                    "terminal": ("hit", "not_read"),
                }
                # The key is at fault, not the store: nobody else is kept from reading.
                assert server.group_reads(request(4))["customer"] == ("hit", "not_read")
                assert server.online_state() == "ok"
        finally:
            client.delete(key)
            client.set(key, record)
    told = server.counts() - before
    assert told["store_errors:wrong_type"] > 50
    assert told["feature_reads:online:refused"] == told["store_errors:wrong_type"]
    assert told["store_breaker_openings"] == 0


def foreign() -> bytes:
    """Return a record of a layout that nobody declares: an older group's, or another program's."""
    older = group_fingerprint("customer", (("n_day", "numeric"),))
    return encode_records(older, np.array([now_ms()]), np.array([[1.0]], "f4")).tobytes()


def record(*values: float, age_ms: int = 0) -> bytes:
    times = np.array([now_ms() - age_ms])
    return encode_records(CUSTOMER.fingerprint, times, np.array([values], "f4")).tobytes()


@pytest.mark.parametrize(
    ("stored", "outcome"),
    [
        (record(1.0, 2.0)[:-1], "malformed"),
        (record(1.0, 2.0)[:-4], "malformed"),
        (record(1.0, 2.0) + bytes(4), "malformed"),
        (record(1.0, 2.0)[:7], "malformed"),
        (b"", "malformed"),
        (b"hello, I am a session cookie of another program.", "foreign"),
        (foreign(), "foreign"),
        (record(np.nan, 2.0), "hit"),
        (record(np.inf, 2.0), "hit"),
        (record(1.0, 2.0, age_ms=3_601_000), "stale"),
    ],
    ids=[
        *("cut in a value", "a value less", "a value more", "cut in the header", "empty"),
        *("foreign", "older layout", "nan", "infinite", "stale"),
    ],
)
def test_a_record_that_cannot_be_used(
    server: StoredServing, redis: StoreServer, stored: bytes, outcome: str
) -> None:
    key = "scoregate:customer:c3"
    before = server.counts()
    with redis.client() as client:
        kept = client.get(key)
        client.set(key, stored)
        try:
            answer = server.score(request(3))
            assert server.group_reads(request(3))["customer"] == (outcome, "hit")
            assert (answer.source_counts.online, answer.source_counts.batch) == (1, 1)
            n_day, risk = values_of(3)
            whole = server.score(whole_request(n_day + BATCH_OFFSET, risk))
            assert answer.raw_score == whole.raw_score
        finally:
            client.set(key, kept)
    told = server.counts() - before
    assert told[f"feature_reads:online:{outcome}"] >= 2
    assert told["ml_feature_fallbacks:batch:customer"] == 2
    assert told["ml_feature_fallbacks:default:terminal"] == 0


def test_out_of_memory(server: StoredServing, redis: StoreServer) -> None:
    """Writers are refused, whole; readers notice nothing."""
    before = server.counts()
    with redis.client() as client, Load(server) as load:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        try:
            with (
                open_writer(redis.url, TERMINAL) as writer,
                pytest.raises(FeatureStoreError, match=r"(?i)memory"),
            ):
                writer.write(["new"], now_ms(), [[0.5]])
            load.more()
            assert server.all_online()
        finally:
            client.config_set("maxmemory", "0")
        with open_writer(redis.url, TERMINAL) as writer:
            assert writer.write(["new"], now_ms(), [[0.5]]) == 1
        load.more()
    told = server.counts() - before
    assert {name for name in told if name.startswith("feature_reads:online")} == {
        "feature_reads:online:hit"
    }
    assert not any(name.startswith(("store_errors", "ml_feature_fallbacks")) for name in told)


def test_a_hundred_thousand_unknown_entities(redis: StoreServer) -> None:
    """Nobody's records: the cache stays within its bytes, and knows the known ones after it."""
    n_cache_bytes = 1 << 20
    settings = {
        **REDIS,
        "redis.address": redis.unix,
        "redis.cache_bytes": n_cache_bytes,
        "redis.cache_ttl_ms": 60_000,
    }
    messages = [
        Message(SCORE, request(customer=f"nobody{i}", terminal=f"nowhere{i}").SerializeToString())
        for i in range(N_UNKNOWN // 2)  # two entities each
    ]
    with StoredServing(settings) as server:
        load = Generator(server.fast, messages, timeout_s=DEADLINE_S, limits=Limits())
        result = load.run_closed(n_calls=len(messages))
        assert result.status_counts == {"OK": len(messages)}, result.first_error
        assert result.latency.max < DEADLINE_S * 1e9
        counts = server.counts()
        assert counts["feature_reads:online:hit"] == 0
        assert sum(counts[f"feature_reads:online:{end}"] for end in ENDS) == N_UNKNOWN
        # A busy machine may be late for some; most have to be answered.
        assert counts["feature_reads:online:absent"] > 0.9 * N_UNKNOWN
        assert counts["ml_feature_fallbacks:default:customer"] == N_UNKNOWN // 2
        assert counts["store_cache_evictions"] > 0
        assert 0 < server.metric("scoregate_store_cache_bytes", loop="0") <= n_cache_bytes
        until(server.all_online, "recovery")


ENDS = ("absent", "timeout", "busy", "unreachable", "breaker")


class redis_cleanup:  # noqa: N801 - reads as a statement
    """Ends a server that the test itself starts."""

    def __init__(self, redis: StoreServer) -> None:
        self._redis = redis

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        StoreServer.__exit__(self._redis, None, None, None)
