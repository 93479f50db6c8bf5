"""The monitoring benchmark's own parts: requests, counters, the scraper, memory, figures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import monitoring_memory
from bench.errors import BenchError, LoadError
from bench.message import Message
from bench.monitoring import Found, summary
from bench.monitoring_loads import (
    CAPTURES,
    KINDS,
    PAUSE_S,
    Scraped,
    Watching,
    n_evaluations,
    of_now,
    scrapes,
    stopped,
    window_rows,
)
from bench.monitoring_plan import FULL, QUICK
from bench.rollout_cycles import REALTIME
from bench.sources import SCORE
from bench.targets import Target as Server
from server.pb.scoregate.v1 import scoring_pb2 as pb
from server.sidecar import Answer, Route, Sidecar
from tests.support.serving import MODEL, example_repository

VERSION = 'model="bench",model_version="1"'


def test_requests_happen_now_and_expect_the_same_answer() -> None:
    request = pb.ScoreRequest(request_id="a", model="bench", event_time_ms=5)
    [message] = of_now([Message(SCORE, request.SerializeToString(), expected_raw=0.25)])
    made = pb.ScoreRequest.FromString(message.body)
    assert (made.request_id, made.event_time_ms) == ("a", 0)
    assert (message.method, message.expected_raw) == (SCORE, 0.25)


def test_counters_of_drift_are_read_and_failures_end_the_measurement() -> None:
    counters = {
        f'ml_drift_evaluations_total{{{VERSION},result="ok"}}': 7.0,
        f'ml_drift_evaluations_total{{{VERSION},result="failed"}}': 0.0,
        f'ml_drift_window_observations{{{VERSION},window="fast"}}': 4999.0,
        f'ml_drift_window_observations{{{VERSION},window="slow"}}': 60_000.0,
    }
    assert n_evaluations(counters) == 7
    assert window_rows(counters) == 4999
    counters[f'ml_drift_evaluations_total{{{VERSION},result="failed"}}'] = 2.0
    with pytest.raises(LoadError, match="2 evaluations of drift failed"):
        n_evaluations(counters)


@pytest.fixture
def pages() -> Iterator[tuple[Server, list[HTTPStatus]]]:
    """A sidecar whose /metrics answers with the last status of the list."""
    statuses = [HTTPStatus.OK]
    page = b"ml_predictions_total 1\n"
    table: dict[str, Route] = {"/metrics": lambda _: Answer(statuses[-1], "text/plain", page)}
    sidecar = Sidecar("127.0.0.1", 0, table)
    sidecar.start()
    yield Server("pages", "", "", sidecar=f"127.0.0.1:{sidecar.port}"), statuses
    sidecar.stop()


@pytest.mark.parametrize("steps_back", [False, True])
def test_scrapes_are_timed_one_after_the_other(
    pages: tuple[Server, list[HTTPStatus]], steps_back: bool
) -> None:
    began = time.monotonic()
    with scrapes(pages[0], steps_back=steps_back) as scraper:
        while len(scraper.times_ms) < 3:
            time.sleep(0.01)
    assert time.monotonic() - began >= 3 * PAUSE_S
    assert scraper.n_bytes[:3] == [23] * 3
    assert min(scraper.times_ms) > 0


def test_a_scrape_that_fails_ends_the_measurement(
    pages: tuple[Server, list[HTTPStatus]],
) -> None:
    pages[1].append(HTTPStatus.INTERNAL_SERVER_ERROR)
    with pytest.raises(LoadError, match="status 500"), scrapes(pages[0], steps_back=False):
        time.sleep(3 * PAUSE_S)


def test_a_server_that_is_not_asked_stands_still_and_goes_on() -> None:
    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            with stopped(Server("x", "", "", pid=process.pid)):
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
                assert state(process.pid) == "T"
            os.waitid(os.P_PID, process.pid, os.WCONTINUED | os.WNOWAIT)
            assert state(process.pid) != "T"
        finally:
            process.send_signal(signal.SIGKILL)


def test_memory_is_what_the_system_says_and_near_what_is_counted() -> None:
    found = monitoring_memory.measure(example_repository().path / MODEL / "1")
    assert found["kept_bytes"] < found["counted_bytes"] < 4 * found["resident_bytes"]
    assert found["resident_bytes"] < 16e6
    assert found["highest_bytes"] >= found["resident_bytes"]
    with pytest.raises(BenchError, match="no such directory"):
        monitoring_memory.measure(Path("/nowhere"))


# --------------------------------------------------------------------- figures


def a_run(name: str, **quantities: float) -> Any:
    usual = dict.fromkeys(("p50_us", "p99_us", "p999_us", "max_us"), 100.0)
    usual |= {"calls_per_cpu_s": 1_000.0, "calls_per_s": 900.0}
    return SimpleNamespace(
        load={"message_bytes": 214, "rate": {"per_s": 1_000}},
        quantities=usual | quantities,
        to_json=lambda: {"run": name},
    )


def found(*suffixes: str) -> Found:
    names = [*(f"closed_{name}" for name in CAPTURES), "scraped"]
    names += [kind + suffix for suffix in ("", *suffixes) for kind in KINDS]
    runs = {name: [a_run(name)] for name in names}
    loads = SimpleNamespace(plan=QUICK.loads, runs=runs, n_failed={}, reasons=[])
    loads.values = lambda name, quantity: [run.quantities[quantity] for run in loads.runs[name]]
    shares = {"seen_share": [1.0], "captured_share": [0.25], "dropped_share": [0.75]}
    return Found(
        cast("Any", loads),
        {name: shares for name in CAPTURES if name != "off"},
        Watching({s: [9.0] * 8 for s in ("", *suffixes)}, {s: [8.0] for s in ("", *suffixes)}),
        Scraped([10.0, 12.0, 19.0], [20_000, 21_000]),
        {"evaluate_ms_5000": 14.0},
        {"counted_bytes": 4e6, "resident_bytes": 5e6},
    )


def unmet(made: Found) -> list[str]:
    return [target.name for target in summary(made)[1] if not target.met]


def test_everything_that_is_promised_can_be_kept() -> None:
    values, targets = summary(found(REALTIME))
    assert len(targets) == 10
    assert unmet(found(REALTIME)) == []
    assert len(summary(found())[1]) == 9
    assert values["capture_all_dropped_share"].median == 0.75
    assert (values["scrape_ms_p50"], values["scrape_bytes"]) == (12.0, 21_000)
    assert values["watched_scrapes"] == 8
    assert values["shape"]["pause_between_scrapes_s"] == PAUSE_S
    assert values["valid"] is True


def test_every_promise_can_be_broken() -> None:
    made = found(REALTIME)
    runs = made.loads.runs
    runs["closed_all"] = [a_run("all", calls_per_cpu_s=920.0, calls_per_s=830.0)]
    runs["closed_all_large"] = [a_run("all_large", calls_per_cpu_s=1.0)]  # only shown
    made.shares["all"] = {**made.shares["all"], "seen_share": [1.0, 0.98]}
    runs["busy"] = [a_run("busy", p99_us=1e6)]  # only shown
    runs["watched"] = [a_run("watched", p99_us=116.0)]
    runs["watched" + REALTIME] = [a_run("watched", p99_us=116.0)]
    made.loads.n_failed["watched"] = 1
    made.scraped.times_ms[:] = [21.0]
    made.cost["evaluate_ms_5000"] = 31.0
    made.memory |= {"counted_bytes": 17e6, "resident_bytes": 17e6}
    assert unmet(made) == [target.name for target in summary(made)[1]]


def test_the_whole_takes_less_than_six_minutes() -> None:
    legs_s = 3 * (FULL.legs + FULL.realtime_legs) * (FULL.leg_s + 0.5)
    closed_s = len(CAPTURES) * FULL.closed_repetitions * (FULL.closed_s + 1.5)
    assert legs_s + closed_s + FULL.scraped_s + 60 < 360
