"""GetDrift: what monitors found, as messages; what is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest

from server.control.drift import read_drift
from server.control.failures import status_of
from server.drift import DriftSettings, Monitor
from server.monitoring.watch import Watched
from server.pb.scoregate.v1 import control_pb2 as pb
from server.rollout.loaded import Key
from tests.support.drift import feed, make_monitor, make_rows

SETTINGS = DriftSettings(n_rows=1000, min_span_s=60)


def watch(*watched: Watched) -> Any:
    return SimpleNamespace(watched=list(watched))


def one(monitor: Monitor | None, version: str = "1", trouble: str = "") -> Watched:
    return Watched(Key("fraud", version, "ab"), 0, monitor, trouble)


def drifted() -> Monitor:
    monitor, clock, _ = make_monitor(SETTINGS)
    rows = make_rows(np.random.default_rng(1), 1000)
    rows[:, 0] *= 100
    feed(monitor, clock, rows, minutes=5)
    monitor.evaluate(force=True)
    return monitor


def read(watched: Watched, **request: Any) -> pb.DriftReport:
    [report] = read_drift(watch(watched), pb.GetDriftRequest(**request)).reports
    return report


def test_a_report_tells_the_whole_evaluation() -> None:
    monitor = drifted()
    found = monitor.evaluation
    assert found is not None
    assert found.raw_score is not None
    report = read(one(monitor))
    assert (report.model, report.version, report.state) == ("fraud", "1", found.state)
    assert (report.score, report.mean) == (found.score, found.mean)
    assert report.reasons == list(found.reasons)
    assert (report.warn, report.retrain, report.alpha) == (0.1, 0.3, 0.001)
    assert (report.fast.n_rows, report.fast.is_ready, report.slow.is_ready) == (1000, True, False)
    assert report.n_reference_rows == 10_000
    assert report.reference_name == "the export's validation rows"
    told = [*report.features, report.raw_score]
    # Field by field: what the evaluation says stands under the same name.
    for ours, theirs in zip([*found.features, found.raw_score], told, strict=True):
        for name, value in msgspec.structs.asdict(ours).items():
            if name in ("in_aggregate", "quantiles", "categories", "missing", "fallback", "unseen"):
                continue
            other = getattr(theirs, name)
            both_nan = isinstance(value, float) and math.isnan(value) and math.isnan(other)
            assert other == value or both_nan, (ours.name, name)
        for name in ("missing", "fallback", "unseen"):
            rate = msgspec.structs.asdict(getattr(ours, name))
            assert rate == {key: getattr(getattr(theirs, name), key) for key in rate}
        quantiles = {f"{q.percent:g}": (q.reference, q.window) for q in theirs.quantiles}
        assert quantiles == dict(ours.quantiles)
        shares = [(c.name, c.reference, c.window) for c in theirs.categories]
        assert shares == [(c.name, c.reference, c.window) for c in ours.categories]
        assert not theirs.reference_counts
    assert len(report.slow_features) == len(report.features) == 4


def test_histograms_come_where_they_are_asked_for() -> None:
    report = read(one(drifted()), histograms=True)
    amount = report.features[0]
    assert sum(amount.window_counts) == 1000
    assert len(amount.window_counts) == len(amount.reference_counts) == len(amount.bin_edges) + 1
    assert amount.window_counts[-1] > 500 > amount.reference_counts[-1]
    assert report.features[2].bin_names == ["web", "pos", "phone", "unseen"]
    assert sum(report.raw_score.slow_counts) == 1000


def test_what_is_not_known_is_nan_not_zero() -> None:
    monitor, clock, _ = make_monitor(SETTINGS)
    report = read(one(monitor), histograms=True)
    assert (report.state, report.evaluated_time_ms) == ("warming", 0)
    assert math.isnan(report.score)
    feed(monitor, clock, make_rows(np.random.default_rng(0), 412), minutes=3)
    monitor.evaluate(force=True)
    report = read(one(monitor))
    assert report.reasons == ["412 of 600 rows, 60 of 60 seconds"]
    assert math.isnan(report.score)
    report = read(one(None, trouble="the reference is of another schema"))
    assert (report.state, report.trouble) == ("unwatched", "the reference is of another schema")
    assert math.isnan(report.score)


def test_versions_are_chosen() -> None:
    both = watch(one(None, "1"), one(None, "2"))
    for request, versions in (
        (pb.GetDriftRequest(), ["1", "2"]),
        (pb.GetDriftRequest(model="fraud"), ["1", "2"]),
        (pb.GetDriftRequest(model="fraud", version="2"), ["2"]),
        (pb.GetDriftRequest(version="1"), ["1"]),
    ):
        answer = read_drift(both, request)
        assert [report.version for report in answer.reports] == versions
    assert not read_drift(watch(), pb.GetDriftRequest()).reports


@pytest.mark.parametrize(
    ("drift", "request_", "code", "words"),
    [
        (None, {}, grpc.StatusCode.FAILED_PRECONDITION, "drift.enabled"),
        (watch(one(None)), {"model": "other"}, grpc.StatusCode.NOT_FOUND, "watched: fraud 1"),
        (watch(one(None)), {"version": "9"}, grpc.StatusCode.NOT_FOUND, "takes no part"),
        (watch(), {"model": "../x"}, grpc.StatusCode.INVALID_ARGUMENT, "model"),
    ],
)
def test_what_is_refused_says_why(
    drift: Any, request_: dict[str, Any], code: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the port's table says what it means
        read_drift(drift, pb.GetDriftRequest(**request_))
    status, text = status_of(caught.value)
    assert status is code
    assert words in text
