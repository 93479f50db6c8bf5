"""Records written to a real redis-server: what lies there, and what is said when it refuses."""

from __future__ import annotations

import signal
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from fastpath.record import decode_record
from fastpath.spec import GroupSpec
from server.errors import FeatureStoreError, InputError
from server.features.redis import RedisFeatureWriter
from server.features.redis_url import parse_redis_url
from tests.support.redis_server import RedisServer
from tests.support.redis_store import TlsServer, certificates

COLUMNS = (("n_day", "numeric"), ("mean_day", "numeric"), ("is_new", "boolean"))
GROUP = GroupSpec("customer", "customer", COLUMNS)
T = 1_700_000_000_000
ROWS = np.array([[1, 2.5, 1], [3, np.nan, 0], [-0.0, np.inf, 1]], np.float32)
IDS = ["4711", "Zoë", "a:b"]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(tcp=True) as running:
        yield running


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=server.socket) as found:
        found.config_set("maxmemory", "0")
        found.flushall()
        yield found


def many(n: int, seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        [f"c{i}" for i in range(n)],
        T + rng.integers(-1000, 1000, n),
        rng.normal(size=(n, 3)).astype(np.float32),
    )


def records(client: redis.Redis, keys: list[str]) -> list[bytes]:
    found = client.mget(keys)
    assert all(isinstance(data, bytes) for data in found)
    return [bytes(data) for data in found]  # type: ignore[arg-type]  # bytes, as asserted


def test_a_record_lies_under_its_key_byte_for_byte(
    server: RedisServer, client: redis.Redis
) -> None:
    with RedisFeatureWriter(server.url, GROUP) as writer:
        assert writer.write(IDS, [T, T + 1, T + 2], ROWS) == 3
    # Written down from the format's definition, not by our encoder.
    expected = {
        f"scoregate:customer:{name}".encode(): struct.pack(
            "<Qq3f", GROUP.fingerprint, T + i, *ROWS[i].tolist()
        )
        for i, name in enumerate(IDS)
    }
    assert {key: client.get(key) for key in client.keys()} == expected  # noqa: SIM118
    assert client.ttl("scoregate:customer:4711") == -1


@pytest.mark.parametrize("only_newer", [False, True])
@pytest.mark.parametrize("ttl_s", [None, 500.0])
@pytest.mark.parametrize("batch_size", [1, 100, 5000])
def test_every_way_of_writing_stores_the_same(
    server: RedisServer, client: redis.Redis, only_newer: bool, ttl_s: float | None, batch_size: int
) -> None:
    ids, times, rows = many(703)
    with RedisFeatureWriter(
        server.url, GROUP, key_prefix="p:", ttl_s=ttl_s, batch_size=batch_size
    ) as writer:
        assert writer.write(ids, times, rows, only_newer=only_newer) == 703
    stored = records(client, [f"p:customer:{name}" for name in ids])
    for i, data in enumerate(stored):
        fingerprint, time_ms, values = decode_record(data)
        assert (fingerprint, time_ms) == (GROUP.fingerprint, times[i])
        np.testing.assert_array_equal(values, rows[i])
    left = {client.pttl(f"p:customer:{name}") for name in ids}
    assert left == {-1} if ttl_s is None else all(400_000 < x <= 500_000 for x in left)


def test_only_newer_leaves_later_records(server: RedisServer, client: redis.Redis) -> None:
    stored = np.array([T, T, T, -5, 2**40, -(2**62)], np.int64)
    fresh = np.array([T - 1, T, T + 1, 3, 2**40 - 2**33, -(2**62) + 1], np.int64)
    ids = [f"c{i}" for i in range(6)]
    old, new = np.zeros((6, 3), np.float32), np.ones((6, 3), np.float32)
    with RedisFeatureWriter(server.url, GROUP) as writer:
        writer.write(ids, stored, old)
        assert writer.write(ids, fresh, new, only_newer=True) == int((fresh >= stored).sum()) == 4
        found = records(client, [f"scoregate:customer:{name}" for name in ids])
        values = [decode_record(data)[2][0] for data in found]
        assert values == (fresh >= stored).astype(float).tolist()
        assert writer.write(ids, fresh, new, only_newer=True) == 4, "a repetition counts the same"
        assert writer.write(ids, stored, old) == 6


