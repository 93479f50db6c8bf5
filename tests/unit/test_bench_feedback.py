"""The feedback benchmark's own parts: requests, the store's processes, pages, figures."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bench import feedback_store
from bench.errors import BenchError, LoadError
from bench.feedback import Found, summary
from bench.feedback_console import Console, page_size
from bench.feedback_loads import (
    KINDS,
    AtCapacity,
    Counted,
    Recording,
    Sustained,
    drained,
    loop_ticks,
    total,
)
from bench.feedback_plan import FULL, QUICK
from bench.feedback_requests import FLAGGED_SHARE, Reported, Requests
from bench.model import prepare
from bench.targets import Target as Server
from fastpath.capture import id_hash
from server.pb.scoregate.v1 import scoring_pb2 as pb
from server.sidecar import Answer, Route, Sidecar


def test_every_request_is_another_decision_and_few_are_flagged() -> None:
    maker = Requests(prepare(), 4_100)
    made = maker.batch()
    parsed = [pb.ScoreRequest.FromString(message.body) for message in made.messages]
    assert [request.request_id for request in parsed] == made.ids
    assert len({*made.ids, *maker.batch().ids}) == 8_200
    assert all(request.event_time_ms == 0 for request in parsed)
    assert all(len(request.dense.values) == 30 for request in parsed)
    share = np.mean(made.flagged)
    assert share == pytest.approx(FLAGGED_SHARE, abs=0.002)
    raw = np.array([message.expected_raw for message in made.messages])
    assert ((raw >= 0) == made.flagged).all(), "review is from a score of 0.5 on"
    assert len(made.chosen(flagged=True)) == sum(made.flagged)
    assert set(made.chosen(flagged=True)).isdisjoint(made.chosen(flagged=False))


def test_decisions_of_the_store_are_what_a_loop_records() -> None:
    rows = feedback_store.decisions(10, 5)
    assert [tuple(row) for row in rows["id_hash"].tolist()] == [
        id_hash(feedback_store.request_id(i)) for i in range(10, 15)
    ]
    outcomes = feedback_store.outcomes(np.arange(2_000), positive_share=0.01)
    assert sum(outcome.label for outcome in outcomes) == 20
    assert outcomes[7].request_id == feedback_store.request_id(7)


def test_all_outcomes_meet_their_decisions(tmp_path: Path) -> None:
    found = feedback_store.measure("join", tmp_path / "store", 12_000)
    assert found["kept_share"] == found["joined_matched_share"] == 1.0
    assert 0 < found["bytes_per_million"] < 200e6
    assert not (tmp_path / "store").exists()


def test_delays_are_measured_and_failures_are_told(tmp_path: Path) -> None:
    found = feedback_store.measure("delays", tmp_path / "store", 20_000)
    assert list(found["resident_bytes"]) == [f"{delay:g}" for delay in feedback_store.DELAYS]
    assert found["growth_bytes"] < 100e6
    assert found["waiting"] <= 2_000
    with pytest.raises(BenchError, match="invalid literal"):
        feedback_store.main(["delays", str(tmp_path), "many"])
    with pytest.raises(BenchError, match="Not a directory"):
        feedback_store.measure("join", Path("/dev/null/store"), 1)


def test_the_time_of_loops_alone_is_counted() -> None:
    ended = threading.Event()

    def run() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("scoregate-loop0")
        while not ended.is_set():
            pass

    before = loop_ticks(os.getpid())
    thread = threading.Thread(target=run)
    thread.start()
    try:
        while loop_ticks(os.getpid()) < before + 3:
            pass
    finally:
        ended.set()
        thread.join()
    assert before == 0


@pytest.fixture
def pages() -> Iterator[dict[str, Answer]]:
    """The pages of a sidecar, which a test may change; "host" has its address."""
    answers: dict[str, Answer] = {}
    names = ("/console", "/console/app.js", "/style.css", "/metrics")
    table: dict[str, Route] = {name: lambda _, n=name: answers[n] for name in names}  # type: ignore[misc]
    sidecar = Sidecar("127.0.0.1", 0, table)
    sidecar.start()
    answers["host"] = Answer(HTTPStatus.OK, f"127.0.0.1:{sidecar.port}", b"")
    yield answers
    sidecar.stop()


def test_a_page_is_as_large_as_all_that_it_loads(pages: dict[str, Answer]) -> None:
    page = (
        b'<link rel="stylesheet" href="/style.css"><script defer src="console/app.js"></script>'
        b'<img src="data:image/png;base64,AAAA"><link rel="canonical" href="/elsewhere">'
    )
    pages["/console"] = Answer(HTTPStatus.OK, "text/html", page)
    pages["/console/app.js"] = Answer(HTTPStatus.OK, "text/javascript", b"x" * 100)
    pages["/style.css"] = Answer(HTTPStatus.OK, "text/css", b"y" * 10)
    host = pages["host"].content_type
    assert page_size(host, "/console") == len(page) + 110
    pages["/style.css"] = Answer(HTTPStatus.NOT_FOUND, "text/plain", b"")
    with pytest.raises(LoadError, match=r"style\.css.*404"):
        page_size(host, "/console")


def test_counters_are_read_until_they_stand_still(pages: dict[str, Answer]) -> None:
    text = (
        'ml_predictions_total{model="a"} 5\nml_predictions_total{model="b"} 2\n'
        "ml_feedback_records_total 6\n"
        'ml_feedback_records_dropped_total{reason="ring"} 1\n'
        'ml_feedback_records_dropped_total{reason="disk"} 0\n'
    )
    pages["/metrics"] = Answer(HTTPStatus.OK, "text/plain", text.encode())
    target = Server("pages", "", "", sidecar=pages["host"].content_type)
    found = drained(target)
    assert found == Counted(7.0, 6.0, 1.0)
    assert found.since(Counted(1.0, 1.0, 1.0)) == Counted(6.0, 5.0, 0.0)
    assert total(target.counters(), "ml_feedback_records") == 0


# --------------------------------------------------------------------- figures


def a_run(name: str, **quantities: float) -> Any:
    usual = dict.fromkeys(("p50_us", "p99_us", "p999_us", "cpu_us_per_call"), 100.0)
    usual |= {"calls_per_cpu_s": 1_000.0, "calls_per_s": 900.0}
    return SimpleNamespace(
        load={"message_bytes": 214}, quantities=usual | quantities, to_json=lambda: {"run": name}
    )


def found() -> Found:
    names = [*(f"closed_{name}" for name in KINDS), "sustained", "capacity", "console"]
    runs = {name: [a_run(name)] for name in names}
    loads = SimpleNamespace(plan=QUICK.loads, runs=runs, n_failed={}, reasons=[])
    loads.values = lambda name, quantity: [run.quantities[quantity] for run in loads.runs[name]]
    each = {name: [3.0, 3.1] for name in KINDS}
    said = Reported(1_000, 0, 40_000.0)
    return Found(
        cast("Any", loads),
        {"joined_per_s": 60_000.0, "joined_matched_share": 1.0, "bytes_per_million": 75e6},
        {"joined_per_s": 51_000.0, "joined_matched_share": 0.5},
        {"growth_bytes": 1e6, "resident_bytes": {"0": 5e7}},
        Recording(each, each),
        Sustained(Counted(200_000, 200_000, 0), said, 100),
        AtCapacity(Counted(900_000, 9_000, 0), Counted(0, 0, 7), 3.0, 0.003, said, said),
        Console([9.0, 12.0, 30.0], 9_000, 60_000),
    )


def unmet(made: Found) -> list[str]:
    return [target.name for target in summary(made)[1] if not target.met]


def test_everything_that_is_promised_can_be_kept() -> None:
    values, targets = summary(found())
    assert len(targets) == 15
    assert unmet(found()) == []
    assert values["capacity_settling_dropped"] == 7
    assert values["capacity_recorded_share"] == 0.01
    assert values["console_data_ms_p50"] == 12.0
    assert values["recording_all_to_off_loop_cpu_ratio"].median == 1.0
    assert values["valid"] is True


def test_every_promise_can_be_broken() -> None:
    made = found()
    made.join |= {
        "joined_per_s": 49_000.0, "joined_matched_share": 0.999, "bytes_per_million": 97e6,
    }  # fmt: skip
    made.segments |= {"joined_per_s": 49_000.0, "joined_matched_share": 0.499}
    made.delays["growth_bytes"] = 17e6
    made.recording.loop_us = {"off": [3.0], "default": [9.0], "all": [3.3]}
    made.loads.runs["closed_default"] = [a_run("default", calls_per_cpu_s=920.0)]
    lost = Reported(1_000, 1, 1.0)
    made.sustained = Sustained(Counted(200_000, 199_999, 1), lost, 100)
    made.capacity = AtCapacity(Counted(9.0, 9.0, 1.0), Counted(0, 0, 0), 3.0, 1.0, lost, lost)
    made.console = Console([16.0], 1, 121_000)
    assert unmet(made) == [target.name for target in summary(made)[1]]


def test_the_whole_takes_less_than_five_minutes() -> None:
    plan = FULL
    store_s = plan.n_records / 25_000 + 5 * plan.n_delayed / 20_000
    drained_s = 10.0  # of everything; of all three kinds of server
    closed_s = plan.closed_repetitions * (len(KINDS) * (plan.closed_s + 0.5) + drained_s)
    closed_s += len(KINDS) * plan.settle_s + 2 * drained_s
    others_s = plan.sustained_s + plan.settle_s + plan.capacity_s + plan.console_s + 40
    assert store_s + closed_s + others_s < 300
