"""Servers that are killed, whose disk is full, or that two operators change at once.

More kills: `SCOREGATE_KILLS=500 SCOREGATE_KILLS_SEED=7 pytest` of this file.
"""

from __future__ import annotations

import itertools
import os
import random
import resource
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest

from server.pb.scoregate.v1 import control_pb2 as pb
from tests.support.clients import control
from tests.support.kills import Killed, Seen
from tests.support.serving import Serving, copy_repository
from tests.support.versions import add_version

N_KILLS = int(os.environ.get("SCOREGATE_KILLS", "40"))
SEED = int(os.environ.get("SCOREGATE_KILLS_SEED", "1"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = copy_repository(tmp_path_factory.mktemp("killed") / "repository")
    add_version(path, "3", "1")
    add_version(path, "4", "2")
    return path


def test_after_a_kill_the_plan_is_the_one_before_or_after_the_change(
    repository: Path, tmp_path: Path
) -> None:
    print(f"seed {SEED}, {N_KILLS} kills")
    rng = random.Random(SEED)
    killed = Killed(repository, tmp_path)
    seen: Counter[str] = Counter()
    try:
        now = killed.start()
        for number in range(N_KILLS):
            now, told = killed.round(rng, now)
            assert told.wrong == [], f"kill {number} of seed {SEED}, in {told.verb}: {told.wrong}"
            seen["done" if told.is_done else "after" if told.is_after else "before"] += 1
    finally:
        killed.end()
    print(dict(seen))
    if N_KILLS >= 20:  # kills before, in and after the change, or the test proves little
        assert seen["before"] > 0
        assert seen["done"] + seen["after"] > 0


# ------------------------------------------------------------------------- full disk


def test_a_change_that_cannot_be_written_down_is_refused_and_nothing_else_happens(
    repository: Path, tmp_path: Path
) -> None:
    killed = Killed(repository, tmp_path)
    try:
        killed.start()
        serving = killed.serving
        with grpc.insecure_channel(serving.control) as channel:
            stub = control(channel)
            stub.Deploy(pb.DeployRequest(version="1", traffic_basis_points=1_000))
            before = killed.look(channel)
            set_file_limit(serving, size_of_log(killed.journal))
            for _ in range(3):
                with pytest.raises(grpc.RpcError) as refused:
                    stub.SetTraffic(weights(5_000))
                assert refused.value.code() is grpc.StatusCode.INTERNAL
                text = str(refused.value.details())
                assert str(killed.journal) in text
                assert "nothing was changed" in text
                assert killed.look(channel) == before
            set_file_limit(serving, resource.RLIM_INFINITY)
            stub.SetTraffic(weights(5_000))
            changed = killed.look(channel)
            assert sorted(changed.weights.values()) == [5_000, 5_000]
        killed.end()
        assert killed.start() == changed
    finally:
        killed.end()


def weights(canary: int) -> pb.SetTrafficRequest:
    return pb.SetTrafficRequest(basis_points={"champion": 10_000 - canary, "canary": canary})


def size_of_log(journal: Path) -> int:
    return journal.with_name("journal.db-wal").stat().st_size


def set_file_limit(serving: Serving, size: int) -> None:
    """Let no file of a server grow beyond a size: writes fail then, as on a full disk."""
    hard = resource.RLIM_INFINITY
    resource.prlimit(serving.process.pid, resource.RLIMIT_FSIZE, (size, hard))


# -------------------------------------------------------------- two operators at once


def test_of_two_changes_decided_on_the_same_generation_one_is_made(
    repository: Path, tmp_path: Path
) -> None:
    killed = Killed(repository, tmp_path)
    try:
        now = killed.start()
        with grpc.insecure_channel(killed.serving.control) as channel:
            control(channel).Deploy(pb.DeployRequest(version="1", traffic_basis_points=5_000))
            now = killed.look(channel)
            for turn in range(20):
                now = two_operators(killed, channel, now, turn)
            changes = control(channel).GetHistory(pb.GetHistoryRequest(limit=30)).changes
        made = [change for change in changes if change.verb == "traffic"]
        assert len(made) == 20
        for newer, older in itertools.pairwise(changes):
            assert newer.before_generation == older.generation
    finally:
        killed.end()


def two_operators(killed: Killed, channel: grpc.Channel, before: Seen, turn: int) -> Seen:
    """Two change at once what both looked at; return what serves then."""
    together = threading.Barrier(2)
    ended: dict[int, grpc.StatusCode] = {}
    refusals: list[str] = []

    def operate(canary: int) -> None:
        request = weights(canary)
        request.options.expected_generation = before.generation
        together.wait()
        try:
            control(channel).SetTraffic(request)
            ended[canary] = grpc.StatusCode.OK
        except grpc.RpcError as error:
            ended[canary] = error.code()
            refusals.append(str(error.details()))

    wanted = (1_000 + turn, 2_000 + turn)
    threads = [threading.Thread(target=operate, args=(canary,)) for canary in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(code.name for code in ended.values()) == ["ABORTED", "OK"]
    assert f"decided on {before.generation}" in refusals[0]
    (winner,) = (canary for canary, code in ended.items() if code is grpc.StatusCode.OK)
    after = killed.look(channel)
    assert after.generation > before.generation
    assert sorted(after.weights.values()) == sorted([winner, 10_000 - winner])
    return after
