"""The load generator against servers that answer with errors, break off, or are none."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from bench.errors import LoadError
from bench.generator import Limits, Message, Progress
from tests.support.generating import ANY_MACHINE, assert_whole, load
from tests.support.h2client import ECHO
from tests.support.h2server import Call, H2Server, RawServer

# ---------------------------------------------------------------- errors by name


def test_errors_are_counted_by_status() -> None:
    def serve(call: Call) -> None:
        status = int(call.message)
        note = "nothing%20here: f%C3%BCr 1" if status else ""
        call.answer(b"" if status == 0 else None, status=status, note=note)

    messages = [Message(ECHO, str(s).encode()) for s in (0, 0, 3, 14)]
    with H2Server(serve) as server:
        shape: dict[str, Any] = {"n_connections": 1, "n_streams": 1}
        result = load(server.address, messages, **shape).run_closed(n_calls=40)
        half = Limits(**{**vars(ANY_MACHINE), "max_error_share": 0.5})
        allowed = load(server.address, messages, limits=half, **shape).run_closed(n_calls=40)
        almost = Limits(**{**vars(ANY_MACHINE), "max_error_share": 0.49})
        refused = load(server.address, messages, limits=almost, **shape).run_closed(n_calls=40)
    assert result.status_counts == {"OK": 20, "INVALID_ARGUMENT": 10, "UNAVAILABLE": 10}
    assert result.n_errors == 20
    assert result.latency.count == 40
    assert result.first_error == "INVALID_ARGUMENT: nothing here: für 1"
    assert "20 of 40 calls failed" in result.invalid_reasons[0]
    assert result.first_error in result.invalid_reasons[0]
    assert allowed.valid
    assert not refused.valid
    assert_whole(result)


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        (lambda call: call.answer(b"x", http=503), "HTTP status not 200"),
        (lambda call: call.answer(b"x", status=None), "no valid grpc-status"),
        (lambda call: call.answer(b"x", status=99), "no valid grpc-status"),
        (lambda call: call.answer(None), "not one whole message"),
        (lambda call: call.answer(b"12345", cut=2), "not one whole message"),
        (lambda call: call.answer(b"12345", cut=7), "not one whole message"),
        (lambda call: call.reset(), "stream reset by the server"),
    ],
)
def test_broken_answers_are_counted_by_cause(behaviour: Any, cause: str) -> None:
    with H2Server(behaviour) as server:
        result = load(server.address, n_connections=2, n_streams=2).run_closed(n_calls=30)
    assert result.transport_errors == {cause: 30}
    assert result.calls_per_s == 0
    assert not result.valid
    assert f"30 {cause}" in result.invalid_reasons[0]
    assert_whole(result)


def test_calls_time_out_and_their_streams_are_reset() -> None:
    def serve(call: Call) -> None:
        if call.number % 4:
            call.answer(b"")

    with H2Server(serve) as server:
        result = load(
            server.address, n_connections=1, n_streams=2, timeout_s=0.1, slack_s=0.05
        ).run_closed(n_calls=16)
        assert server.n_resets >= 3
    assert result.status_counts == {"OK": 12}
    assert result.transport_errors == {"timed out": 4}
    assert_whole(result)


def test_it_comes_back_after_a_lost_connection() -> None:
    def serve(call: Call) -> None:
        if call.number % 10 == 9:
            call.hang_up()
        else:
            call.answer(b"")

    with H2Server(serve) as server:
        result = load(server.address, n_connections=1, n_streams=1).run_closed(n_calls=50)
        assert server.n_connections >= 5
    assert result.status_counts == {"OK": 45}
    assert result.transport_errors == {"connection closed by the server": 5}
    assert result.connection_errors == {"closed by the server": 5}
    assert result.n_reconnects >= 4
    assert_whole(result)


def test_a_goaway_costs_no_call() -> None:
    def serve(call: Call) -> None:
        call.answer(b"", leave=call.number % 10 == 9)

    with H2Server(serve) as server:
        result = load(server.address, n_connections=1, n_streams=1).run_closed(n_calls=50)
    assert result.status_counts == {"OK": 50}
    assert result.transport_errors == {}
    assert result.connection_errors == {"left after GOAWAY": result.n_reconnects + 1} or (
        result.connection_errors == {"left after GOAWAY": result.n_reconnects}
    )
    assert result.n_reconnects >= 4
    assert result.valid, result.invalid_reasons


def test_a_server_may_allow_fewer_streams() -> None:
    n_open = []

    def serve(call: Call) -> None:
        n_open.append(call.protocol.h2.open_inbound_streams)
        call.answer(b"", delay_s=0.01)

    with H2Server(serve, max_streams=3) as server:
        result = load(server.address, n_connections=1, n_streams=20).run_closed(n_calls=60)
    assert result.status_counts == {"OK": 60}
    assert max(n_open) == 3
    assert not result.valid
    assert "the server allows 3 streams per connection, 20 were asked for" in str(
        result.invalid_reasons
    )


# ---------------------------------------------------------------- servers that are none


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(LoadError, match=f"cannot connect to 127.0.0.1:{port}: Connection refused"):
        load(f"127.0.0.1:{port}").run_closed(n_calls=1)


def test_no_such_socket(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="No such file or directory"):
        load(f"unix:{tmp_path}/none.sock").run_closed(n_calls=1)


def test_a_server_that_talks_something_else() -> None:
    def serve(accepted: socket.socket) -> None:
        accepted.recv(1000)
        accepted.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        accepted.recv(1000)

    with RawServer(serve) as server, pytest.raises(LoadError, match="does not speak HTTP/2"):
        load(server.address).run_closed(n_calls=1)


def test_a_server_that_closes_at_once() -> None:
    with (
        RawServer(lambda accepted: accepted.recv(10)) as server,
        pytest.raises(LoadError, match="closes every connection"),
    ):
        load(server.address).run_closed(n_calls=1)


def test_a_server_that_says_nothing_at_all() -> None:
    with RawServer(lambda accepted: server.ended.wait()) as server:
        generator = load(
            server.address, timeout_s=0.2, slack_s=0.0, connect_timeout_s=0.3, give_up_s=0.7
        )
        result = generator.run_closed(n_calls=1_000_000)
    assert result.n_answered == 0
    assert set(result.transport_errors) == {"timed out"}
    assert "no call was answered for 0.7 s" in result.invalid_reasons[0]
    assert_whole(result)


def test_a_server_that_turns_to_garbage() -> None:
    greeting = b"\0\0\0\4\0\0\0\0\0"

    def serve(accepted: socket.socket) -> None:
        accepted.sendall(greeting)
        n_read = 0
        while piece := accepted.recv(65536):
            n_read += len(piece)
            if n_read > 90:  # preface, SETTINGS and what belongs to them are shorter; calls longer
                accepted.sendall(b"\xff" * 200)

    with RawServer(serve) as server:
        result = load(server.address, give_up_s=0.5).run_closed(n_calls=1000)
    assert result.n_answered == 0
    assert not result.valid
    lost = {"not HTTP/2", "closed by the server", "reset by the server"}
    assert set(result.connection_errors) <= lost
    assert "not HTTP/2" in result.transport_errors
    assert result.n_reconnects >= 1


def test_a_server_that_dies_during_the_run() -> None:
    n_served = [0]

    def serve(call: Call) -> None:
        n_served[0] += 1
        call.answer(b"")

    server = H2Server(serve)
    with server:
        generator = load(server.address, n_connections=2, n_streams=2, give_up_s=0.6)

        def kill(progress: Progress) -> None:
            if progress.n_answered > 50 and server._thread.is_alive():
                server.__exit__(None, None, None)

        result = generator.run_closed(duration_s=60, on_progress=kill)
        # Its end on leaving the block must find a loop.
        server.__enter__()
    assert result.n_answered > 50
    assert "no call was answered for 0.6 s" in result.invalid_reasons[0]
    assert result.connection_errors["connection refused"] >= 1
    # Backoff: far fewer attempts than there was time for.
    assert sum(result.connection_errors.values()) < 100
    assert_whole(result)
