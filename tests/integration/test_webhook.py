"""The webhook against real HTTP servers: good ones, slow ones, and those that never answer."""

from __future__ import annotations

import hashlib
import hmac
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from server.events.event import Event
from server.events.log import EventLog
from server.events.post import parse_target
from server.events.webhook import Webhook
from tests.support.control import make_certificate, wait_for
from tests.support.receiver import Receiver, Reply

SECRET = b"shared"


class Posting:
    """A webhook and its event log."""

    def __init__(self, url: str, *, secret: bytes | None = SECRET, **given: float) -> None:
        self.events = EventLog("host:9464")
        self.webhook = Webhook(
            parse_target(url),
            secret,
            "host:9464",
            self.events.settle,
            timeout_s=given.get("timeout_s", 5.0),
            attempts=int(given.get("attempts", 8)),
            capacity=int(given.get("capacity", 1000)),
            first_pause_s=given.get("first_pause_s", 0.02),
        )
        self.events.post_to(self.webhook)
        self.events.start()

    def emit(self, *summaries: str) -> None:
        for summary in summaries:
            self.events.emit("rollout.rollback", summary, model="fraud", version="1")

    def count(self, result: str) -> int:
        return self.events.counts()["rollout.rollback", result]

    def deliveries(self) -> list[str]:
        return [kept.delivery for kept in reversed(self.events.read(1000)[0])]


@pytest.fixture
def posting() -> Iterator[Callable[..., Posting]]:
    made: list[Posting] = []

    def make(url: str, *, secret: bytes | None = SECRET, **given: float) -> Posting:
        made.append(Posting(url, secret=secret, **given))
        return made[-1]

    yield make
    for one in made:
        one.events.stop(0.1)


Make = Callable[..., Posting]


def test_events_arrive_signed_in_order_and_once(posting: Make) -> None:
    with Receiver() as receiver:
        hook = posting(receiver.url)
        hook.emit(*(f"event {number}" for number in range(50)))
        requests = receiver.wait(50)
        wait_for(lambda: hook.count("delivered") == 50)
        assert hook.events.n_waiting == 0
    assert [request.event["summary"] for request in requests] == [f"event {n}" for n in range(50)]
    for request in requests:
        assert request.path == "/hook?team=fraud"
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["Scoregate-Event-Id"] == str(request.event["id"])
        time_part, _, signature = request.headers["Scoregate-Signature"].partition(",v1=")
        sent_s = time_part.removeprefix("t=")
        assert abs(time.time() - int(sent_s)) < 60
        expected = hmac.new(SECRET, sent_s.encode() + b"." + request.body, hashlib.sha256)
        assert signature == expected.hexdigest()
        assert request.event["source"] == "host:9464"


def test_without_a_secret_nothing_is_signed(posting: Make) -> None:
    with Receiver() as receiver:
        hook = posting(receiver.url, secret=None)
        hook.emit("a")
        [request] = receiver.wait(1)
    assert "Scoregate-Signature" not in request.headers


def test_one_that_fails_twice_is_asked_again_and_the_order_is_kept(posting: Make) -> None:
    with Receiver([500, 503, 200]) as receiver:
        hook = posting(receiver.url)
        hook.emit("a", "b")
        requests = receiver.wait(4)
        wait_for(lambda: hook.count("delivered") == 2)
    assert [request.event["summary"] for request in requests] == ["a", "a", "a", "b"]
    assert len({request.headers["Scoregate-Event-Id"] for request in requests[:3]}) == 1
    assert hook.deliveries() == ["delivered", "delivered"]