def test_what_is_no_record_is_replaced(server: RedisServer, client: redis.Redis) -> None:
    for options in ({}, {"only_newer": True}):
        client.flushall()
        client.lpush("scoregate:customer:c0", "x")
        client.set("scoregate:customer:c1", "short")
        with RedisFeatureWriter(server.url, GROUP) as writer:
            assert writer.write(["c0", "c1"], T, ROWS[:2], **options) == 2
        found = records(client, ["scoregate:customer:c0", "scoregate:customer:c1"])
        assert [len(data) for data in found] == [28, 28]


def test_the_last_of_equal_ids_counts(server: RedisServer, client: redis.Redis) -> None:
    with RedisFeatureWriter(server.url, GROUP) as writer:
        assert writer.write(["c", "c"], [T, T], ROWS[:2]) == 2
    assert decode_record(records(client, ["scoregate:customer:c"])[0])[2][0] == 3


def test_the_last_of_equal_ids_counts_after_a_failure_too(
    server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.features.redis.COMMAND_RECORDS", 1)
    real = redis.client.Pipeline.execute
    refused: list[object] = []

    def refuse_once(pipeline: redis.client.Pipeline, raise_on_error: bool = True) -> list[object]:
        # All but the first command are carried out; the first one is said to have found it busy.
        first = pipeline.command_stack[:1]
        pipeline.command_stack = pipeline.command_stack[0 if refused else 1 :]
        lost = [] if refused else [redis.exceptions.TryAgainError("later", status_code="TRYAGAIN")]
        refused.extend(first)
        return [*lost, *real(pipeline, raise_on_error)]

    with RedisFeatureWriter(server.url, GROUP) as writer:
        monkeypatch.setattr(redis.client.Pipeline, "execute", refuse_once)
        assert writer.write(["c", "c"], [T, T], ROWS[:2]) == 2
    assert len(refused) >= 2
    assert decode_record(records(client, ["scoregate:customer:c"])[0])[2][0] == 3


def test_database_prefix_expiry_and_password_file_from_the_url(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    with RedisServer("--requirepass", "s3cret", tcp=True) as locked:
        url = f"redis://127.0.0.1:{locked.port}/3?password_file={secret}&key_prefix=mine:&ttl_s=100"
        with RedisFeatureWriter(url, GROUP) as writer:
            writer.write(["c"], T, ROWS[:1])
        client = redis.Redis(port=locked.port, db=3, password="s3cret")
        assert 0 < client.ttl("mine:customer:c") <= 100
        client.close()
        for wrong in (
            f"redis://:nottheone@127.0.0.1:{locked.port}",
            f"redis://127.0.0.1:{locked.port}",
        ):
            with pytest.raises(FeatureStoreError, match="password") as caught:
                RedisFeatureWriter(wrong, GROUP)
            assert "nottheone" not in str(caught.value)


def test_tls_and_its_authority(tmp_path: Path) -> None:
    pem = certificates(tmp_path)
    with TlsServer(pem) as server:
        url = f"rediss://localhost:{server.tls_port}"
        with RedisFeatureWriter(f"{url}?ssl_ca_certs={pem.authority}", GROUP) as writer:
            assert writer.write(IDS, T, ROWS) == 3
        with pytest.raises(FeatureStoreError, match="certificate verify failed"):
            RedisFeatureWriter(url, GROUP, n_retries=0)
        with server.client() as client:
            assert client.dbsize() == 3


def test_a_script_that_the_server_forgot_is_loaded_again(
    server: RedisServer, client: redis.Redis
) -> None:
    with RedisFeatureWriter(server.url, GROUP) as writer:
        writer.write(IDS, T, ROWS, only_newer=True)
        client.script_flush()
        assert writer.write(IDS, T, ROWS, only_newer=True) == 3


@pytest.mark.parametrize("only_newer", [False, True])
def test_out_of_memory_says_how_far_it_got(
    server: RedisServer, client: redis.Redis, only_newer: bool
) -> None:
    ids, times, rows = many(60_000)
    used = client.info("memory")["used_memory"]
    client.config_set("maxmemory", used + (3 << 20))
    client.config_set("maxmemory-policy", "noeviction")
    with (
        RedisFeatureWriter(server.url, GROUP, batch_size=1000) as writer,
        pytest.raises(FeatureStoreError, match=r"OOM command not allowed.*maxmemory") as caught,
    ):
        writer.write(ids, times, rows, only_newer=only_newer)
    said = int(
        str(caught.value).split(" records were written")[0].rsplit(" ", 1)[1].replace(",", "")
    )
    # Behind the refused command of a batch, another one may still have found room.
    assert 0 < said <= client.dbsize() < said + 1000


def test_a_replica_is_not_written_to(server: RedisServer) -> None:
    with (
        RedisServer("--replicaof", "127.0.0.1", str(server.port)) as replica,
        RedisFeatureWriter(replica.url, GROUP, n_retries=8) as writer,
        pytest.raises(FeatureStoreError, match=r"READONLY.*write to its primary"),
    ):
        writer.write(IDS, T, ROWS)


def test_nobody_there() -> None:
    with pytest.raises(FeatureStoreError, match=r"unix:/no/such\.sock.*tried 2 times.*; 0 records"):
        RedisFeatureWriter("unix:///no/such.sock", GROUP, n_retries=1)


def test_a_restart_in_the_middle_is_survived() -> None:
    ids, times, rows = many(20_000)
    with RedisServer() as server:
        with RedisFeatureWriter(server.url, GROUP, batch_size=500, n_retries=40) as writer:
            found: list[int] = []

            def write() -> None:
                for _ in range(5):
                    found.append(writer.write(ids, times, rows, only_newer=True))

            thread = threading.Thread(target=write)
            thread.start()
            time.sleep(0.1)
            server.stop()
            server.start()
            thread.join()
        assert found == [20_000] * 5
        with redis.Redis(unix_socket_path=server.socket) as client:
            stored = records(client, [f"scoregate:customer:{name}" for name in ids])
        assert [decode_record(x)[1] for x in stored] == times.tolist()


def test_a_paused_server_is_an_error_in_the_end(server: RedisServer, client: redis.Redis) -> None:
    with RedisFeatureWriter(f"{server.url}?timeout_s=0.1", GROUP, n_retries=1) as writer:
        writer.write(IDS, T, ROWS)
        server.signal(signal.SIGSTOP)
        try:
            with pytest.raises(FeatureStoreError, match="tried 2 times"):
                writer.write(IDS, T, ROWS)
        finally:
            server.signal(signal.SIGCONT)
        assert writer.write(IDS, T, ROWS) == 3


@pytest.mark.parametrize(
    ("ids", "times", "rows", "message"),
    [
        (IDS, T, ROWS[:2], r"shape \(2, 3\).*\(3, 3\)"),
        (IDS, T, ROWS[:, :2], r"shape \(3, 2\).*\(3, 3\)"),
        (IDS, [T, T], ROWS, "event times"),
        (IDS, [0.5, 1.5, 2.5], ROWS, "whole milliseconds"),
    ],
)
def test_arrays_that_do_not_fit(
    server: RedisServer, ids: list[str], times: object, rows: np.ndarray, message: str
) -> None:
    with RedisFeatureWriter(server.url, GROUP) as writer, pytest.raises(InputError, match=message):
        writer.write(ids, times, rows)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_ids_that_are_no_keys(server: RedisServer, client: redis.Redis, name: str) -> None:
    with RedisFeatureWriter(server.url, GROUP) as writer, pytest.raises(ValueError, match="256"):
        writer.write([name], T, ROWS[:1])
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost", "begins with redis://"),
        ("redis://:pass#word@localhost", "%23"),
        ("redis://localhost:99999", "cannot be read"),
        ("redis://localhost/one", "database is 'one'"),
        ("unix://path", "three slashes"),
        ("redis://localhost?ttl_s=0", "above 0"),
        ("redis://localhost?tls=1", "'tls' is unknown"),
        ("redis://localhost?ssl_ca_certs=x", "is unknown"),
        ("redis://localhost?password_file=/no/such", "cannot be read"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_redis_url(url)
    assert "word@" not in str(caught.value)


def test_a_tls_url_reaches_redis_py() -> None:
    found = parse_redis_url("rediss://u:p%23w@h:7000/2?ssl_ca_certs=/ca.pem&ssl_check_hostname=no")
    assert found.client == {
        "host": "h",
        "port": 7000,
        "ssl": True,
        "db": 2,
        "username": "u",
        "password": "p#w",
        "ssl_ca_certs": "/ca.pem",
        "ssl_check_hostname": False,
    }
    assert found.shown == "rediss://h:7000, database 2"
