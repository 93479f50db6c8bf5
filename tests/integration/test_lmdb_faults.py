"""The embedded store missing, cut, damaged, deleted, full, or out of reader slots, under load.

As with Redis: every call is answered with OK in time, from batch records or defaults; the server
lives, says what is wrong, and reads again as soon as the files are well. The writer is this
process: LMDB wants it to be another one than the server.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from bench.generator import Generator, Limits, Message
from fastpath.record import encode_records
from server.errors import FeatureStoreError
from server.features.lmdb import LmdbFeatureWriter
from tests.support.clients import SCORE
from tests.support.serving import MODEL, ROOT
from tests.support.stores import (
    CUSTOMER,
    DEADLINE_S,
    N_ENTITIES,
    TERMINAL,
    Load,
    StoredServing,
    export_stored,
    now_ms,
    request,
    stored_repository,
    until,
    values_of,
    whole_request,
    write_online,
)

N_UNKNOWN = 100_000
DEFAULTS = (1.0, 0.25)
PAGE_BYTES = 4096


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Fill an online table; in a folder of its own, because tests damage it."""
    write_online(f"lmdb:{tmp_path}")
    return tmp_path


def serving(directory: Path, **settings: Any) -> StoredServing:
    return StoredServing(
        {"features.online": "lmdb", "features.directory": str(directory), **settings}
    )


def records(directory: Path) -> dict[bytes, bytes]:
    """Return every record of the online table."""
    with lmdb.open(str(directory / "online"), readonly=True) as env, env.begin() as txn:
        return dict(txn.cursor())


def assert_defaults(server: StoredServing, outcome: str = "failed") -> None:
    """One answer comes of the defaults, and says so."""
    answer = server.score(request(3))
    assert (answer.source_counts.default_value, answer.degraded) == (2, True)
    assert answer.raw_score == server.score(whole_request(*DEFAULTS)).raw_score
    assert {online for online, _ in server.group_reads(request(3)).values()} == {outcome}


def detail(server: StoredServing) -> str:
    return str(server.stores()["online", ""].detail)


def restore(copy: Path, directory: Path) -> None:
    """Put a whole copy of the data file in its place, as a restore has to: renamed."""
    aside = directory / "online" / "restored"
    shutil.copy(copy, aside)
    aside.replace(directory / "online" / "data.mdb")


@pytest.mark.parametrize("present", ["nothing", "an empty directory"])
def test_missing_at_the_start(tmp_path: Path, present: str) -> None:
    directory = tmp_path / "store"
    if present != "nothing":
        directory.mkdir()
    with serving(directory) as server:
        with Load(server) as load:
            assert_defaults(server)
            assert server.online_state() == "unavailable"
            assert "scoregate features load" in detail(server)
            load.more()
            write_online(f"lmdb:{directory}")
            until(server.all_online, "recovery")
            until(lambda: server.online_state() == "ok", "the report")
        counts = server.counts()
        assert counts["store_errors:closed"] > 0
        assert counts["feature_reads:online:failed"] == counts["store_errors:closed"]
        assert counts["ml_feature_fallbacks:default:customer"] > 0


@pytest.mark.parametrize("how", ["noise", "cut", "empty"])
def test_damaged_at_the_start(directory: Path, tmp_path_factory: Any, how: str) -> None:
    data = directory / "online" / "data.mdb"
    copy = tmp_path_factory.mktemp("copy") / "data.mdb"
    shutil.copy(data, copy)
    whole = copy.read_bytes()
    data.write_bytes({"noise": b"\xa5" * len(whole), "cut": whole[:PAGE_BYTES], "empty": b""}[how])
    with serving(directory) as server, Load(server):
        assert_defaults(server)
        assert server.online_state() == "unavailable"
        assert str(data) in detail(server)
        restore(copy, directory)
        until(server.all_online, "recovery")
        until(lambda: server.online_state() == "ok", "the report")
        assert detail(server) == ""


@pytest.mark.parametrize("how", ["cut", "overwritten"])
def test_damaged_under_load(directory: Path, tmp_path_factory: Any, how: str) -> None:
    """Pages vanish, or hold something else, below the readers: the process lives."""
    data = directory / "online" / "data.mdb"
    copy = tmp_path_factory.mktemp("copy") / "data.mdb"
    shutil.copy(data, copy)
    with serving(directory) as server, Load(server) as load:
        until(server.all_online, "the start")
        if how == "cut":
            os.truncate(data, 2 * PAGE_BYTES)
        else:
            with data.open("r+b") as file:
                file.seek(2 * PAGE_BYTES)
                file.write(b"\xff" * (data.stat().st_size - 2 * PAGE_BYTES))
        until(lambda: server.counts()["feature_reads:online:failed"] > 0, "the damage")
        assert_defaults(server)
        until(lambda: server.online_state() == "unavailable", "the report")
        load.more()
        restore(copy, directory)
        until(server.all_online, "recovery")
        until(lambda: server.online_state() == "ok", "the report")
        counts = server.counts()
        assert counts["store_errors:corrupt"] > 0
        assert counts["ml_feature_fallbacks:default:terminal"] > 0
    assert len(records(directory)) == 2 * N_ENTITIES


