"""The online store against real redis-servers, and against servers that misbehave."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastpath.errors import StoreError
from fastpath.store_probe import StoreProbe
from fastpath.store_redis import BreakerSpec, RedisStore, RedisTls
from tests.support.redis_store import Certificates, StoreServer, TlsServer, certificates

PATIENCE_S = 30.0
CALM = BreakerSpec(enabled=False)
HASTY = BreakerSpec(window_ms=10_000, min_reads=5, cool_off_ms=20, max_cool_off_ms=100)


@pytest.fixture(scope="module")
def server() -> Iterator[StoreServer]:
    """A healthy server that no test changes but for its own keys."""
    with StoreServer() as server:
        yield server


def until(probe: StoreProbe, condition: Callable[[], bool]) -> None:
    """Turn the store's loop until something holds."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, "it does not come to hold"
        probe.turn(0.01)


def steady(address: str, **options: Any) -> RedisStore:
    """A store that takes a slow machine for no stuck connection, unless it is told to."""
    return RedisStore(address, **{"stall_us": 60e6, **options})


@contextlib.contextmanager
def opened(store: RedisStore, *, connected: bool = True) -> Iterator[StoreProbe]:
    """A store's loop, by default with its primary connected."""
    probe = StoreProbe(store)
    try:
        if connected:
            until(probe, lambda: store.stats()["connected"] == 1)
        yield probe
    finally:
        probe.close()


@pytest.mark.parametrize("kind", ["unix", "tcp", "name"])
def test_it_reads_what_redis_py_wrote(server: StoreServer, kind: str) -> None:
    address = {"unix": server.unix, "tcp": server.tcp, "name": f"localhost:{server.port}"}[kind]
    noise = random.Random(7)
    values = {
        b"customer:%d" % i: noise.randbytes(n) for i, n in enumerate([0, 1, 136, 4112, 65536])
    }
    for key, value in values.items():
        server.put("scoregate:" + key.decode(), value)
    with opened(steady(address)) as probe, server.client() as client:
        for key, value in values.items():
            assert probe.get(key) == ("hit", value)
            assert value == client.get(b"scoregate:" + key)
        assert probe.get(b"customer:nobody") == ("absent", None)


def test_reads_of_one_iteration_leave_together(server: StoreServer) -> None:
    with server.client() as client:
        client.mset({f"scoregate:many:{i}": b"%d " % i * 800 for i in range(1000)})
    store = steady(server.unix)
    with opened(store) as probe:
        tickets = [probe.begin(b"many:%d" % (i % 1100)) for i in range(1020)]
        until(probe, lambda: store.stats()["pending"] == 0)
        for i, ticket in enumerate(tickets):
            want = ("hit", b"%d " % i * 800) if i < 1000 else ("absent", None)
            assert probe.take(ticket) == want


def test_more_reads_than_it_holds_are_busy(server: StoreServer) -> None:
    store = steady(server.unix)
    with opened(store) as probe:
        tickets = [probe.begin(b"x") for _ in range(4100)]
        assert [probe.take(t) for t in tickets[4096:]] == [("busy", None)] * 4
        until(probe, lambda: store.stats()["pending"] == 0)
        assert probe.get(b"x") == ("absent", None)


def test_password_user_and_database() -> None:
    with StoreServer("--requirepass", "secret") as server:
        with server.client(password="secret") as client:
            client.execute_command("ACL", "SETUSER", "reader", "on", ">pass", "~*", "+@all")
        server.put("scoregate:k", b"in 3", password="secret", db=3)
        for user, password in (("", "secret"), ("reader", "pass")):
            store = steady(server.unix, username=user, password=password, database=3)
            with opened(store) as probe:
                assert probe.get(b"k") == ("hit", b"in 3")
        with opened(steady(server.unix, password="secret")) as probe:
            assert probe.get(b"k") == ("absent", None)


@pytest.mark.parametrize(
    ("options", "cause", "words"),
    [
        ({"password": "wrong"}, "auth", "WRONGPASS"),
        ({}, "auth", "NOAUTH"),
        ({"password": "secret", "database": 99}, "database", "out of range"),
    ],
)
def test_a_refused_handshake_is_a_clear_state(
    options: dict[str, Any], cause: str, words: str
) -> None:
    with StoreServer("--requirepass", "secret") as server:
        store = steady(server.unix, **options)
        with opened(store, connected=False) as probe:
            until(probe, lambda: store.stats()[f"connect_failures_{cause}"] >= 2)
            assert probe.get(b"k") == ("unreachable", None)
            assert f"{cause}: " in store.last_error
            assert words in store.last_error
            assert store.stats()["connected"] == 0


