"""The HTTP port by itself: pages, refusals, and what a bad peer or page does to it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from email.message import Message
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry, Counter

from server.errors import StartError
from server.lifecycle import Lifecycle, State
from server.sidecar import MAX_CONNECTIONS, TEXT, Answer, Sidecar, routes


def broken(_: Message) -> Answer:
    raise RuntimeError("secret detail")


class World:
    def __init__(self) -> None:
        self.lifecycle = Lifecycle()
        registry = CollectorRegistry()
        Counter("tries", "Tries.", registry=registry).inc(3)
        table = {**routes(self.lifecycle, registry), "/broken": broken}
        self.sidecar = Sidecar("127.0.0.1", 0, table)
        self.sidecar.start()
        self.connections: list[http.client.HTTPConnection] = []

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.sidecar.port, timeout=10)
        self.connections.append(connection)
        return connection

    def get(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, str, http.client.HTTPResponse]:
        connection = self.connect()
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.sidecar.stop()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_ready_follows_the_lifecycle_and_health_does_not(world: World) -> None:
    assert world.get("/readyz")[:2] == (503, "starting\n")
    assert world.get("/healthz")[:2] == (200, "ok\n")
    world.lifecycle.move(State.SERVING)
    assert world.get("/readyz")[:2] == (200, "ok\n")
    world.lifecycle.move(State.DRAINING, "draining")
    assert world.get("/readyz")[:2] == (503, "draining\n")
    world.lifecycle.move(State.SERVING)  # nothing leaves draining
    assert world.get("/readyz")[0] == 503
    assert world.get("/healthz")[0] == 200


def test_metrics_in_the_format_that_is_asked_for(world: World) -> None:
    status, text, answer = world.get("/metrics?x=1")
    assert status == 200
    assert "tries_total 3.0" in text
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    _, text, answer = world.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")


def test_head_has_the_headers_of_get_and_no_body(world: World) -> None:
    _, text, answer = world.get("/healthz", "HEAD")
    assert (text, answer.headers["Content-Length"]) == ("", "3")


def test_other_pages_and_methods_are_refused(world: World) -> None:
    status, text, _ = world.get("/nope")
    assert (status, text) == (404, "no such page; try /metrics, /healthz, /readyz, /broken\n")
    assert world.get("/metrics", "POST")[0] == 501


def test_a_page_that_raises_is_logged_and_not_shown(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    status, text, _ = world.get("/broken")
    assert status == 500
    assert "secret" not in text
    assert "secret detail" in caplog.text
    assert world.get("/healthz")[0] == 200


def test_one_connection_serves_many_requests(world: World) -> None:
    connection = world.connect()
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"


def test_silent_peers_do_not_keep_others_out_for_good(world: World) -> None:
    address = ("127.0.0.1", world.sidecar.port)
    silent = [socket.create_connection(address, timeout=10) for _ in range(MAX_CONNECTIONS)]
    try:
        for peer in silent:
            # Each holds a thread once it has answered something.
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert peer.recv(4096).startswith(b"HTTP/1.1 200")
        with socket.create_connection(address, timeout=10) as refused:
            assert refused.recv(1) == b""  # closed at once, not left waiting
    finally:
        for peer in silent:
            peer.close()
    # Freed as the peers leave, each on its own thread.
    for _ in range(100):
        try:
            assert world.get("/healthz")[0] == 200
            break
        except OSError:
            continue
    else:
        pytest.fail("the port stays closed after the silent peers have left")


def test_garbage_is_answered_and_forgotten(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.sidecar.port), timeout=10) as peer:
        peer.sendall(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
        assert b"400" in peer.recv(4096)
    assert world.get("/healthz")[0] == 200


def test_a_taken_port_is_refused(world: World) -> None:
    with pytest.raises(StartError, match=r"cannot listen on 127\.0\.0\.1:.*--sidecar-port"):
        Sidecar("127.0.0.1", world.sidecar.port, {})


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 203\.0\.113\.7:0"):
        Sidecar("203.0.113.7", 0, {})


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        sidecar = Sidecar("::1", 0, {"/x": lambda _: Answer(HTTPStatus.OK, TEXT, b"x")})
    except StartError:
        pytest.skip("no IPv6 loopback here")
    sidecar.start()
    connection = http.client.HTTPConnection("::1", sidecar.port, timeout=10)
    connection.request("GET", "/x")
    assert connection.getresponse().read() == b"x"
    connection.close()
    sidecar.stop()
