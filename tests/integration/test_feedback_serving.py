"""Outcomes at a real server: recorded, reported, joined, counted, kept; and by the command line."""

from __future__ import annotations

import csv
import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
import pytest

from server.control.feedback import MAX_STREAMS
from server.pb.scoregate.v1 import feedback_pb2 as pb
from server.pb.scoregate.v1 import feedback_pb2_grpc, scoring_pb2, scoring_pb2_grpc
from tests.support.serving import FEATURES, ROOT, Serving

QUICK = {
    "feedback.drain_s": 0.05,
    "feedback.interval_s": 0.2,
    "feedback.records_per_s": 1e6,  # all, however quickly a machine asks
}
PATIENCE_S = 20.0


def score(server: Serving, ids: Iterable[str]) -> None:
    """Score one request per id."""
    with grpc.insecure_channel(server.fast) as channel:
        stub = scoring_pb2_grpc.ScoringStub(channel)  # type: ignore[no-untyped-call]
        for i, request_id in enumerate(ids):
            request = scoring_pb2.ScoreRequest(request_id=request_id, routing_key=f"card-{i}")
            for name in FEATURES:
                request.named.values[name].number = float(i % 2)
            stub.Score(request)


def report(
    server: Serving, requests: Iterable[pb.ReportOutcomesRequest]
) -> list[pb.ReportOutcomesResponse]:
    with grpc.insecure_channel(server.control) as channel:
        stub = feedback_pb2_grpc.FeedbackStub(channel)  # type: ignore[no-untyped-call]
        return list(stub.ReportOutcomes(iter(requests), timeout=30))


def labels(ids: Iterable[str], label: int = pb.LABEL_POSITIVE) -> pb.ReportOutcomesRequest:
    return pb.ReportOutcomesRequest(
        outcomes=[pb.Outcome(request_id=one, label=label) for one in ids]  # type: ignore[arg-type]
    )