def test_wrong_type_is_refused_and_does_not_open_the_breaker(server: StoreServer) -> None:
    with server.client() as client:
        client.delete("scoregate:list")
        client.lpush("scoregate:list", "1")
    store = steady(server.tcp, breaker=HASTY)
    with opened(store) as probe:
        for _ in range(50):
            assert probe.get(b"list") == ("refused", None)
        stats = store.stats()
        assert (stats["errors_wrong_type"], stats["breaker_opened"]) == (50, 0)


def test_no_server_at_start_then_one() -> None:
    server = StoreServer()
    store = steady(server.tcp)
    with opened(store, connected=False) as probe:
        assert probe.get(b"k") == ("unreachable", None)
        until(probe, lambda: store.stats()["connect_failures_closed"] >= 2)
        assert "refused" in store.last_error.lower()
        with server:
            server.put("scoregate:k", b"v")
            until(probe, lambda: store.stats()["connected"] == 1)
            assert probe.get(b"k") == ("hit", b"v")


def test_killed_with_reads_waiting_and_restarted() -> None:
    with StoreServer() as server:
        server.put("scoregate:k", b"v")
        store = steady(server.unix, breaker=CALM)
        with opened(store) as probe:
            assert probe.get(b"k") == ("hit", b"v")
            server.pause()
            tickets = [probe.begin(b"k") for _ in range(100)]
            probe.turn()
            server.kill()
            until(probe, lambda: store.stats()["pending"] == 0)
            assert [probe.take(t) for t in tickets] == [("unreachable", None)] * 100
            assert store.stats()["disconnects_closed"] == 1
            assert probe.get(b"k") == ("unreachable", None)
            server.start()
            server.put("scoregate:k", b"new")
            until(probe, lambda: store.stats()["connected"] == 1)
            assert probe.get(b"k") == ("hit", b"new")


def test_late_replies_are_dropped_and_not_mixed_up() -> None:
    with StoreServer() as server:
        for i in range(20):
            server.put(f"scoregate:{i}", b"value %d" % i)
        store = steady(server.unix, breaker=CALM)
        with opened(store) as probe:
            server.pause()
            for i in range(10):
                probe.abandon(probe.begin(b"%d" % i))
                probe.turn()
            kept = probe.begin(b"10")
            server.resume()
            until(probe, lambda: store.stats()["pending"] == 0)
            assert probe.take(kept) == ("hit", b"value 10")
            assert probe.get(b"11") == ("hit", b"value 11")
            stats = store.stats()
            assert (stats["late_replies"], stats["connects"]) == (10, 1)


def test_paused_the_breaker_opens_and_it_recovers() -> None:
    with StoreServer() as server:
        server.put("scoregate:k", b"v")
        store = steady(server.unix, breaker=HASTY)
        with opened(store) as probe:
            server.pause()
            for _ in range(HASTY.min_reads):
                assert probe.get(b"k", timeout_s=0.001) == ("timeout", None)
            assert probe.get(b"k") == ("breaker", None)
            assert store.stats()["breaker_state"] == 2
            # The probe of the half-open state times out as well.
            until(probe, lambda: probe.get(b"k", timeout_s=0.001) == ("timeout", None))
            assert store.stats()["breaker_opened"] == 2
            server.resume()
            until(probe, lambda: probe.get(b"k") == ("hit", b"v"))
            assert store.stats()["breaker_state"] == 0


def test_a_stuck_connection_is_discarded_and_made_again() -> None:
    with StoreServer() as server:
        server.put("scoregate:k", b"v")
        store = steady(server.unix, breaker=CALM, stall_us=20_000)
        with opened(store) as probe:
            server.pause()
            ticket = probe.begin(b"k")
            until(probe, lambda: store.stats()["disconnects_timeout"] == 1)
            assert probe.take(ticket) == ("unreachable", None)
            server.resume()
            until(probe, lambda: store.stats()["connected"] == 1)
            assert probe.get(b"k") == ("hit", b"v")


# ---------------------------------------------------------------- servers that misbehave