@pytest.mark.parametrize("status", [400, 401, 404, 410, 301, 302, 307, 304])
def test_an_answer_that_would_not_change_is_final(posting: Make, status: int) -> None:
    with Receiver([Reply(status, {"Location": "/elsewhere"}), 200]) as receiver:
        hook = posting(receiver.url)
        hook.emit("a", "b")
        requests = receiver.wait(2)
        wait_for(lambda: hook.count("delivered") == 1)
    assert [request.event["summary"] for request in requests] == ["a", "b"]
    assert hook.deliveries() == ["failed", "delivered"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_asks_for_a_pause_gets_it(posting: Make, status: int) -> None:
    with Receiver([Reply(status, {"Retry-After": "1"}), 200]) as receiver:
        hook = posting(receiver.url)
        hook.emit("a")
        first, second = receiver.wait(2)
    assert second.at_s - first.at_s >= 1.0


def test_an_event_is_given_up_after_its_attempts(
    posting: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with Receiver([500]) as receiver:
        hook = posting(receiver.url, attempts=3)
        hook.emit("a")
        wait_for(lambda: hook.count("failed") == 1)
        assert len(receiver.requests) == 3
    said = [record.getMessage() for record in caplog.records if "webhook" in record.getMessage()]
    assert "is not delivered yet" in said[0]
    assert "given up after 3 attempts" in said[1]
    # Addresses of webhooks are secrets.
    assert "team=fraud" not in caplog.text
    assert "/hook" not in caplog.text


def test_a_receiver_that_comes_later_gets_it_all(posting: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    hook = posting(f"http://127.0.0.1:{port}/", attempts=100, first_pause_s=0.05)
    hook.emit("a", "b")
    time.sleep(0.3)
    assert hook.deliveries() == ["waiting", "waiting"]
    receiver = Receiver(port=port)
    with receiver:
        receiver.wait(2)
        wait_for(lambda: hook.count("delivered") == 2)
    assert [event["summary"] for event in receiver.events] == ["a", "b"]


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Never answer."""
    handler.rfile.read(1)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Send a byte now and then, for ever."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        handler.wfile.write(b"a")
        time.sleep(0.02)


def flood(handler: BaseHTTPRequestHandler) -> None:
    """Send headers without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"X-More: " + b"a" * 1000 + b"\r\n")


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    """Answer with something else."""
    handler.wfile.write(b"220 mail.example.com ESMTP\r\n")


@pytest.mark.parametrize("behave", [hang, drip, flood, nonsense])
def test_no_answer_takes_longer_than_an_attempt_may(
    posting: Make, behave: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    with Receiver(behave=behave) as receiver:
        hook = posting(receiver.url, timeout_s=0.3, attempts=2)
        hook.emit("a")
        wait_for(lambda: hook.count("failed") == 1)
        assert len(receiver.requests) == 2


def test_one_that_accepts_and_never_reads(posting: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hook = posting(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.2, attempts=2)
        hook.emit("a")
        wait_for(lambda: hook.count("failed") == 1)


def test_a_full_queue_drops_the_oldest_and_counts_them(posting: Make) -> None:
    with Receiver(behave=hang) as receiver:
        hook = posting(receiver.url, timeout_s=60.0, capacity=3)
        hook.emit("on its way")
        receiver.wait(1)
        hook.emit(*"abcde")
        assert hook.events.n_waiting == 4
        assert hook.count("dropped") == 2
        assert hook.deliveries() == ["waiting", "dropped", "dropped", *["waiting"] * 3]
        began_s = time.monotonic()
        hook.events.stop(0.2)
        assert time.monotonic() - began_s < 20  # not the attempt's 60
        assert hook.count("dropped") == 6
        assert "waiting" not in hook.deliveries()


def test_what_waits_at_the_end_has_a_grace(posting: Make, caplog: pytest.LogCaptureFixture) -> None:
    with Receiver([500, 200]) as receiver:
        hook = posting(receiver.url, first_pause_s=50.0)
        hook.emit("a", "b", "c")
        wait_for(lambda: "not delivered yet" in caplog.text)  # and in its pause
        hook.events.stop(10.0)
        assert hook.deliveries() == ["delivered"] * 3
        assert [event["summary"] for event in receiver.events] == ["a", "a", "b", "c"]


def test_at_the_end_a_receiver_that_fails_is_asked_once(
    posting: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with Receiver([500]) as receiver:
        hook = posting(receiver.url, first_pause_s=50.0)
        hook.emit("a", "b", "c")
        wait_for(lambda: "not delivered yet" in caplog.text)  # and in its pause
        hook.events.stop(10.0)
        assert len(receiver.requests) == 2
        assert hook.deliveries() == ["dropped"] * 3


# ------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "receiver")


def test_tls_with_a_certificate_that_the_system_trusts(
    posting: Make, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with Receiver(certificate=certificate) as receiver:
        hook = posting(receiver.url)
        hook.emit("a", "b")
        receiver.wait(2)
        wait_for(lambda: hook.count("delivered") == 2)


def test_tls_with_another_certificate_is_no_receiver(
    posting: Make, certificate: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Receiver(certificate=certificate) as receiver:
        hook = posting(receiver.url, attempts=2)
        hook.emit("a")
        wait_for(lambda: hook.count("failed") == 1)
        assert receiver.requests == []
    assert "certificate verify failed" in caplog.text


def test_a_handshake_that_hangs_is_cut_off(posting: Make) -> None:
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hook = posting(f"https://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.2, attempts=1)
        hook.emit("a")
        wait_for(lambda: hook.count("failed") == 1)


def test_nothing_is_told_twice(posting: Make) -> None:
    """An event that was delivered is not counted again at the end."""
    with Receiver() as receiver:
        hook = posting(receiver.url)
        hook.emit("a")
        receiver.wait(1)
        wait_for(lambda: hook.count("delivered") == 1)
        hook.events.stop(1.0)
        event: Event = hook.events.read(1)[0][0].event
    assert (hook.count("emitted"), hook.count("dropped")) == (1, 0)
    assert receiver.events[0]["id"] == event.id
