"""Batch generations switched, damaged and rolled back while a server reads them under load.

A new generation is a new plan; no call fails or waits for it; the old one's file is let go.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.features.batch import BatchTableWriter
from server.features.directory import batch_path
from server.features.generations import rollback
from server.pb.scoregate.v1 import control_pb2
from tests.support.faulty_redis import FaultyRedis
from tests.support.redis_store import StoreServer
from tests.support.stores import (
    BUDGET_US,
    CUSTOMER,
    N_ENTITIES,
    REDIS,
    Load,
    StoredServing,
    now_ms,
    request,
    until,
    whole_request,
    write_online,
)

DEFAULT_RISK = 0.25
DEFAULT_N_DAY = 1.0


def write_batch(directory: Path, n_day: float, keep: int = 3) -> str:
    """Write and switch to a generation in which every customer has that n_day."""
    with BatchTableWriter(directory, CUSTOMER, keep=keep) as table:
        values = np.full((N_ENTITIES, 2), n_day, dtype=np.float32)
        table.write([f"c{i}" for i in range(N_ENTITIES)], now_ms(), values)
        table.commit()
        return table.generation


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_batch(tmp_path, 2.0)
    return tmp_path


@pytest.fixture
def server(directory: Path) -> Iterator[StoredServing]:
    with StoredServing({"features.directory": str(directory)}) as server:
        yield server


def mapped(server: StoredServing) -> set[str]:
    """Return the generations whose file the server has mapped."""
    lines = Path(f"/proc/{server.process.pid}/maps").read_text("utf-8").splitlines()
    files = [line.split(maxsplit=5)[5] for line in lines if "/batch/" in line]
    return {Path(file.removesuffix(" (deleted)")).parent.name.strip(".") for file in files}


def batch(server: StoredServing) -> tuple[str, str, int]:
    """Return state, generation and records of the customers' table, as GetStatus has them."""
    store = server.stores()["batch", "customer"]
    state = str(control_pb2.StoreState.Name(store.state)).removeprefix("STORE_STATE_").lower()
    return state, store.generation, store.n_records


def assert_serves(server: StoredServing, n_day: float) -> None:
    answer = server.score(request(3))
    whole = server.score(whole_request(n_day, DEFAULT_RISK))
    assert answer.raw_score == whole.raw_score
    assert answer.source_counts.batch == 1


def test_generations_are_switched_under_load(server: StoredServing, directory: Path) -> None:
    plans = [server.score(request()).plan_generation]
    before = server.counts()
    with Load(server) as load:
        for turn in range(4):
            generation = write_batch(directory, turn, keep=1)
            until(lambda wanted=generation: batch(server)[1] == wanted, "the switch")  # type: ignore[misc]
            until(lambda: server.score(request()).plan_generation > plans[-1], "the new plan")
            plans.append(server.score(request()).plan_generation)
            assert_serves(server, turn)
            # Old plans are let go when no row uses them: so are their files.
            until(lambda wanted=generation: mapped(server) == {wanted}, "the end of the old one")  # type: ignore[misc]
            load.more()
    assert plans == list(range(plans[0], plans[0] + 5))
    assert batch(server) == ("ok", generation, N_ENTITIES)
    told = server.counts() - before
    assert {name for name in told if name.startswith("feature_reads:batch")} == {
        "feature_reads:batch:hit"
    }
    assert told["ml_feature_fallbacks:default:customer"] == 0
    assert server.metric("scoregate_batch_table_records", group="customer") == N_ENTITIES
    assert server.metric("scoregate_batch_table_info", group="customer", generation=generation) == 1


def test_rows_that_wait_hold_their_generation(directory: Path) -> None:
    """Rows that wait for Redis meanwhile keep the plan that they began with, and let go of it."""
    with StoreServer() as redis, FaultyRedis(redis.socket) as proxy:
        write_online(redis.url)
        proxy.delay_s = BUDGET_US / 1e6 / 3
        settings = {
            **REDIS,
            "redis.address": proxy.address,
            "features.directory": str(directory),
        }
        with StoredServing(settings) as server:
            with Load(server) as load:
                for turn in range(5):
                    generation = write_batch(directory, turn, keep=1)
                    until(lambda wanted=generation: mapped(server) == {wanted}, "the switch")  # type: ignore[misc]
                    load.more()
            assert server.counts()["feature_waits"] > 200
            until(server.all_online, "recovery")