@contextlib.contextmanager
def scripted(*scripts: tuple[bytes, ...]) -> Iterator[str]:
    """A server that answers the handshake, then each read with the next bytes of its script.

    One script per connection, the last one for all later ones; a script's end closes.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket, script: tuple[bytes, ...]) -> None:
        with connection, contextlib.suppress(OSError):
            for answer in (b"+PONG\r\n", *script):
                if not connection.recv(65536):
                    return
                for i in range(0, len(answer), 1500):
                    connection.sendall(answer[i : i + 1500])
                    time.sleep(0.0005)

    def accept() -> None:
        n = 0
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                serve(connection, scripts[min(n, len(scripts) - 1)])
                n += 1

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


RECORD = random.Random(3).randbytes(4112)
WHOLE = b"$4112\r\n" + RECORD + b"\r\n"


def test_the_largest_record_in_pieces() -> None:
    with scripted((WHOLE, WHOLE)) as address, opened(steady(address)) as probe:
        assert probe.get(b"k", timeout_s=PATIENCE_S) == ("hit", RECORD)
        assert probe.get(b"k", timeout_s=PATIENCE_S) == ("hit", RECORD)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (WHOLE[:1000], "closed"),
        (b"*1\r\n$1\r\nx\r\n", "protocol"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"),
        (b"$-1\r\n$-1\r\n", "protocol"),
        (b"$9000000\r\n" + bytes(1 << 20) + bytes(4096), "too_large"),
    ],
)
def test_a_broken_reply_ends_the_connection_not_the_store(answer: bytes, cause: str) -> None:
    with scripted((answer,), (WHOLE, WHOLE)) as address:
        store = steady(address, breaker=CALM)
        with opened(store) as probe:
            first = probe.get(b"k", timeout_s=PATIENCE_S)
            if b"$-1" in answer:
                assert first == ("absent", None)  # the surplus reply came after it
            else:
                assert first[0] == ("malformed" if cause == "too_large" else "unreachable")
            until(probe, lambda: store.stats()[f"disconnects_{cause}"] == 1)
            until(probe, lambda: store.stats()["connected"] == 1)
            assert probe.get(b"k", timeout_s=PATIENCE_S) == ("hit", RECORD)


def test_a_server_that_accepts_and_says_nothing_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = steady(f"127.0.0.1:{listener.getsockname()[1]}", connect_timeout_ms=20)
        with opened(store, connected=False) as probe:
            until(probe, lambda: store.stats()["connect_failures_timeout"] >= 2)
            assert "timeout" in store.last_error


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_server(files: Certificates) -> Iterator[TlsServer]:
    """A server that wants a client's certificate."""
    with TlsServer(files, clients="yes") as server:
        server.put("scoregate:k", RECORD)
        yield server


def client_tls(files: Certificates, **changes: Any) -> RedisTls:
    return RedisTls(str(files.authority), str(files.client), str(files.client_key))._replace(
        **changes
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_tls_with_both_sides_verified(
    tls_server: TlsServer, files: Certificates, host: str
) -> None:
    store = steady(f"{host}:{tls_server.tls_port}", tls=client_tls(files))
    with opened(store) as probe:
        tickets = [probe.begin(b"k") for _ in range(1000)]
        until(probe, lambda: store.stats()["pending"] == 0)
        assert {probe.take(t) for t in tickets} == {("hit", RECORD)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ca_file": ""}, "certificate"),
        ({"server_name": "elsewhere.example"}, "mismatch"),
        ({"certificate_file": "", "key_file": ""}, "certificate required"),
    ],
)
def test_tls_refused_says_why(
    tls_server: TlsServer, files: Certificates, changes: dict[str, Any], words: str
) -> None:
    store = steady(f"127.0.0.1:{tls_server.tls_port}", tls=client_tls(files, **changes))
    with opened(store, connected=False) as probe:
        until(probe, lambda: store.stats()["connect_failures_tls"] >= 1)
        assert words in store.last_error.lower()
        assert probe.get(b"k") == ("unreachable", None)


def test_tls_without_verification(tls_server: TlsServer, files: Certificates) -> None:
    options = client_tls(files, ca_file="", verify=False)
    with opened(steady(f"127.0.0.1:{tls_server.tls_port}", tls=options)) as probe:
        assert probe.get(b"k", timeout_s=PATIENCE_S) == ("hit", RECORD)


def test_cleartext_to_a_tls_port_and_the_reverse(
    server: StoreServer, tls_server: TlsServer, files: Certificates
) -> None:
    for address, tls in (
        (f"127.0.0.1:{tls_server.tls_port}", None),
        (server.tcp, client_tls(files)),
    ):
        store = steady(address, tls=tls, connect_timeout_ms=200)
        with opened(store, connected=False) as probe:
            until(probe, lambda s=store: s.stats()["connect_failures"] >= 1)  # type: ignore[misc]
            assert store.last_error


