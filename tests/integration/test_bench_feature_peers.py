"""The peers of the feature benchmarks, each on small stores, against a real redis-server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import redis

from bench import feature_peers
from bench.bare_gets import redis_gets
from bench.errors import BenchError
from bench.feature_store_data import CUSTOMER, TERMINAL, Sizes, chunks, fill, keys
from tests.support.redis_server import RedisServer

SIZES = Sizes(300, 40)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(tcp=True) as running:
        fill(running.url, SIZES)
        with redis.Redis(unix_socket_path=running.socket) as client:
            feature_peers.fill_hashes(client, SIZES)
        yield running


@pytest.mark.parametrize("depth", [1, 2, 32])
def test_bare_reads_take_time_each(server: RedisServer, depth: int) -> None:
    ours = keys(CUSTOMER, SIZES.n_customers, b"scoregate:")
    for address in (f"unix:{server.socket}", f"127.0.0.1:{server.port}"):
        times_ns = redis_gets(address, ours, 50, depth=depth, order="zipf")
        assert len(times_ns) == 50
        assert min(times_ns) > 0


def test_bare_reads_have_to_find_a_string(server: RedisServer) -> None:
    with pytest.raises(BenchError, match="b'none' is not there"):
        redis_gets(f"unix:{server.socket}", [b"none"], 1)
    with pytest.raises(BenchError, match="holds no string"):
        redis_gets(f"unix:{server.socket}", [b"bench-hash:customer:1"], 1)


def test_redis_py_reads_the_same_numbers_both_ways(server: RedisServer) -> None:
    (customers,), (terminals,) = (list(chunks(g, n)) for g, n in SIZES.groups())
    with redis.Redis(unix_socket_path=server.socket) as client:
        a, b = feature_peers.by_mget(client, "17", "3")
        both = feature_peers.by_hmget(client, "17", "3")
        np.testing.assert_array_equal(a, customers.values[17])
        np.testing.assert_array_equal(b, terminals.values[3])
        np.testing.assert_array_equal(np.array(both, np.float32), np.concatenate([a, b]))
        with pytest.raises(BenchError, match="customer 300 or terminal 3"):
            feature_peers.by_mget(client, "300", "3")
    assert len(both) == len(CUSTOMER.columns) + len(TERMINAL.columns)


def test_figures_are_json(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(feature_peers.FEAST_PYTHON, "/no/such/python")
    found = json.loads(json.dumps(feature_peers.run(server.socket, SIZES, SIZES, 20)))
    for way in ("mget", "hmget"):
        assert 0 < found["redis_py"][way]["p50_us"] <= found["redis_py"][way]["p99_us"]
    assert set(found["feast"]) == {"sqlite", "redis"}


@pytest.mark.skipif(feature_peers.feast_python() is None, reason="no Feast: run make feast-env")
def test_feast_is_measured_where_it_is(server: RedisServer) -> None:
    found = feature_peers.feast(f"redis:{server.socket}", Sizes(20, 5), 5)
    assert 0 < found["p50_us"] <= found["p99_us"]