def test_a_rollback_under_load(server: StoredServing, directory: Path) -> None:
    first = batch(server)[1]
    second = write_batch(directory, 5.0)
    with Load(server):
        until(lambda: batch(server)[1] == second, "the switch")
        assert_serves(server, 5.0)
        assert rollback(directory, "customer") == (second, first)
        until(lambda: batch(server)[1] == first, "the rollback")
        until(lambda: mapped(server) == {first}, "the end of the newer one")
        assert_serves(server, 2.0)


@pytest.mark.parametrize("how", ["cut", "noise", "missing", "no name"])
def test_a_new_generation_that_cannot_be_read(
    server: StoredServing, directory: Path, how: str
) -> None:
    """The one before it stays; the report says why; mending it is enough."""
    first = batch(server)[1]
    with Load(server) as load:
        base = batch_path(directory, "customer")
        bad = base / "20990101T000000-000"
        if how != "missing":
            shutil.copytree(base / first, bad)
        if how == "cut":
            os.truncate(bad / "data.mdb", 4096)
        elif how == "noise":
            (bad / "data.mdb").write_bytes(b"\xa5" * 32768)
        name = "../../etc" if how == "no name" else bad.name
        (base / "current").write_text(f"{name}\n")
        until(lambda: batch(server)[0] == "degraded", "the report")
        assert batch(server) == ("degraded", first, N_ENTITIES)
        assert server.metric("scoregate_store_up", table="batch", kind="lmdb", group="customer")
        load.more()
        assert_serves(server, 2.0)
        assert mapped(server) == {first}
        shutil.rmtree(bad, ignore_errors=True)
        (base / "current").write_text(f"{first}\n")
        until(lambda: batch(server)[0] == "ok", "recovery")
        assert_serves(server, 2.0)
    assert server.counts()["ml_feature_fallbacks:default:customer"] == 0


@pytest.mark.parametrize("how", ["cut", "deleted"])
def test_the_generation_that_serves_is_damaged(
    server: StoredServing, directory: Path, how: str
) -> None:
    """Cut: reads fail and defaults answer. Deleted: the map lives on. A new one ends both."""
    data = batch_path(directory, "customer") / batch(server)[1] / "data.mdb"
    with Load(server) as load:
        if how == "cut":
            os.truncate(data, 4096)
            until(lambda: server.counts()["feature_reads:batch:failed"] > 0, "the damage")
            answer = server.score(request(3))
            assert answer.source_counts.default_value == 2
            whole = server.score(whole_request(DEFAULT_N_DAY, DEFAULT_RISK))
            assert answer.raw_score == whole.raw_score
        else:
            shutil.rmtree(data.parent)
            assert_serves(server, 2.0)
        until(lambda: batch(server)[0] == "degraded", "the report")
        assert how in server.stores()["batch", "customer"].detail
        load.more()
        generation = write_batch(directory, 7.0)
        until(lambda: batch(server)[1] == generation, "the switch")
        until(lambda: batch(server)[0] == "ok", "the report")
        assert_serves(server, 7.0)
        load.more()
    if how == "deleted":
        assert server.counts()["feature_reads:batch:failed"] == 0


def test_a_table_that_comes_later(tmp_path: Path) -> None:
    base = batch_path(tmp_path, "customer")
    base.mkdir(parents=True)
    (base / "current").write_text("20990101T000000-000\n")
    with StoredServing({"features.directory": str(tmp_path)}) as server, Load(server):
        assert server.group_reads(request(3))["customer"] == ("not_read", "not_read")
        assert batch(server) == ("unavailable", "", 0)
        write_batch(tmp_path, 4.0)
        until(lambda: ("batch", "customer") in server.stores(), "the table")
        until(lambda: server.score(request(3)).source_counts.batch == 1, "its plan")
        assert_serves(server, 4.0)