def until(server: Serving, name: str, wanted: float, **labels: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while (found := server.metric(name, **labels)) != wanted:
        assert time.monotonic() < end, f"{name} is {found}, not {wanted}"
        time.sleep(0.02)


def outcomes_of(server: Serving) -> dict[str, float]:
    results = ("matched", "unmatched", "duplicate", "revised", "expired", "rejected")
    return {
        name: value
        for name in results
        if (value := server.metric("ml_feedback_outcomes_total", result=name))
    }


def scoregate(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *args],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with Serving(settings=QUICK) as server:
        yield server


def test_what_is_scored_is_joined_with_what_comes_of_it(serving: Serving) -> None:
    ids = [f"joined-{i}" for i in range(200)]
    before = serving.metric("ml_feedback_records_total")
    score(serving, ids)
    until(serving, "ml_feedback_records_total", before + 200)
    [first, again, other] = report(
        serving, [labels(ids), labels(ids), labels(ids[:50], pb.LABEL_NEGATIVE)]
    )
    assert (first.accepted, first.unmatched, first.duplicates) == (200, 0, 0)
    assert (again.accepted, again.duplicates, again.revised) == (200, 200, 0)
    assert (other.accepted, other.duplicates, other.revised) == (50, 0, 50)
    found = {
        outcome: serving.metric(
            "ml_feedback_labels_total", model="fraud", model_version="2", outcome=outcome
        )
        for outcome in ("positive", "negative")
    }
    assert found == {"positive": 200, "negative": 50}
    assert serving.metric("ml_feedback_records_bytes") > 0
    ratio = serving.metric("ml_feedback_sampling_ratio", model="fraud", model_version="2")
    assert ratio == 1.0
    age_s = time.time() - serving.metric("ml_feedback_oldest_record_timestamp_seconds")
    assert 0 <= age_s < 600


def test_an_outcome_that_is_early_waits_for_its_decision(serving: Serving) -> None:
    [answer] = report(serving, [labels(["early"])])
    assert (answer.accepted, answer.unmatched) == (1, 1)
    matched = serving.metric("ml_feedback_outcomes_total", result="matched")
    score(serving, ["early"])
    until(serving, "ml_feedback_outcomes_total", matched + 1, result="matched")
    [answer] = report(serving, [labels(["early"])])
    assert (answer.unmatched, answer.duplicates) == (0, 1)


def test_hostile_outcomes_are_refused_one_by_one_and_shown_harmlessly(serving: Serving) -> None:
    score(serving, ["<script>alert(1)</script>"])
    good = pb.Outcome(request_id="<script>alert(1)</script>", label=pb.LABEL_POSITIVE)
    tomorrow = round((time.time() + 90_000) * 1000)
    bad = [
        pb.Outcome(request_id="x" * (1 << 20), label=pb.LABEL_POSITIVE),
        pb.Outcome(label=pb.LABEL_POSITIVE),
        pb.Outcome(request_id="a"),
        pb.Outcome(request_id="a", label=99),  # type: ignore[arg-type]
        pb.Outcome(request_id="a", label=pb.LABEL_POSITIVE, amount=-1.0),
        pb.Outcome(request_id="a", label=pb.LABEL_POSITIVE, amount=float("nan")),
        pb.Outcome(request_id="a", label=pb.LABEL_POSITIVE, amount=float("inf")),
        pb.Outcome(request_id="a", label=pb.LABEL_POSITIVE, observed_time_ms=-1),
        pb.Outcome(request_id="a", label=pb.LABEL_POSITIVE, observed_time_ms=tomorrow),
        pb.Outcome(request_id="a", label=pb.LABEL_POSITIVE, source="s" * 65),
        pb.Outcome(request_id="a", label=pb.LABEL_POSITIVE, source="\x1b[2J"),
        pb.Outcome(request_id="a", label=pb.LABEL_POSITIVE, model="m" * 101),
    ]
    [all_of_them] = report(serving, [pb.ReportOutcomesRequest(outcomes=[good, *bad])])
    assert (all_of_them.accepted, all_of_them.rejected) == (1, len(bad))
    assert all_of_them.first_rejected.startswith("outcomes[1] 'xxxx")
    assert "1,048,576 bytes" in all_of_them.first_rejected
    assert len(all_of_them.first_rejected) < 300
    for outcome in bad:
        [answer] = report(serving, [pb.ReportOutcomesRequest(outcomes=[outcome])])
        assert (answer.accepted, answer.rejected) == (0, 1)
        assert answer.first_rejected.isprintable()
        assert answer.first_rejected.startswith("outcomes[0] ")
    control = pb.Outcome(request_id="\x00\x1b[2J\n<b>")
    [answer] = report(serving, [pb.ReportOutcomesRequest(outcomes=[control])])
    assert answer.first_rejected.startswith(r"outcomes[0] '\x00\x1b[2J\n<b>': label 0")
    # Any bytes make an id: it is hashed, and never shown.
    odd = pb.Outcome(request_id="\x00\x1b[2J\n", label=pb.LABEL_NEGATIVE)
    [answer] = report(serving, [pb.ReportOutcomesRequest(outcomes=[odd])])
    assert (answer.accepted, answer.unmatched) == (1, 1)


def test_a_request_that_is_too_large_ends_the_stream_and_no_more(serving: Serving) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        report(serving, [labels(["a"]), labels([f"{i}" for i in range(10_001)])])
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "up to 10,000 in one request, not 10,001" in str(failed.value.details())
    assert report(serving, [labels(["a"])])[0].accepted == 1
    assert report(serving, [pb.ReportOutcomesRequest()])[0] == pb.ReportOutcomesResponse()
    assert report(serving, []) == []


def test_streams_are_few(serving: Serving) -> None:
    with grpc.insecure_channel(serving.control) as channel:
        stub = feedback_pb2_grpc.FeedbackStub(channel)  # type: ignore[no-untyped-call]
        stop = time.monotonic() + PATIENCE_S

        def slow() -> Iterator[pb.ReportOutcomesRequest]:
            yield labels(["slow"])
            while time.monotonic() < stop:
                time.sleep(0.01)

        held = [stub.ReportOutcomes(slow()) for _ in range(8)]
        assert all(next(call).accepted == 1 for call in held)
        with pytest.raises(grpc.RpcError) as failed:
            list(stub.ReportOutcomes(iter([labels(["one"])])))
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        stop = 0.0
        assert [list(call) for call in held] == [[]] * 8
        assert next(stub.ReportOutcomes(iter([labels(["one"])]))).accepted == 1


def test_a_flood_is_held_back_by_its_stream(serving: Serving) -> None:
    one = labels([f"flood-{i:0100d}" for i in range(10_000)])
    n_sent = n_answered = most = 0

    def flood() -> Iterator[pb.ReportOutcomesRequest]:
        nonlocal n_sent, most
        for _ in range(60):
            n_sent += 1
            most = max(most, n_sent - n_answered)
            yield one

    with grpc.insecure_channel(serving.control) as channel:
        stub = feedback_pb2_grpc.FeedbackStub(channel)  # type: ignore[no-untyped-call]
        for answer in stub.ReportOutcomes(flood()):
            n_answered += 1
            assert answer.accepted == 10_000
    assert n_answered == 60
    # A megabyte each: what fits into windows and sockets, and not the flood.
    assert most < 30, most


def test_callers_that_go_away_are_no_errors_and_leave_room_for_others(serving: Serving) -> None:
    score(serving, ["left"])
    end = time.monotonic() + PATIENCE_S
    for _ in range(3 * MAX_STREAMS):
        # The server may not have heard yet that the ones before are gone.
        while _report_and_leave(serving) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert report(serving, [labels(["left"])])[0].duplicates == 1
    assert "raised" not in serving.stderr()
    assert "Traceback" not in serving.stderr()


def _report_and_leave(server: Serving) -> grpc.StatusCode | None:
    """Report, read one answer and be gone; return what there was instead of an answer."""
    left = threading.Event()

    def requests() -> Iterator[pb.ReportOutcomesRequest]:
        yield labels(["left"])
        left.wait()

    with grpc.insecure_channel(server.control) as channel:
        stub = feedback_pb2_grpc.FeedbackStub(channel)  # type: ignore[no-untyped-call]
        call = stub.ReportOutcomes(requests())
        try:
            assert next(call).accepted == 1
        except grpc.RpcError:
            return call.code()  # type: ignore[no-any-return]
        finally:
            call.cancel()
            left.set()
    return None


def test_quality_is_told_once_it_was_measured(serving: Serving) -> None:
    score(serving, ["told"])
    with grpc.insecure_channel(serving.control) as channel:
        stub = feedback_pb2_grpc.FeedbackStub(channel)  # type: ignore[no-untyped-call]
        end = time.monotonic() + PATIENCE_S
        while not (answer := stub.GetQuality(pb.GetQualityRequest(curves=True))).reports:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert {one.model for one in answer.reports} == {"fraud"}
        assert not any(one.bins for one in stub.GetQuality(pb.GetQualityRequest()).reports)
        with pytest.raises(grpc.RpcError) as failed:
            stub.GetQuality(pb.GetQualityRequest(version="9"))
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND
        assert "of fraud 2" in str(failed.value.details())


def test_a_restart_keeps_decisions_and_a_kill_what_was_acknowledged(tmp_path: Path) -> None:
    settings = {**QUICK, "rollout.journal": str(tmp_path / "journal.db")}
    with Serving(settings=settings) as server:
        score(server, ["a", "b", "c"])  # the end drains what the thread has not
    killed = Serving(settings=settings)
    assert report(killed, [labels(["a"])])[0].unmatched == 0
    killed.process.kill()
    assert killed.end() == -signal.SIGKILL
    shutil.rmtree(killed.folder, ignore_errors=True)
    with Serving(settings=settings) as again:
        [answer] = report(again, [labels(["a", "b", "never"])])
        assert (answer.accepted, answer.duplicates, answer.unmatched) == (3, 1, 1)


def test_a_full_disk_costs_decisions_and_nothing_else(tmp_path: Path) -> None:
    with Serving(settings=QUICK) as server:
        score(server, [f"before-{i}" for i in range(100)])
        until(server, "ml_feedback_records_total", 100)
        usual = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1000, usual[1]))
        score(server, [f"full-{i}" for i in range(100)])
        until(server, "ml_feedback_records_dropped_total", 100, reason="disk")
        with pytest.raises(grpc.RpcError) as failed:
            report(server, [labels(["before-1"])])
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "free disk space" in str(failed.value.details())
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, usual)
        score(server, [f"after-{i}" for i in range(100)])
        until(server, "ml_feedback_records_total", 200)
        [answer] = report(server, [labels([*(f"before-{i}" for i in range(100)), "full-1"])])
        assert (answer.accepted, answer.unmatched, answer.duplicates) == (101, 1, 0)
        assert server.stderr().count("decisions are not recorded until this ends") == 1
        assert server.stderr().count("decisions are recorded again; 100 are missing") == 1


