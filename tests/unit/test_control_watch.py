"""Watch: the plan, changes, traffic; bounded, never losing a change, ended by a drain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.metrics import DURATION_BOUNDS_NS
from server.control.failures import RpcFailure
from server.control.watch import MAX_BEHIND, MAX_WATCHERS, Watcher
from server.lifecycle import State
from server.pb.scoregate.v1 import control_pb2 as pb
from server.quantiles import quantile_us
from server.rollout.entry import Entry
from tests.support.control import ControlWorld, arms, refused, wait_for
from tests.support.serving import MODEL, copy_repository

N_BUCKETS = len(DURATION_BOUNDS_NS) + 1


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ControlWorld]:
    with ControlWorld(copy_repository(tmp_path / "repository")) as made:
        yield made


def watch(world: ControlWorld, interval_ms: int = 3_600_000) -> Iterator[pb.WatchResponse]:
    stream: Iterator[pb.WatchResponse] = world.control.Watch(
        pb.WatchRequest(interval_ms=interval_ms), timeout=60
    )
    return stream


def test_the_plan_then_every_change(world: ControlWorld) -> None:
    stream = watch(world)
    plan = next(stream).plan
    assert (plan.generation, arms(plan)) == (world.rollout.generation, {"champion": ("1", 10_000)})
    request = pb.DeployRequest(version="2", traffic_basis_points=1000)
    deployed = world.control.Deploy(request, timeout=30)
    change = next(stream).change
    assert (change.verb, change.after, change.before_generation) == (
        "deploy",
        deployed.after,
        plan.generation,
    )
    # Neither a dry run nor a refused change is one.
    dry = pb.PromoteRequest(options=pb.ChangeOptions(dry_run=True))
    world.control.Promote(dry, timeout=10)
    refused(lambda: world.control.Promote(pb.PromoteRequest(arm="nope"), timeout=10))
    world.control.Rollback(pb.RollbackRequest(), timeout=10)
    assert next(stream).change.verb == "rollback"


def test_traffic_of_each_arm(world: ControlWorld) -> None:
    world.control.Deploy(pb.DeployRequest(version="2", traffic_basis_points=5000), timeout=30)
    stream = watch(world, interval_ms=300)
    assert next(stream).HasField("plan")
    served = [world.score(key=f"key-{i}").arm for i in range(400)]
    world.engine.answer([b"\xff"], now_ns=0)  # an error, which belongs to no arm
    report = next(stream).traffic
    assert report.generation == world.rollout.generation
    assert 250 <= report.interval_ms <= 5000
    seconds = report.interval_ms / 1000
    *rows, errors = report.arms
    assert [(row.model, row.arm, row.version) for row in rows] == [
        (MODEL, "champion", "1"),
        (MODEL, "canary", "2"),
    ]
    for row in rows:
        # The interval is rounded to milliseconds.
        assert row.calls_per_s * seconds == pytest.approx(served.count(row.arm), rel=0.01)
        assert sum(row.decisions_per_s.values()) == pytest.approx(row.calls_per_s)
        assert 0 < row.p50_us <= row.p99_us
    assert (errors.model, errors.arm) == ("", "")
    assert errors.errors_per_s * seconds == pytest.approx(1, rel=0.01)
    # Only what happened since: nothing, and then there is no row of errors.
    report = next(stream).traffic
    assert [row.calls_per_s for row in report.arms] == [0, 0]
    assert [row.p99_us for row in report.arms] == [0, 0]


def test_too_many_are_refused_and_others_are_still_answered(world: ControlWorld) -> None:
    streams = [watch(world) for _ in range(MAX_WATCHERS)]
    for stream in streams:
        assert next(stream).HasField("plan")
    failed = refused(lambda: next(watch(world)))
    assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"{MAX_WATCHERS} watch already" in failed.text
    assert world.control.GetStatus(pb.GetStatusRequest(), timeout=10).plan_generation
    streams[0].cancel()  # type: ignore[attr-defined]

    def again() -> pb.WatchResponse | None:
        try:
            return next(watch(world))
        except grpc.RpcError:
            return None

    assert wait_for(again).HasField("plan")


def test_a_drain_ends_streams_and_refuses_new_ones(world: ControlWorld) -> None:
    stream = watch(world)
    next(stream)
    world.lifecycle.move(State.DRAINING, "draining")
    for ended in (stream, watch(world)):
        failed = refused(lambda ended=ended: next(ended))  # type: ignore[misc]
        assert failed.code is grpc.StatusCode.UNAVAILABLE
        assert "draining" in failed.text


@pytest.mark.parametrize("interval_ms", [1, 49, 3_600_001])
def test_intervals_have_a_range(world: ControlWorld, interval_ms: int) -> None:
    failed = refused(lambda: next(watch(world, interval_ms)))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "interval_ms: 50 to 3600000" in failed.text


def test_before_anything_serves_there_is_an_empty_plan(
    world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.rollout, "_served", None)
    stream = watch(world, interval_ms=50)
    assert next(stream).plan == pb.PlanDescription()
    assert not next(stream).traffic.arms


class TestWatcher:
    @pytest.fixture
    def entry(self, world: ControlWorld) -> Entry:
        found = world.rollout.journal.last()
        assert found is not None
        return found

    def test_one_that_falls_behind_gets_all_up_to_its_end(self, entry: Entry) -> None:
        watcher = Watcher()
        for _ in range(MAX_BEHIND + 10):
            watcher.put(entry)
        for _ in range(MAX_BEHIND):
            assert watcher.next(0) is entry
        with pytest.raises(RpcFailure, match="changes behind: watch again"):
            watcher.next(0)

    def test_what_is_queued_comes_before_a_drain(self, entry: Entry) -> None:
        watcher = Watcher()
        watcher.put(entry)
        watcher.end(RpcFailure(grpc.StatusCode.UNAVAILABLE, "draining"))
        assert watcher.next(0) is entry
        with pytest.raises(RpcFailure, match="draining"):
            watcher.next(0)

    def test_nobody_listens(self, entry: Entry) -> None:
        watcher = Watcher()
        watcher.put(entry)
        watcher.cancel()
        assert watcher.next(10) is None
        assert watcher.is_cancelled


class TestQuantiles:
    def test_nothing_counted(self) -> None:
        assert quantile_us([0] * N_BUCKETS, 0.99) == 0.0

    def test_interpolated_in_a_bucket(self) -> None:
        buckets = [0] * N_BUCKETS
        buckets[3] = 10
        low, high = DURATION_BOUNDS_NS[2] / 1000, DURATION_BOUNDS_NS[3] / 1000
        assert quantile_us(buckets, 0.5) == pytest.approx((low + high) / 2)
        assert quantile_us(buckets, 1.0) == pytest.approx(high)

    def test_beyond_the_last_bound_counts_as_it(self) -> None:
        buckets = [0] * (N_BUCKETS - 1) + [5]
        assert quantile_us(buckets, 0.5) == DURATION_BOUNDS_NS[-1] / 1000

    @given(
        counts=st.lists(st.integers(0, 1000), min_size=N_BUCKETS, max_size=N_BUCKETS),
        shares=st.lists(st.floats(0.01, 1), min_size=2, max_size=6),
    )
    def test_laws(self, counts: list[int], shares: list[float]) -> None:
        found = [quantile_us(counts, share) for share in sorted(shares)]
        assert all(low <= high for low, high in pairwise(found))
        if not any(counts):
            return
        edges = np.array([0, *DURATION_BOUNDS_NS, DURATION_BOUNDS_NS[-1]]) / 1000
        total = sum(counts)
        for share, value in zip(sorted(shares), found, strict=True):
            # No more than the share lies in buckets wholly below, no less in those up to it.
            below = sum(c for c, top in zip(counts, edges[1:], strict=True) if top < value)
            up_to = sum(c for c, bottom in zip(counts, edges, strict=False) if bottom < value)
            assert below <= share * total * (1 + 1e-9)
            assert up_to >= share * total * (1 - 1e-9) or value == edges[-1]