def test_deleted_under_load(directory: Path) -> None:
    """What was in it is served on, and said to be old; a new one is taken up."""
    with serving(directory) as server, Load(server) as load:
        until(server.all_online, "the start")
        shutil.rmtree(directory / "online")
        until(lambda: server.online_state() == "degraded", "the report")
        assert "deleted" in detail(server)
        load.more()
        assert server.all_online()
        write_online(f"lmdb:{directory}", N_ENTITIES + 1)
        until(
            lambda: server.group_reads(request(N_ENTITIES))["customer"][0] == "hit",
            "a read of the new table",
        )
        assert server.all_online()
        until(lambda: server.online_state() == "ok", "the report")


def test_the_map_is_full(tmp_path: Path) -> None:
    """The writer is told, and how to go on; what it wrote stands, and servers follow it."""
    url = f"lmdb:{tmp_path}?map_bytes={1 << 20}"
    write_online(url)
    before = records(tmp_path)
    many = [f"many{i}" for i in range(50_000)]
    values = np.ones((len(many), 2), "f4")
    with serving(tmp_path) as server, Load(server) as load:
        until(server.all_online, "the start")
        with (
            LmdbFeatureWriter(tmp_path, CUSTOMER, batch_size=1000) as writer,
            pytest.raises(FeatureStoreError, match="map of 1048576 bytes is full"),
        ):
            writer.write(many, now_ms(), values)
        load.more()
        assert server.all_online()
        written = records(tmp_path)
        assert before.items() <= written.items()
        # Whole batches, and none of the one that did not fit.
        assert (len(written) - len(before)) % 1000 == 0
        assert len(written) > len(before)
        with LmdbFeatureWriter(tmp_path, CUSTOMER, map_bytes=64 << 20) as writer:
            assert writer.write(many, now_ms(), values) == len(many)
        assert server.group_reads(request(customer=many[-1]))["customer"][0] == "hit"
        load.more()
        counts = server.counts()
        assert counts["feature_reads:online:failed"] == 0
    assert before.items() <= records(tmp_path).items()


@contextmanager
def reader_slots(directory: Path, n_slots: int) -> Iterator[lmdb.Environment]:
    """Make the reader table that small; every transaction of the environment takes a slot."""
    (directory / "online" / "lock.mdb").unlink()  # a larger one is not made smaller
    with lmdb.open(str(directory / "online"), max_readers=n_slots, max_spare_txns=0) as env:
        yield env


def test_no_reader_slot_at_the_start(directory: Path) -> None:
    with reader_slots(directory, 2) as env:
        others = [env.begin(), env.begin()]
        with serving(directory) as server, Load(server):
            assert_defaults(server)
            assert server.online_state() == "unavailable"
            assert "reader table is full" in detail(server)
            others.pop().abort()
            until(server.all_online, "recovery")
            # The loop keeps its slot: that the table is full again hurts others only.
            with pytest.raises(lmdb.ReadersFullError):
                env.begin()
            assert server.all_online()
            until(lambda: server.online_state() == "ok", "the report")
        for other in others:
            other.abort()


def test_no_reader_slot_for_the_loop(directory: Path) -> None:
    """The environment is open, but the loop came too late for a slot."""
    with reader_slots(directory, 2) as env:
        others = [env.begin()]
        with serving(directory) as server:
            others.append(env.begin())
            with Load(server):
                assert_defaults(server)
                until(lambda: server.online_state() == "unavailable", "the report")
                assert "readers_full" in detail(server)
                assert server.counts()["store_errors:readers_full"] > 0
                others.pop().abort()
                until(server.all_online, "recovery")
                until(lambda: server.online_state() == "ok", "the report")
        for other in others:
            other.abort()


WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from server.features.lmdb import LmdbFeatureWriter
from tests.support.stores import CUSTOMER, now_ms
with LmdbFeatureWriter(Path(sys.argv[1]), CUSTOMER, batch_size=500) as writer:
    for turn in range(1_000_000):
        writer.write([f"w{turn}-{i}" for i in range(500)], now_ms(), np.ones((500, 2), "f4"))
        print(turn, flush=True)