@pytest.mark.parametrize(
    "settings", [{"feedback.enabled": False}, {"rollout.journal": "none"}], ids=["off", "no place"]
)
def test_without_feedback_nothing_is_recorded(settings: dict[str, object]) -> None:
    with Serving(settings=settings) as server:
        score(server, ["a"])
        with pytest.raises(grpc.RpcError) as failed:
            report(server, [labels(["a"])])
        assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "feedback.enabled" in str(failed.value.details())
        assert "ml_feedback" not in server.http("/metrics")[1]


# -------------------------------------------------------------------- the command


def test_outcomes_of_a_file_are_reported_and_bad_rows_named(
    serving: Serving, tmp_path: Path
) -> None:
    ids = [f"file-{i}" for i in range(12_000)]
    score(serving, ids[:100])
    file = tmp_path / "outcomes.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["txn", "is_fraud", "amount", "when"])
        rows.writerows([one, i % 2, 9.5, "2020-01-01T00:00:00Z"] for i, one in enumerate(ids))
        rows.writerow(["bad-label", "maybe", "", ""])
        rows.writerow(["future", "1", "", "2999-01-01"])
    until_recorded(serving, ids[:100])
    options = ("--id-column", "txn", "--label-column", "is_fraud", "--time-column", "when")
    load = ("outcomes", "load", str(file), *options, "--address", serving.control)
    done = scoregate(*load)
    assert done.returncode == 1, done.stderr
    assert f"{file}: row 12001: label 'maybe'" in done.stderr
    assert f"{file}: row 12002: 'future': observed_time_ms 32472144000000" in done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [
        ["rows", "12,002"], ["accepted", "12,000"], ["unmatched", "11,900"],
        ["expired", "11,900"], ["duplicates", "0"], ["revised", "100"], ["rejected", "2"],
    ]  # fmt: skip
    ends = {line.index(words[1]) + len(words[1])
            for line, words in zip(done.stdout.splitlines(), lines, strict=True)}  # fmt: skip
    assert len(ends) == 1, done.stdout
    again = scoregate(*load, "--lenient", "--json")
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert (document["rows"], document["rejected"]) == (12_002, 2)


def until_recorded(serving: Serving, ids: list[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while report(serving, [labels(ids)])[0].duplicates < len(ids):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_load_says_what_stands_in_its_way(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "outcomes.jsonl"
    file.write_text('{"request_id": "a", "label": 1}\n')
    done = scoregate("outcomes", "load", str(file), "--address", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no answer from 127.0.0.1:1" in done.stderr
    done = scoregate("outcomes", "load", str(tmp_path / "no.csv"), "--address", serving.control)
    assert done.returncode == 2
    assert "no.csv: cannot be read: No such file" in done.stderr
    cut = tmp_path / "cut.csv"
    cut.write_bytes(b"request_id,label\n" + b"x,1\n" * 6000 + b"\xff,1\n")
    done = scoregate("outcomes", "load", str(cut), "--address", serving.control)
    assert done.returncode == 2, done.stdout
    assert "cut.csv: cannot be read behind row" in done.stderr
