"""The rollout benchmark's own parts: the probe, the judgement of rollbacks, copies, figures."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bench import rollout_fleet, routing_speed
from bench.errors import LoadError
from bench.message import Message
from bench.probe import Answer, Connection, Prober
from bench.results import Spread
from bench.rollout import Found, summary
from bench.rollout_backs import Backs, Call, judge
from bench.rollout_cycles import Cycles
from bench.rollout_models import FLEET, copy_bundle
from bench.rollout_plan import QUICK
from bench.sources import ECHO, SCORE
from fastpath.echo import EchoService
from fastpath.loop import LoopGroup
from server.bundle import load_model, read_bundle
from server.errors import BundleError
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.serving import MODEL, example_repository


@pytest.fixture
def echo() -> Iterator[str]:
    loops = LoopGroup([EchoService()])
    port = loops.listen("127.0.0.1", 0)
    loops.start()
    yield f"127.0.0.1:{port}"
    loops.stop()


def test_a_probe_says_when_its_answer_arrived(echo: str) -> None:
    with Connection(echo) as connection:
        for i in range(300):  # beyond the first windows of a connection, with what is sent
            began_ns = time.time_ns()
            answer = connection.call(ECHO, b"%d" % i * 100)
            assert (answer.status, answer.body) == (0, b"%d" % i * 100)
            assert began_ns <= answer.sent_ns <= answer.arrived_ns <= time.time_ns()


def test_the_time_of_arrival_does_not_wait_for_the_reader(echo: str) -> None:
    with Connection(echo) as connection:
        connection.call(ECHO, b"first")
        time.sleep(0.2)  # until the kernel takes times
        connection.call(ECHO, b"second")
        connection.send([Message(ECHO, b"third")])
        time.sleep(0.5)
        [answer] = connection.receive()
        assert answer.arrived_ns - answer.sent_ns < 400_000_000


def test_a_refused_probe_keeps_its_status_and_text(echo: str) -> None:
    with Connection(echo) as connection:
        answer = connection.call("/no.Such/Method", b"")
    assert answer.status == 12
    assert answer.text


def test_a_prober_keeps_calls_in_flight_until_it_is_told_to_stop(echo: str) -> None:
    messages = [Message(ECHO, b"a"), Message(ECHO, b"b"), Message(ECHO, b"c")]
    turns = itertools.count()
    with Prober(echo, messages, n_connections=2, n_streams=4) as prober:
        answers = prober.run(lambda: next(turns) < 20)
    assert len(answers) == 4 * (2 + 20)
    assert {answer.body for answer in answers} == {b"a", b"b", b"c"}
    assert {answer.status for answer in answers} == {0}


def test_a_prober_notices_that_its_server_is_gone() -> None:
    loops = LoopGroup([EchoService()])
    port = loops.listen("127.0.0.1", 0)
    loops.start()
    with Prober(f"127.0.0.1:{port}", [Message(ECHO, b"a")]) as prober:
        stopper = threading.Timer(0.1, loops.stop)
        stopper.start()
        with pytest.raises(LoadError, match="was closed"):
            prober.run(lambda: True)
        stopper.join()


@pytest.mark.parametrize("is_sending", [False, True])
def test_a_connection_that_is_reset_is_one_that_was_closed(is_sending: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(f"127.0.0.1:{listener.getsockname()[1]}")
        served, _ = listener.accept()
        # Closed at once, without lingering: the kernel sends a reset.
        served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        served.close()
        act = partial(connection.send, [Message(ECHO, b"a")]) if is_sending else connection.receive
        with pytest.raises(LoadError, match="was closed"):
            act()
        connection.close()


# ------------------------------------------------------------------- judgement

MS = 1_000_000


def answers(*moments: tuple[int, int]) -> list[tuple[Answer, int]]:
    return [(Answer(0, at * MS, 0, b"", ""), generation) for at, generation in moments]


def test_the_last_old_answer_counts_from_the_call() -> None:
    calls = [Call(100 * MS, 110 * MS, before=1, after=2), Call(200 * MS, 205 * MS, 2, 3)]
    seen = answers((90, 1), (103, 1), (104, 2), (150, 2), (199, 2), (202, 3))
    assert judge(calls, seen) == ([3.0, 0.0], 0)


def test_an_old_answer_after_the_return_is_counted() -> None:
    seen = answers((90, 1), (112, 1), (113, 1), (104, 2))
    assert judge([Call(100 * MS, 110 * MS, 1, 2)], seen) == ([13.0], 2)


@pytest.mark.parametrize("seen", [answers((90, 1)), answers((104, 2))])
def test_a_rollback_that_nobody_watched_is_not_judged(seen: list[tuple[Answer, int]]) -> None:
    with pytest.raises(LoadError, match="no probe was answered by generation 1 or 2"):
        judge([Call(100 * MS, 110 * MS, 1, 2)], seen)


# ---------------------------------------------------------------------- models


def test_a_copy_of_a_bundle_is_another_version_with_the_same_scores(tmp_path: Path) -> None:
    source = example_repository().path / MODEL / "1"
    copy_bundle(source, tmp_path / "other" / "7")
    found = read_bundle(tmp_path / "other" / "7")
    assert (found.manifest.name, found.manifest.version) == ("other", "7")
    original = read_bundle(source)
    assert found.sha256 != original.sha256
    assert found.content == original.content
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    rows = rows[:, : len(original.schema.features)]
    np.testing.assert_array_equal(
        load_model(found).model.score(rows), load_model(original).model.score(rows)
    )
    with pytest.raises(BundleError):
        copy_bundle(tmp_path / "nothing", tmp_path / "other" / "8")


def test_the_fleet_is_asked_for_each_model_in_turn_by_requests_of_one_length() -> None:
    body = pb.ScoreRequest(request_id="r", model=FLEET[0]).SerializeToString()
    made = rollout_fleet.spread([Message(SCORE, body, expected_raw=float(i)) for i in range(20)])
    asked = [pb.ScoreRequest.FromString(message.body).model for message in made]
    assert asked == [FLEET[i % 8] for i in range(20)]
    assert [message.expected_raw for message in made] == list(range(20))
    assert {len(message.body) for message in made} == {len(body)}


def test_a_decision_is_timed_over_keys_of_the_length_that_is_said() -> None:
    assert {len(key) for key in routing_speed.customer_keys(1_000)} == {14}
    long_keys = routing_speed.long_keys(1_000)
    assert {len(key) for key in long_keys} == {32}
    assert len(set(long_keys)) == 1_000


# --------------------------------------------------------------------- figures


def a_run(name: str, **quantities: float) -> Any:
    latencies = ("p50_us", "p99_us", "p999_us", "p9999_us", "max_us")
    return SimpleNamespace(
        run=name,
        repetition=0,
        reasons=[],
        load={"message_bytes": 214, "rate": {"per_s": 1_000}},
        quantities=dict.fromkeys(latencies, 100.0) | {"calls_per_cpu_s": 1_000.0} | quantities,
        result=SimpleNamespace(n_answered=7),
        to_json=lambda: {"run": name},
    )


def found(**changes: Any) -> Found:
    runs = {name: [a_run(name)] for name in ("still", "busy", "swapping", "rollbacks")}
    runs |= {
        f"closed_{subject}": [a_run(subject)]
        for subjects in rollout_fleet.ROUNDS
        for subject in subjects
    }
    loads = SimpleNamespace(
        plan=QUICK, runs=runs, n_failed={"swapping": 0, "rollbacks": 0}, reasons=[]
    )
    loads.values = lambda name, quantity: [run.quantities[quantity] for run in loads.runs[name]]
    routing = {
        f"routing_ns_{size}_byte_keys_{n}_overrides": Spread.of([15.0])
        for size in (14, 32)
        for n in (0, 1_000)
    }
    cycles = Cycles([90.0] * 40, [9.0] * 40, [50_000_000 + 1_000 * i for i in range(40)])
    made = Found(cast("Any", loads), routing, cycles, Backs([1.0, 30.0], [5.0, 6.0]))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def unmet(made: Found) -> list[str]:
    return [target.name for target in summary(made)[1] if not target.met]


def test_everything_that_is_promised_can_be_kept() -> None:
    values, targets = summary(found())
    assert len(targets) == 12
    assert unmet(found()) == []
    assert values["rss_after_tenth_cycle_bytes"] == 50_013_500
    assert values["rollback_last_old_answer_ms"].max == 30.0
    assert values["valid"] is True


def test_loops_that_go_first_have_promises_of_their_own() -> None:
    made = found()
    for name in ("still", "busy", "swapping"):
        made.loads.runs[name + "_realtime"] = [a_run(name)]
    made.loads.runs["swapping_realtime"] = [a_run("swapping", p999_us=126.0)]
    assert unmet(made) == [
        "latency_p999_ratio_swapping_to_still_realtime",
        "latency_p999_ratio_swapping_to_busy_realtime",
    ]


def test_every_promise_can_be_broken() -> None:
    assert unmet(found(backs=Backs([51.0], [60.0], 1, 2))) == [
        "rollback_last_old_answer_ms_max",
        "rollback_old_answers_after_return",
        "rollback_wrong_answers",
    ]
    few = Cycles([90.0] * 29, [9.0] * 29, [50_000_000] * 19 + [51_100_000] * 10)
    assert unmet(found(cycles=few)) == ["cycles", "rss_growth_share"]
    slow = found()
    slow.loads.runs["swapping"] = [a_run("swapping", p999_us=126.0)]
    slow.loads.runs["closed_loaded"] = [a_run("loaded", calls_per_cpu_s=940.0)]
    slow.loads.n_failed["swapping"] = 1
    slow.loads.n_failed["rollbacks"] = 1
    slow.routing["routing_ns_14_byte_keys_1000_overrides"] = Spread.of([21.0])
    slow.routing["routing_ns_32_byte_keys_0_overrides"] = Spread.of([99.0])  # only shown
    assert unmet(slow) == [
        "failed_requests",
        "latency_p999_ratio_swapping_to_still",
        "latency_p999_ratio_swapping_to_busy",
        "rollback_failed_requests",
        "routing_ns_14_byte_keys_1000_overrides",
        "throughput_ratio_fleet_loaded_to_one",
    ]