"""


def test_a_writer_killed_in_the_middle(directory: Path) -> None:
    """Batches are whole or not there; the lock that it held does not stop the next writer."""
    before = records(directory)
    with serving(directory) as server, Load(server) as load:
        until(server.all_online, "the start")
        command = [sys.executable, "-c", WRITER, str(directory)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            turns = [int(writer.stdout.readline()) for _ in range(5)]
            writer.send_signal(signal.SIGKILL)
            turns += [int(line) for line in writer.stdout]
        load.more()
        assert server.all_online()
        with LmdbFeatureWriter(directory, CUSTOMER) as next_writer:
            assert next_writer.write(["next"], now_ms(), [[1.0, 2.0]]) == 1
        assert server.group_reads(request(customer="next"))["customer"][0] == "hit"
        last = f"w{turns[-1]}-499"
        assert server.group_reads(request(customer=last))["customer"][0] == "hit"
        assert server.counts()["feature_reads:online:failed"] == 0
    after = records(directory)
    assert before.items() <= after.items()
    n_written = len(after) - len(before) - 1
    assert n_written % 500 == 0
    assert n_written >= 500 * len(turns)


def record(*values: float) -> bytes:
    return encode_records(
        CUSTOMER.fingerprint, np.array([now_ms()]), np.array([values], "f4")
    ).tobytes()


def test_records_that_cannot_be_used(directory: Path) -> None:
    stored = {
        "short": (record(1.0, 2.0)[:-4], "malformed"),
        "odd": (record(1.0, 2.0)[:-1], "malformed"),
        "empty": (b"", "malformed"),
        "foreign": (bytes(8) + record(1.0, 2.0)[8:], "foreign"),
        "nan": (record(np.nan, np.nan), "hit"),
    }
    with (
        lmdb.open(str(directory / "online"), map_size=1 << 30) as env,
        env.begin(write=True) as txn,
    ):
        for name, (data, _) in stored.items():
            txn.put(f"customer:{name}".encode(), data)
    with serving(directory) as server:
        for name, (_, outcome) in stored.items():
            assert server.group_reads(request(customer=name))["customer"][0] == outcome, name
            answer = server.score(request(customer=name))
            assert (answer.source_counts.online, answer.source_counts.default_value) == (1, 1)
        counts = server.counts()
        assert counts["feature_reads:online:malformed"] == 6
        assert counts["feature_reads:online:foreign"] == 2
        assert counts["ml_feature_fallbacks:default:customer"] == 2 * len(stored)
        assert server.all_online()


def test_records_of_an_older_layout_are_mapped(directory: Path, tmp_path_factory: Any) -> None:
    """While a model that declares them is served, every model reads them, by name."""
    repository = tmp_path_factory.mktemp("models")
    shutil.copytree(stored_repository(), repository, dirs_exist_ok=True)
    older = CUSTOMER._replace(
        columns=(("mean", "numeric"), ("old", "numeric"), ("n_day", "numeric"))
    )
    export_stored(repository / "older" / "1", [older, TERMINAL])
    with LmdbFeatureWriter(directory, older) as writer:
        writer.write(["c3"], now_ms(), [[50.0, 60.0, 8.0]])
    with serving(directory) as server:
        assert server.group_reads(request(3))["customer"][0] == "foreign"
    with StoredServing(
        {
            "features.online": "lmdb",
            "features.directory": str(directory),
            "default_model": MODEL,
        },
        repository,
    ) as server:
        answer = server.score(request(3))
        assert answer.model == MODEL
        assert answer.source_counts.online == 2
        whole = server.score(whole_request(8.0, values_of(3)[1]))
        assert answer.raw_score == whole.raw_score


def test_a_hundred_thousand_unknown_entities(directory: Path) -> None:
    before = records(directory)
    messages = [
        Message(SCORE, request(customer=f"nobody{i}", terminal=f"nowhere{i}").SerializeToString())
        for i in range(N_UNKNOWN // 2)  # two entities each
    ]
    with serving(directory) as server:
        load = Generator(server.fast, messages, timeout_s=DEADLINE_S, limits=Limits())
        result = load.run_closed(n_calls=len(messages))
        assert result.status_counts == {"OK": len(messages)}, result.first_error
        assert result.latency.max < DEADLINE_S * 1e9
        counts = server.counts()
        assert counts["feature_reads:online:absent"] == N_UNKNOWN
        assert counts["ml_feature_fallbacks:default:customer"] == N_UNKNOWN // 2
        assert server.all_online()
    assert records(directory) == before