def test_tls_files_that_cannot_be_used_are_named(files: Certificates, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    cases = [
        ({"ca_file": "/no/such/file"}, "ca_file /no/such/file"),
        ({"ca_file": str(broken)}, f"ca_file {broken}"),
        ({"certificate_file": str(broken)}, f"certificate_file {broken}"),
        ({"key_file": str(broken)}, f"key_file {broken}"),
        ({"key_file": str(files.server_key)}, "not the certificate's key|key values mismatch"),
        ({"certificate_file": ""}, "needs certificate_file"),
    ]
    for changes, words in cases:
        with pytest.raises(StoreError, match=words):
            steady("localhost:1", tls=client_tls(files, **changes))
    with pytest.raises(StoreError, match="server_name"):
        steady("unix:/socket", tls=client_tls(files))


# ---------------------------------------------------------------- replica and cache


def test_hedged_reads_win_while_the_primary_is_paused(server: StoreServer) -> None:
    server.put("scoregate:k", b"replica's")
    with StoreServer() as primary:
        primary.put("scoregate:k", b"primary's")
        store = steady(primary.unix, replica=server.unix, hedge_after_us=1000, breaker=CALM)
        with opened(store) as probe:
            until(probe, lambda: store.stats()["replica_connected"] == 1)
            primary.pause()
            for _ in range(10):
                assert probe.get(b"k", timeout_s=PATIENCE_S) == ("hit", b"replica's")
            stats = store.stats()
            assert (stats["hedged"], stats["hedge_wins"], stats["pending"]) == (10, 10, 0)
            primary.resume()
            until(probe, lambda: store.stats()["late_replies"] == 10)
            assert store.stats()["connects"] == 2


def test_the_replica_is_asked_alone_while_the_primary_is_away(server: StoreServer) -> None:
    server.put("scoregate:k", b"replica's")
    primary = StoreServer()
    store = steady(primary.unix, replica=server.unix)
    with opened(store, connected=False) as probe:
        until(probe, lambda: store.stats()["replica_connected"] == 1)
        assert probe.get(b"k") == ("hit", b"replica's")
        assert store.stats()["failovers"] == 1
        with primary:
            primary.put("scoregate:k", b"primary's")
            until(probe, lambda: store.stats()["connected"] == 1)
            assert probe.get(b"k") == ("hit", b"primary's")


def test_lost_on_both_sides_a_read_ends_once() -> None:
    with StoreServer() as primary, StoreServer() as replica:
        store = steady(primary.unix, replica=replica.unix, hedge_after_us=1, breaker=CALM)
        with opened(store) as probe:
            until(probe, lambda: store.stats()["replica_connected"] == 1)
            primary.pause()
            replica.pause()
            ticket = probe.begin(b"k")
            until(probe, lambda: store.stats()["hedged"] == 1)
            primary.kill()
            until(probe, lambda: store.stats()["connected"] == 0)
            assert probe.take(ticket) is None, "the replica may still answer"
            replica.kill()
            until(probe, lambda: store.stats()["pending"] == 0)
            assert probe.take(ticket) == ("unreachable", None)


def test_the_cache_answers_for_its_time_even_without_a_server() -> None:
    with StoreServer() as server:
        server.put("scoregate:k", b"v1")
        store = steady(server.unix, cache_bytes=1 << 20, cache_ttl_ms=3_600_000)
        with opened(store) as probe:
            assert probe.get(b"k") == ("hit", b"v1")
            assert probe.get(b"none") == ("absent", None)
            server.put("scoregate:k", b"v2")
            assert probe.get(b"k") == ("hit", b"v1")
            server.stop()
            until(probe, lambda: store.stats()["connected"] == 0)
            assert probe.get(b"k") == ("hit", b"v1")
            assert probe.get(b"none") == ("absent", None)
            assert probe.get(b"other") == ("unreachable", None)
            stats = store.stats()
            assert (stats["cache_hits"], stats["cache_misses"], stats["replies"]) == (3, 3, 2)
            server.start()


def test_the_cache_asks_again_after_its_time(server: StoreServer) -> None:
    server.put("scoregate:cached", b"v1")
    store = steady(server.unix, cache_bytes=1 << 20, cache_ttl_ms=1)
    with opened(store) as probe:
        assert probe.get(b"cached") == ("hit", b"v1")
        server.put("scoregate:cached", b"v2")
        until(probe, lambda: probe.get(b"cached") == ("hit", b"v2"))


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hedge_after_us": 5}, "replica"),
        ({"stall_us": 0}, "stall_us"),
        ({"connect_timeout_ms": float("nan")}, "connect_timeout_ms"),
        ({"database": -1}, "database"),
        ({"username": "me"}, "password"),
        ({"key_prefix": "x" * 129}, "key_prefix"),
        ({"cache_bytes": 1 << 20}, "cache_ttl_ms"),
        ({"cache_bytes": 5, "cache_ttl_ms": 5}, "cache_bytes"),
        ({"tls": "yes"}, "RedisTls"),
        ({"replica": "nowhere"}, "address 'nowhere'"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(StoreError, match=words):
        steady("localhost:6379", **options)
