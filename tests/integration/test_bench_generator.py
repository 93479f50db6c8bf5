"""The load generator against real servers: what it sends, measures, checks and admits.

No test asserts how fast anything is. Limits on lag and stalls are lifted where they are not the
subject: a busy machine breaks them, and that is what they are for.
"""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from bench.generator import Limits, Message, Progress, Schedule
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.generating import ANY_MACHINE, assert_whole, echoes, load
from tests.support.h2client import ECHO
from tests.support.h2server import Call, H2Server
from tests.support.serving import FEATURES, MODEL, ROOT, Serving, example_repository


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run `scoregate echo`; its addresses by door."""
    folder = tmp_path_factory.mktemp("echo")
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "server", "echo", "--port", "0", "--ready-file", str(ready)]
    process = subprocess.Popen([*command, "--unix-socket", str(folder / "echo.sock")], cwd=ROOT)
    try:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield json.loads(ready.read_text())["addresses"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


# ---------------------------------------------------------------- good servers


@pytest.mark.parametrize("door", ["fast", "unix"])
@pytest.mark.parametrize("order", ["cycle", "random"])
def test_closed_loop_checks_every_answer(echo: dict[str, str], door: str, order: str) -> None:
    messages = echoes(0, 1, 5, 200, 3000, 70_000)
    result = load(echo[door], messages, n_connections=3, n_streams=5, order=order).run_closed(
        n_calls=3000
    )
    assert result.valid, result.invalid_reasons
    assert result.status_counts == {"OK": 3000}
    assert (result.n_checked, result.n_wrong, result.n_scheduled) == (3000, 0, 3000)
    assert result.calls_per_s == pytest.approx(3000 / result.seconds)
    assert 0 < result.service_time.min <= result.service_time.percentile(50)
    assert_whole(result)


@pytest.mark.parametrize("door", ["fast", "unix"])
def test_open_loop_sends_what_the_schedule_says(echo: dict[str, str], door: str) -> None:
    times = Schedule.poisson(2000, seed=11).times_ns(1.5)
    result = load(echo[door], echoes(10, 500)).run_open(times, warmup_s=0.5)
    n_measured = int((times >= 500_000_000).sum())
    assert result.valid, result.invalid_reasons
    assert result.n_scheduled == n_measured
    assert result.n_warmup == len(times) - n_measured
    assert result.status_counts == {"OK": n_measured}
    assert result.n_checked == n_measured
    # Latency counts from the intention, service from the sending.
    assert result.latency.mean() >= result.service_time.mean()
    assert_whole(result)


def test_a_closed_run_by_time_warms_up_first(echo: dict[str, str]) -> None:
    seen: list[Progress] = []
    result = load(echo["fast"]).run_closed(duration_s=1.2, warmup_s=0.3, on_progress=seen.append)
    assert result.valid, result.invalid_reasons
    assert result.n_warmup > 0
    # The warm-up is not taken from the run's time: there are calls beyond its first second.
    assert sum(second.calls for second in result.series[1:]) > 0
    assert len(result.series) >= 2
    assert len(seen) >= 3
    assert seen[-1].n_answered <= result.n_answered
    assert any(p.last is not None and p.last.calls > 0 for p in seen)
    assert_whole(result)


def test_runs_of_one_generator_are_apart(echo: dict[str, str]) -> None:
    generator = load(echo["fast"], echoes(7))
    results = [generator.run_closed(n_calls=n) for n in (50, 20)]
    results.append(generator.run_open(np.arange(30, dtype=np.int64) * 1_000_000))
    assert [r.n_answered for r in results] == [50, 20, 30]
    assert [r.latency.count for r in results] == [50, 20, 30]


def test_a_share_of_the_answers_is_checked(echo: dict[str, str]) -> None:
    def checked(seed: int) -> int:
        generator = load(echo["fast"], echoes(9), check_share=0.25, seed=seed)
        return generator.run_closed(n_calls=4000).n_checked

    first = checked(1)
    assert 800 < first < 1200
    assert checked(1) == first  # drawn from the seed, not from chance
    assert load(echo["fast"], echoes(9), check="none").run_closed(n_calls=50).n_checked == 0


def test_random_order_draws_evenly_and_repeatably() -> None:
    def sent(seed: int) -> list[bytes]:
        got: list[bytes] = []

        def serve(call: Call) -> None:
            got.append(call.message)
            call.answer(b"")

        with H2Server(serve) as server:
            generator = load(
                server.address,
                [Message(ECHO, bytes([i])) for i in range(4)],
                order="random",
                seed=seed,
                n_connections=1,
                n_streams=1,
            )
            generator.run_closed(n_calls=400)
        return got

    first = sent(5)
    counts = [first.count(bytes([i])) for i in range(4)]
    assert sum(counts) == 400
    assert all(60 < n < 140 for n in counts)
    assert sent(5) == first
    assert sent(6) != first


def test_what_arrives_is_grpc() -> None:
    calls: list[Call] = []

    def serve(call: Call) -> None:
        calls.append(call)
        call.answer(b"ok")

    with H2Server(serve) as server:
        messages = [Message("/a.B/C", b"first"), Message("/a.B/D", b"second")]
        result = load(
            server.address, messages, n_connections=1, n_streams=1, timeout_s=2.5
        ).run_closed(n_calls=4)
        assert result.status_counts == {"OK": 4}
        assert [c.headers[":path"] for c in calls] == ["/a.B/C", "/a.B/D"] * 2
        assert [c.message for c in calls] == [b"first", b"second"] * 2
        assert calls[0].headers == {
            ":method": "POST",
            ":scheme": "http",
            ":path": "/a.B/C",
            ":authority": server.address,
            "content-type": "application/grpc",
            "te": "trailers",  # codespell:ignore te
            "user-agent": "scoregate-bench",
            "grpc-timeout": "2500000u",
        }


def test_scores_are_checked_bit_for_bit() -> None:
    with Serving() as server, grpc.insecure_channel(server.fast) as channel:
        score = channel.unary_unary(
            "/scoregate.v1.Scoring/Score",
            request_serializer=pb.ScoreRequest.SerializeToString,
            response_deserializer=pb.ScoreResponse.FromString,
        )
        messages: list[Message] = []
        for row in example_repository().rows[list(FEATURES)].head(40).itertuples(index=False):
            request = pb.ScoreRequest(model=MODEL, request_id=f"r{len(messages)}")
            for name, value in zip(FEATURES, row, strict=True):
                request.named.values[name].number = float(value)
            raw = score(request, timeout=10).raw_score
            body = request.SerializeToString()
            messages.append(Message("/scoregate.v1.Scoring/Score", body, expected_raw=raw))
        right = load(server.fast, messages).run_closed(n_calls=2000)
        assert right.valid, right.invalid_reasons
        assert (right.n_checked, right.n_wrong) == (2000, 0)

        # One message of forty expects the next float32 above the true score.
        bits = struct.unpack("<I", struct.pack("<f", messages[7].expected_raw))[0] + 1
        (near,) = struct.unpack("<f", struct.pack("<I", bits))
        messages[7] = Message(messages[7].method, messages[7].body, expected_raw=near)
        wrong = load(server.fast, messages).run_closed(n_calls=400)
        assert (wrong.n_checked, wrong.n_wrong) == (400, 10)
        assert not wrong.valid
        assert wrong.first_wrong is not None
        assert wrong.first_wrong.message_index == 7
        assert wrong.first_wrong.expected == repr(near)
        assert "10 of 400 checked answers are wrong" in wrong.invalid_reasons[0]
        assert_whole(wrong)


def test_wrong_bytes_invalidate_a_run(echo: dict[str, str]) -> None:
    messages = [*echoes(50, 60), Message(ECHO, b"abc", b"abz"), Message(ECHO, b"", b"x")]
    result = load(echo["fast"], messages, n_connections=1, n_streams=1).run_closed(n_calls=40)
    assert (result.n_checked, result.n_wrong, result.n_errors) == (40, 20, 0)
    assert result.first_wrong is not None
    assert result.first_wrong.message_index == 2
    assert (result.first_wrong.expected, result.first_wrong.got) == ("61627a", "616263")
    assert not result.valid
    # A wrong answer is no answered call, and no share of errors allows it.
    assert result.calls_per_s == pytest.approx(20 / result.seconds)
    lenient = Limits(**{**vars(ANY_MACHINE), "max_error_share": 1.0})
    assert not load(echo["fast"], messages, limits=lenient).run_closed(n_calls=40).valid
    assert_whole(result)


# ---------------------------------------------------------------- delays that are known


def test_percentiles_are_those_of_the_server() -> None:
    def serve(call: Call) -> None:
        call.answer(b"", delay_s=int(call.message) / 1000)

    delays_ms = [20, 25, 30, 35, 40, 50, 60, 80, 100, 150]
    messages = [Message(ECHO, str(ms).encode()) for ms in delays_ms]
    with H2Server(serve) as server:
        generator = load(server.address, messages, n_connections=4, n_streams=20, order="random")
        result = generator.run_open(Schedule.constant(250).times_ns(3.0))
    theirs_ns = np.array(server.service_s) * 1e9
    assert result.valid, result.invalid_reasons
    assert len(theirs_ns) == result.n_answered == 750
    for p in (5, 25, 45, 65, 75, 85, 95):
        expected = float(np.percentile(theirs_ns, p, method="lower"))
        # A generator that the machine keeps waiting sends and takes later, and says by how much.
        for found in (result.service_time, result.latency):
            assert 0.95 * expected <= found.percentile(p) <= 1.05 * expected + result.lag.max, p
    mean = theirs_ns.mean()
    assert 0.95 * mean <= result.service_time.mean() <= 1.05 * mean + result.lag.max


def stalls_once(at: int, stall_s: float) -> Any:
    """Return a behaviour: answer at once, but stand still before call number `at`."""

    def serve(call: Call) -> None:
        if call.number == at:
            time.sleep(stall_s)
        call.answer(b"")

    return serve


def test_an_open_loop_shows_a_stall_that_a_closed_one_omits() -> None:
    shape: dict[str, Any] = {"n_connections": 1, "n_streams": 4, "timeout_s": 5.0}
    with H2Server(stalls_once(200, 1.0)) as server:
        opened = load(server.address, **shape).run_open(Schedule.constant(200).times_ns(4.0))
    with H2Server(stalls_once(200, 1.0)) as server:
        closed = load(server.address, **shape).run_closed(n_calls=800)
    assert opened.valid, opened.invalid_reasons
    assert closed.valid, closed.invalid_reasons
    # A quarter of the schedule was due while the server stood still; those calls waited 1 to 0 s.
    # So 10 percent of all calls waited over 0.6 s, and 2.5 percent over 0.9 s.
    assert opened.latency.percentile(88) >= 0.5e9
    assert opened.latency.percentile(96) >= 0.8e9
    assert opened.n_queued >= 150
    # Few of them were in flight meanwhile: counted from the sending, the stall all but vanishes,
    # as it does in a closed loop.
    assert opened.service_time.percentile(96) < 0.5e9
    assert closed.latency.percentile(96) < 0.5e9
    assert closed.latency.max >= 0.99e9
    # It was the server's fault: the generator's own lag knows nothing of it.
    assert opened.lag.percentile(90) < 0.5e9


def test_a_call_that_finds_no_stream_in_time_is_given_up() -> None:
    with H2Server(stalls_once(20, 1.0)) as server:
        result = load(
            server.address, n_connections=1, n_streams=1, timeout_s=5.0, max_queue_s=0.2
        ).run_open(Schedule.constant(100).times_ns(2.0))
    n_dropped = result.transport_errors["never sent: no free stream"]
    # Due during the stall's first 0.8 s.
    assert 60 <= n_dropped <= 150
    assert result.n_sent == result.n_answered == 200 - n_dropped
    assert not result.valid
    assert_whole(result)


# ---------------------------------------------------------------- truth about itself


def test_a_generator_that_is_too_late_says_so(echo: dict[str, str]) -> None:
    strict = Limits(
        max_lag_p99_ms=0.0, max_late_share=0.0, late_ms=0.0, max_stall_ms=1e5, max_busy_share=0.0
    )
    result = load(echo["fast"], limits=strict).run_open(Schedule.constant(500).times_ns(0.5))
    assert result.n_late == 250
    assert sum("could not keep its schedule" in reason for reason in result.invalid_reasons) == 2
    assert any("the generator was busy" in reason for reason in result.invalid_reasons)


def test_a_rate_beyond_the_server_shows_as_latency(echo: dict[str, str]) -> None:
    times = Schedule.constant(5_000_000).times_ns(0.04)
    result = load(echo["fast"], timeout_s=30.0).run_open(times)
    assert result.status_counts == {"OK": 200_000}
    assert result.n_queued > 150_000
    # The last call was due after 40 ms, and waited for all others.
    assert result.latency.max >= 0.9 * (result.seconds - 0.04) * 1e9
    assert result.latency.percentile(50) > 3 * result.service_time.percentile(50)
    assert_whole(result)


def test_a_stall_of_the_generator_is_seen(echo: dict[str, str]) -> None:
    """Stop a whole generator process for a while, as a hypervisor does."""
    code = (
        "import sys, json; from bench.generator import *\n"
        "def up(p): print('up', flush=True)\n"
        f"g = Generator(sys.argv[1], [Message({ECHO!r}, b'x')], timeout_s=5)\n"
        "r = g.run_open(Schedule.constant(500).times_ns(2.0), on_progress=up)\n"
        "print(json.dumps({'n': r.n_stalls, 'ns': r.longest_stall_ns, 'why': r.invalid_reasons}))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, echo["fast"]], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.4)
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=30)
    found = json.loads(output.splitlines()[-1])
    assert found["n"] >= 1
    assert found["ns"] >= 300e6
    assert any("stood still" in reason for reason in found["why"])


def test_ctrl_c_ends_a_run(echo: dict[str, str]) -> None:
    code = (
        "import sys; from bench.generator import *\n"
        f"g = Generator(sys.argv[1], [Message({ECHO!r}, b'x')])\n"
        "for i in range(3):\n"
        "  try: g.run_closed(duration_s=600, on_progress=lambda p: print('up', flush=True))\n"
        "  except KeyboardInterrupt: print('ended', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, echo["fast"]], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        for _ in range(3):
            # The generator stays usable.
            assert process.stdout.readline() == "up\n"
            process.send_signal(signal.SIGINT)
            while (line := process.stdout.readline()) != "ended\n":
                assert line == "up\n"
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:  # else what fails here is told of another test, and the load goes on for minutes
        process.kill()
        process.communicate()
