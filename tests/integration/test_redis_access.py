"""What keeps a server out of its Redis: passwords, permissions, databases, TLS; and a replica.

A server that is kept out starts all the same, answers from defaults, says why in words and by
cause, and is in as soon as it may.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from server.features import open_writer
from tests.support.redis_store import Certificates, StoreServer, TlsServer, certificates
from tests.support.serving import run_serve, write_config
from tests.support.stores import (
    BUDGET_US,
    CUSTOMER,
    REDIS,
    Load,
    StoredServing,
    now_ms,
    request,
    stored_repository,
    until,
    write_online,
)

# A new replica is not made to wait for others.
FAST_SYNC = ("--repl-diskless-sync-delay", "0")


@pytest.fixture
def redis() -> Iterator[StoreServer]:
    with StoreServer() as server:
        write_online(server.url)
        yield server


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("right\n")
    return path


def kept_out(server: StoredServing, cause: str, words: str) -> None:
    """Wait until a server is turned away again; check that it answers and says why."""
    before = server.counts()
    until(lambda: (server.counts() - before)[f"store_connect_failures:{cause}"] > 1, "the refusal")
    answer = server.score(request())
    assert (answer.source_counts.default_value, answer.degraded) == (2, True)
    assert server.group_reads(request())["customer"][0] == "unreachable"
    assert server.online_state() == "unavailable"
    detail = server.stores()["online", ""].detail
    assert words in detail
    assert "right" not in detail  # no password in any text
    assert server.metric("scoregate_store_up", table="online", kind="redis", group="") == 0


def test_a_wrong_password_and_the_right_one(redis: StoreServer, password_file: Path) -> None:
    settings = {
        **REDIS,
        "redis.address": redis.unix,
        "redis.password_file": str(password_file),
    }
    with redis.client() as client:
        client.config_set("requirepass", "another")
    with StoredServing(settings) as server, Load(server):
        kept_out(server, "auth", "WRONGPASS")
        with redis.client(password="another") as client:
            client.config_set("requirepass", "right")
        until(server.all_online, "recovery")
        assert server.online_state() == "ok"
        # Changed while it serves: connections that stand go on, as Redis has it; new ones do not.
        with redis.client(password="right") as client:
            client.config_set("requirepass", "third")
            client.client_kill_filter(_type="normal", skipme=True)
        kept_out(server, "auth", "WRONGPASS")
        with redis.client(password="third") as client:
            client.config_set("requirepass", "right")
        until(server.all_online, "recovery")


def test_no_password_where_one_is_needed(redis: StoreServer) -> None:
    with redis.client() as client:
        client.config_set("requirepass", "secret")
    with StoredServing({**REDIS, "redis.address": redis.unix}) as server, Load(server):
        kept_out(server, "auth", "NOAUTH")
        with redis.client(password="secret") as client:
            client.config_set("requirepass", "")
        until(server.all_online, "recovery")


def test_a_user_who_may_not_read(redis: StoreServer, password_file: Path) -> None:
    """The connection stands, every read is refused: the breaker spares both sides."""
    settings = {
        **REDIS,
        "redis.address": redis.unix,
        "redis.username": "scorer",
        "redis.password_file": str(password_file),
    }
    with redis.client() as client:
        client.execute_command("ACL", "SETUSER", "scorer", "on", ">right", "~*", "+ping")
        with StoredServing(settings) as server, Load(server):
            until(lambda: server.counts()["store_breaker_openings"] > 0, "the breaker")
            assert server.counts()["store_errors:no_auth"] > 0
            assert server.score(request()).source_counts.default_value == 2
            assert server.online_state() == "unavailable"
            client.execute_command("ACL", "SETUSER", "scorer", "+get")
            until(server.all_online, "recovery")
            until(lambda: server.online_state() == "ok", "recovery")


def test_a_database_that_is_not_there(redis: StoreServer) -> None:
    settings = {**REDIS, "redis.address": redis.unix, "redis.database": 99}
    with StoredServing(settings) as server, Load(server):
        kept_out(server, "database", "out of range")


def test_a_password_file_that_is_missing_ends_the_start(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    config = write_config(
        tmp_path / "serve.toml",
        stored_repository(),
        {**REDIS, "redis.password_file": str(missing)},
    )
    done = run_serve("--config", str(config))
    assert done.returncode != 0
    assert f"redis.password_file {missing}: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls"))


def tls_settings(redis: TlsServer, files: Certificates, **more: Any) -> dict[str, Any]:
    return {
        **REDIS,
        "redis.address": f"localhost:{redis.tls_port}",
        "redis.tls": True,
        "redis.tls_ca_file": str(files.authority),
        "redis.tls_certificate_file": str(files.client),
        "redis.tls_key_file": str(files.client_key),
        **more,
    }


def test_tls_is_killed_and_comes_back(files: Certificates) -> None:
    with TlsServer(files, clients="yes") as redis:
        write_online(redis.url)
        with StoredServing(tls_settings(redis, files)) as server, Load(server) as load:
            until(server.all_online, "the start")
            redis.stop()
            until(lambda: server.online_state() == "unavailable", "the loss")
            load.more()
            redis.start()
            write_online(redis.url)
            until(server.all_online, "recovery")
            load.more()


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("redis.tls_server_name", "another.example", "mismatch"),
        ("redis.tls_ca_file", "client", "certificate"),
    ],
    ids=["another name", "another authority"],
)
def test_a_certificate_that_cannot_be_trusted(
    files: Certificates, setting: str, value: str, words: str
) -> None:
    value = str(files.client) if value == "client" else value
    with TlsServer(files) as redis:
        settings = tls_settings(redis, files, **{setting: value})
        with StoredServing(settings) as server, Load(server):
            kept_out(server, "tls", words)


# --------------------------------------------------------------------------- replica


def test_a_replica_answers_while_the_primary_is_gone() -> None:
    with StoreServer(*FAST_SYNC) as primary, StoreServer() as replica:
        write_online(primary.url)
        with replica.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
            until(lambda: in_step(client), "replication")
        settings = {
            **REDIS,
            "redis.address": primary.unix,
            "redis.replica": replica.unix,
            "redis.hedge_after_us": BUDGET_US // 5,
            # Paused is not gone here: the replica is asked by the hedge.
            "redis.stall_us": 60_000_000,
        }
        with StoredServing(settings) as server, Load(server) as load:
            until(server.all_online, "the start")
            primary.pause()
            until(lambda: server.counts()["store_hedge_wins"] > 10, "hedging")
            until(server.all_online, "the replica's answers")
            load.more()
            primary.resume()
            primary.stop()
            until(server.all_online, "the replica's answers")
            assert server.online_state() == "degraded"
            assert replica.unix in server.stores()["online", ""].detail
            assert server.counts()["store_failovers"] > 0
            assert server.metric("scoregate_store_connected", loop="0") == 0
            assert server.metric("scoregate_store_replica_connected", loop="0") == 1
            load.more()
            primary.start()
            write_online(primary.url)
            until(lambda: server.online_state() == "ok", "the primary's return")
            with open_writer(primary.url, CUSTOMER) as writer:
                writer.write(["late"], now_ms(), [[1.0, 2.0]])
            until(
                lambda: server.group_reads(request(customer="late"))["customer"][0] == "hit",
                "a read of the primary",
            )


def in_step(client: redis_py.Redis) -> bool:
    """Whether a replica has everything."""
    info: Any = client.info("replication")
    return bool(info["master_link_status"] == "up") and bool(client.dbsize())
