"""Calls that a service keeps past their iteration, without sockets or a clock."""

from __future__ import annotations

import pytest

from fastpath.echo import EchoService
from fastpath.sans_io import ServerSession
from tests.support.h2client import SessionClient, frame, headers

DELAY_US = 250_000


@pytest.fixture
def client() -> SessionClient:
    client = SessionClient(ServerSession(EchoService(DELAY_US)))
    client.pump()
    return client


def advance(client: SessionClient, seconds: float) -> None:
    client.server.advance(seconds)
    client.pump()


def test_an_answer_comes_when_its_time_has_come(client: SessionClient) -> None:
    stream = client.call(b"wait for it")
    client.pump()
    assert client.server.n_in_service == 1
    advance(client, 0.249)
    assert not client.answers[stream].headers
    advance(client, 0.001)
    assert client.answers[stream].body == frame(b"wait for it")
    assert client.answers[stream].trailers == {"grpc-status": "0"}
    assert client.server.n_in_service == 0


def test_a_deadline_before_it_is_answered_at_the_deadline(client: SessionClient) -> None:
    patient = client.call(b"patient", headers(grpc_timeout="1S"))
    hasty = client.call(b"hasty", headers(grpc_timeout="100m"))
    client.pump()
    advance(client, 0.099)
    assert client.server.n_in_service == 2
    advance(client, 0.001)
    assert client.answers[hasty].status == 4
    assert client.server.n_in_service == 1
    advance(client, 0.15)
    assert client.answers[patient].status == 0


def test_every_order_of_deadlines_is_kept(client: SessionClient) -> None:
    order = [(37 * i) % 101 + 1 for i in range(100)]
    streams = {ms: client.call(b"%d" % ms, headers(grpc_timeout=f"{ms}m")) for ms in order}
    client.pump()
    passed_ms = 0
    for ms in sorted(order):
        assert not client.answers[streams[ms]].ended
        advance(client, (ms - passed_ms) / 1000)
        passed_ms = ms
        assert client.answers[streams[ms]].status == 4


def test_a_cancelled_call_is_let_go_without_an_answer(client: SessionClient) -> None:
    client.call(b"fills the header tables")
    client.pump()
    advance(client, 1.0)
    idle = client.server.n_blocks
    stream = client.call(b"never mind")
    client.pump()
    client.h2.reset_stream(stream)
    client.pump()
    assert client.server.n_in_service == 1  # the service has it until it completes it
    advance(client, 1.0)
    assert client.server.n_in_service == 0
    assert client.server.statuses == [1] + [0] * 16
    assert client.server.n_blocks == idle


def test_a_connection_that_ends_leaves_nothing_behind() -> None:
    server = ServerSession(service := EchoService(DELAY_US))
    client = SessionClient(server)
    for _ in range(100):
        client.call(bytes(5000))
    client.pump()
    assert server.n_in_service == 100
    del client, server
    # The service is free for the next one: its heap holds no call of the last.
    client = SessionClient(ServerSession(service))
    stream = client.call(b"next")
    client.pump()
    assert client.server.n_in_service == 1
    advance(client, 1.0)
    assert client.answers[stream].status == 0


def test_a_drain_waits_for_what_is_held(client: SessionClient) -> None:
    client.call(b"the last one")
    client.pump()
    client.server.drain()
    client.server.send()
    client.server.receive(b"\0\0\x08\6\1\0\0\0\0" + bytes(8))  # the PING's answer
    client.server.send()
    assert not client.server.finished
    client.server.advance(0.25)
    assert frame(b"the last one") in client.server.send()
    assert client.server.finished


@pytest.mark.parametrize("delay_us", [-1, 60_000_001])
def test_a_delay_out_of_range_is_refused(delay_us: int) -> None:
    with pytest.raises(ValueError, match=r"delay_us is .* it must be 0 to 60000000"):
        EchoService(delay_us)
