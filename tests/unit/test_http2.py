"""HTTP/2 and unary gRPC without sockets, against the h2 package."""

from __future__ import annotations

import itertools

import h2.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.batch_echo import BatchEchoService
from fastpath.echo import EchoService
from fastpath.grpc_frame import accepts_content_type, encode_message, timeout_ns
from fastpath.sans_io import ServerSession
from tests.support.h2client import Answer, SessionClient, frame, headers

BATCH = "/scoregate.bench.Echo/Batch"
UNITS = {"H": 3600 * 10**9, "M": 60 * 10**9, "S": 10**9, "m": 10**6, "u": 10**3, "n": 1}


def connect(**limits: int) -> SessionClient:
    return SessionClient(ServerSession(EchoService(), **limits))


def answer_to(
    body: bytes | None, fields: list[tuple[str, str]] | None = None, **limits: int
) -> Answer:
    client = connect(**limits)
    stream = client.begin(fields, end=body is None)
    if body is not None:
        client.data(stream, body, end=True)
    client.pump()
    answer = client.answers[stream]
    assert answer.ended
    # The connection survives whatever one call did.
    after = client.call(b"after")
    client.pump()
    assert client.answers[after].body == frame(b"after")
    return answer


def test_a_call_is_answered_with_headers_message_and_trailers() -> None:
    answer = answer_to(frame(b"hello"))
    assert answer.headers == {":status": "200", "content-type": "application/grpc"}
    assert answer.body == frame(b"hello")
    assert answer.trailers == {"grpc-status": "0"}


@pytest.mark.parametrize("size", [0, 1, 1786, 1787, 1788, 1792, 1793, 16384, 65536, 1_000_000])
def test_messages_of_every_size_come_back(size: int) -> None:
    client = connect()
    client.call(b"fills the header tables")
    client.pump()
    idle = client.server.n_blocks
    message = bytes(i % 251 for i in range(size))
    stream = client.begin()
    for start in range(0, size + 5, 30_000):
        client.data(stream, frame(message)[start : start + 30_000], end=start + 30_000 >= size + 5)
        client.pump()
    assert client.answers[stream].body == frame(message)
    assert client.server.held_bytes == 0
    assert client.server.n_blocks == idle


def test_any_split_of_the_bytes_gives_the_same_answer() -> None:
    client = connect()
    stream = client.call(b"split me anywhere", headers(user_agent="x" * 40))
    client.pump(chunk=1)
    assert client.answers[stream].body == frame(b"split me anywhere")


@given(st.binary(max_size=60), st.data())
@settings(max_examples=60)
def test_any_split_into_data_frames_gives_the_same_answer(
    message: bytes, data: st.DataObject
) -> None:
    body = frame(message)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    client = connect()
    stream = client.begin()
    for start, end in itertools.pairwise([0, *cuts, len(body)]):
        client.data(stream, body[start:end], end=False)
    client.data(stream, b"", end=True)
    client.pump()
    assert client.answers[stream].body == body


def test_many_streams_interleaved() -> None:
    client = connect()
    streams = {client.begin(): bytes([i]) * (i + 1) for i in range(100)}
    for stream, message in streams.items():
        client.data(stream, frame(message)[:3])
    for stream, message in reversed(streams.items()):
        client.data(stream, frame(message)[3:], end=True)
    client.pump()
    for stream, message in streams.items():
        assert client.answers[stream].body == frame(message)


@pytest.mark.parametrize(
    ("body", "fields", "status", "words"),
    [
        (frame(b"x"), headers(path="/no.Such/Method"), 12, "/no.Such/Method"),
        (frame(b"x"), headers(path="/scoregate.bench.echo/echo"), 12, "no method"),
        (b"", None, 12, "no message"),
        (None, None, 12, "no message"),
        (frame(b"a") + frame(b"b"), None, 12, "more than one"),
        (frame(b"") + b"\0", None, 12, "more than one"),
        (frame(b"abc")[:-1], None, 13, "middle"),
        (frame(b"abc")[:4], None, 13, "middle"),
        (frame(b"x", flag=1), None, 13, "compressed"),
        (frame(b"x", flag=1), headers(grpc_encoding="identity"), 13, "compressed"),
        (frame(b"x", flag=2), None, 13, "neither 0 nor 1"),
        (frame(b"x", flag=1), headers(grpc_encoding="gzip"), 12, "compressed"),
        (frame(b"x"), headers(grpc_timeout="5"), 13, "grpc-timeout"),
        (frame(b"x"), headers(grpc_timeout="123456789S"), 13, "grpc-timeout"),
        (frame(b"x"), headers(grpc_timeout="-1S"), 13, "grpc-timeout"),
        (frame(b"x"), headers(grpc_timeout="0n"), 4, "deadline"),
        (frame(bytes(101)), None, 8, "101 bytes"),
        (frame(b"x"), headers(blob="b" * 2000), 8, "metadata"),
    ],
)
def test_bad_calls_get_a_status_and_a_reason(
    body: bytes | None, fields: list[tuple[str, str]] | None, status: int, words: str
) -> None:
    answer = answer_to(body, fields, max_message_bytes=100, max_header_bytes=2000)
    assert (answer.http, answer.status) == (200, status)
    assert answer.trailers_only
    assert words in answer.message
    assert answer.headers["content-type"] == "application/grpc"


def test_an_encoding_that_is_not_used_is_accepted() -> None:
    assert answer_to(frame(b"x"), headers(grpc_encoding="gzip")).body == frame(b"x")
    assert answer_to(frame(b"x"), headers(grpc_encoding="identity")).body == frame(b"x")


def test_a_compressed_message_is_told_what_is_accepted() -> None:
    answer = answer_to(frame(b"x", flag=1), headers(grpc_encoding="gzip"))
    assert answer.headers["grpc-accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("fields", "http"),
    [
        (headers(content_type="application/json"), 415),
        (headers(content_type=None), 415),
        (headers(content_type="application/grpc-web"), 415),
        (headers(content_type="application/grpc+json"), 415),
        (headers(method="GET"), 405),
        (headers(method="PUT", content_type="text/plain"), 405),
    ],
)
def test_what_is_not_grpc_gets_a_complete_http_answer(
    fields: list[tuple[str, str]], http: int
) -> None:
    for body in (None, frame(b"x")):
        answer = answer_to(body, fields)
        assert answer.http == http
        assert "grpc-status" not in answer.headers | answer.trailers
        assert answer.headers["content-type"] == "text/plain"
        assert answer.body.endswith(b"\n")
        assert ("allow" in answer.headers) == (http == 405)


def test_head_gets_no_body() -> None:
    answer = answer_to(None, headers(method="HEAD"))
    assert (answer.http, answer.body) == (405, b"")


def test_wanting_no_trailers_is_a_stream_error_and_not_saying_so_is_none() -> None:
    assert answer_to(frame(b"x"), headers(te=None)).status == 0  # codespell:ignore te
    client = SessionClient(ServerSession(EchoService()), validate=False)
    stream = client.begin(headers(te="gzip"), end=True)  # codespell:ignore te
    client.pump()
    assert client.answers[stream].reset == h2.errors.ErrorCodes.PROTOCOL_ERROR


def test_a_peer_that_goes_on_sending_after_its_answer_is_told_to_stop() -> None:
    client = connect(max_message_bytes=10)
    stream = client.begin()
    client.data(stream, frame(bytes(11)), end=False)
    client.pump()
    answer = client.answers[stream]
    assert answer.status == 8
    assert answer.reset == h2.errors.ErrorCodes.NO_ERROR


def test_an_oversized_message_is_refused_before_it_is_buffered() -> None:
    client = connect(max_message_bytes=1 << 20)
    stream = client.begin()
    client.data(stream, b"\0" + (1 << 30).to_bytes(4, "big"))
    client.pump()
    assert client.answers[stream].status == 8
    assert client.server.held_bytes == 0


def test_memory_grows_with_what_arrived_not_with_what_a_prefix_promises() -> None:
    client = connect()
    streams = [client.begin() for _ in range(100)]
    for stream in streams:
        client.data(stream, b"\0" + (4 << 20).to_bytes(4, "big") + b"x")
    client.pump()
    assert client.server.held_bytes == 0
    client.data(streams[0], bytes(10_000))
    client.pump()
    assert 10_000 <= client.server.held_bytes <= 20_002


def test_unfinished_calls_cannot_hold_more_than_the_connection_may() -> None:
    client = connect(max_message_bytes=1 << 20, max_held_bytes=1 << 16)
    streams = []
    for _ in range(10):
        stream = client.begin()
        streams.append(stream)
        client.data(stream, frame(bytes(15_000))[:-1])
        client.pump()
        assert client.server.held_bytes <= 1 << 16
    statuses = [client.answers[s].status for s in streams if client.answers[s].ended]
    assert statuses
    assert set(statuses) == {8}
    first = streams[0]
    client.data(first, b"\0", end=True)
    client.pump()
    assert client.answers[first].body == frame(bytes(15_000))


def test_a_peer_that_asks_without_reading_is_refused() -> None:
    client = connect(max_held_bytes=1 << 18)
    client.acknowledge = False
    client.pump()
    streams = []
    for _ in range(60):
        streams.append(client.call(bytes(20_000)))
        client.pump()
    answers = [client.answers[s] for s in streams]
    assert {a.status for a in answers if a.trailers_only} == {8}
    assert client.server.held_bytes <= (1 << 18) + 20_005
    # Reading again frees everything.
    client.acknowledge = True
    client.h2.increment_flow_control_window(4 << 20)
    for stream in streams:
        if not client.answers[stream].ended:
            client.h2.increment_flow_control_window(1 << 16, stream)
    client.pump()
    assert all(a.ended for a in answers)
    assert client.server.held_bytes == 0


def test_a_large_answer_waits_for_the_window() -> None:
    client = connect()
    client.acknowledge = False
    stream = client.begin()
    body = frame(bytes(200_000))
    for start in range(0, len(body), 50_000):
        client.data(stream, body[start : start + 50_000], end=start + 50_000 >= len(body))
        client.pump()
    answer = client.answers[stream]
    assert len(answer.body) == 65_535
    assert not answer.ended
    other = client.call(b"")
    client.pump()
    assert not client.answers[other].ended  # the connection's window is used up too
    client.h2.increment_flow_control_window(1 << 20)
    client.h2.increment_flow_control_window(1 << 20, stream)
    client.pump()
    assert answer.body == body
    assert client.answers[other].ended


def test_a_reset_frees_the_stream() -> None:
    client = connect()
    client.call(b"fills the header tables")
    client.pump()
    idle = client.server.n_blocks
    for _ in range(50):
        stream = client.begin()
        client.data(stream, frame(bytes(5000))[:-1])
        client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        client.pump()
    assert client.server.held_bytes == 0
    assert client.server.n_blocks == idle
    assert sum(client.server.statuses) == 1


def test_a_call_that_is_reset_while_the_service_holds_it_is_dropped() -> None:
    client = SessionClient(ServerSession(BatchEchoService()))
    client.call(b"fills the header tables", headers(path=BATCH))
    client.pump()
    idle = client.server.n_blocks
    dropped = []
    kept = []
    for i in range(20):
        dropped.append(client.call(bytes(5000), headers(path=BATCH)))
        client.h2.reset_stream(dropped[-1], h2.errors.ErrorCodes.CANCEL)
        kept.append(client.call(b"%d" % i, headers(path=BATCH)))
        # Call, reset and call in one read: the reset comes between on_call and flush.
        client.pump()
    assert [client.answers[s].body for s in kept] == [frame(b"%d" % i) for i in range(20)]
    assert not any(client.answers[s].headers for s in dropped)
    assert client.server.statuses[0] == 21
    assert sum(client.server.statuses) == 21
    assert client.server.n_blocks == idle
    assert client.server.held_bytes == 0


def test_a_batch_is_answered_in_order_at_the_flush() -> None:
    client = SessionClient(ServerSession(BatchEchoService()))
    streams = {client.call(bytes([i]) * i, headers(path=BATCH)): bytes([i]) * i for i in range(90)}
    client.pump()
    for stream, message in streams.items():
        assert client.answers[stream].body == frame(message)


def test_a_session_may_vanish_while_calls_are_open() -> None:
    client = connect()
    client.call(b"whole")
    client.data(client.begin(), frame(bytes(9000))[:-1])
    client.server.receive(client.output())
    del client  # freed with an answer unsent and a message half there


def test_a_client_that_cancels_much_and_completes_much_is_honest() -> None:
    client = connect()
    for _ in range(3000):
        client.h2.reset_stream(client.begin(), h2.errors.ErrorCodes.CANCEL)
        client.call(b"")
        client.pump()
    assert client.goaways == []
    assert client.server.statuses[0] == 3000


def test_a_rapid_reset_attack_is_ended() -> None:
    client = connect()
    for _ in range(1001):
        client.h2.reset_stream(client.begin(), h2.errors.ErrorCodes.CANCEL)
    client.pump()
    assert [g[1:] for g in client.goaways] == [
        (h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, b"too_many_resets")
    ]
    assert client.server.finished


def test_resets_that_are_slow_are_forgiven() -> None:
    client = connect()
    for _ in range(30):
        for _ in range(100):
            client.h2.reset_stream(client.begin(), h2.errors.ErrorCodes.CANCEL)
        client.pump()
        client.server.advance(1.0)
    assert client.goaways == []


def test_pings_are_answered_and_a_flood_of_them_is_ended() -> None:
    client = connect()
    for i in range(100):
        client.h2.ping(i.to_bytes(8, "big"))
    client.pump()
    assert client.n_ping_acks == 100
    for i in range(900):
        client.h2.ping(i.to_bytes(8, "big"))
    client.pump()
    assert client.goaways[-1][1:] == (h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, b"too_many_pings")
    assert client.server.finished


@pytest.mark.parametrize("kind", ["settings", "empty data"])
def test_floods_of_frames_that_do_nothing_are_ended(kind: str) -> None:
    client = connect()
    stream = client.begin()
    client.pump()
    flood = {
        "settings": bytes.fromhex("000000040000000000"),
        "empty data": b"\0\0\0\0\0" + stream.to_bytes(4, "big"),
    }[kind]
    for _ in range(60):
        client.server.receive(flood * 20)
        client.server.send()
    assert client.server.finished


def test_drain_tells_the_highest_stream_then_the_true_last_one() -> None:
    client = connect()
    open_stream = client.begin()
    client.data(open_stream, frame(b"late")[:4])
    client.pump()
    client.server.drain()
    first = client.server.send()
    assert (2**31 - 1).to_bytes(4, "big") in first
    # A call that was on its way when the first GOAWAY was sent is still served.
    crossing = client.call(b"crossing")
    client.server.receive(client.output())
    client.server.receive(b"\0\0\x08\6\1\0\0\0\0" + bytes(8))  # the PING's answer
    second = client.server.send()
    assert b"\0\0\x08\7\0\0\0\0\0" + crossing.to_bytes(4, "big") + bytes(4) in second
    assert frame(b"crossing") in second
    assert not client.server.finished
    body = frame(b"late")[4:]
    client.server.receive(
        len(body).to_bytes(3, "big") + b"\0\1" + open_stream.to_bytes(4, "big") + body
    )
    assert frame(b"late") in client.server.send()
    assert client.server.finished


def test_drain_does_not_wait_for_ever_for_the_ping() -> None:
    client = connect()
    client.server.drain()
    client.server.send()
    assert not client.server.finished
    client.server.advance(3.0)
    client.server.send()
    assert client.server.finished


def test_nothing_is_said_before_the_peer_speaks() -> None:
    server = ServerSession(EchoService())
    assert server.send() == b""


def test_an_http1_client_is_told_in_its_own_words() -> None:
    server = ServerSession(EchoService())
    server.receive(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    head, _, body = server.send().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"content-length: {len(body)}".encode() in head
    assert b"HTTP/2" in body
    assert server.finished


def test_a_tls_client_is_closed_without_a_word() -> None:
    server = ServerSession(EchoService())
    server.receive(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert server.send() == b""
    assert server.finished


def test_a_deadline_that_passes_while_the_message_arrives_is_noticed() -> None:
    client = connect()
    stream = client.begin(headers(grpc_timeout="100m"))
    client.pump()
    client.server.advance(0.2)
    client.data(stream, frame(b"x"), end=True)
    client.pump()
    assert client.answers[stream].status == 4


def test_a_message_that_never_ends_is_dropped_at_its_deadline() -> None:
    client = connect()
    late = client.begin(headers(grpc_timeout="2S"))
    client.data(late, frame(bytes(10_000))[:-1])
    patient = client.begin()
    client.data(patient, frame(b"patient")[:-1])
    client.pump()
    client.server.advance(1.0)
    client.pump()
    assert not client.answers[late].ended
    client.server.advance(1.0)
    client.pump()
    assert client.answers[late].status == 4
    assert client.answers[late].reset == h2.errors.ErrorCodes.NO_ERROR
    assert client.server.held_bytes == 0
    client.data(patient, b"t", end=True)
    client.pump()
    assert client.answers[patient].body == frame(b"patient")


def test_a_peer_that_ignores_the_limit_of_streams_is_ended() -> None:
    client = connect(max_streams=3)
    for _ in range(3):
        client.begin()
    client.pump()
    assert not client.server.finished
    extra = bytes.fromhex("8386418474657374")  # POST, http, authority
    client.server.receive(b"\0\0\x08\1\5\0\0\0\x07" + extra)
    assert b"max concurrent streams" in client.server.send()
    assert client.server.finished


@given(st.integers(0, 99_999_999), st.sampled_from("HMSmun"))
@settings(max_examples=100)
def test_timeouts_are_read_as_written(value: int, unit: str) -> None:
    assert timeout_ns(f"{value}{unit}".encode()) == min(value * UNITS[unit], 2**63 - 1)


@given(st.binary(max_size=12))
@settings(max_examples=200)
def test_only_timeouts_are_timeouts(value: bytes) -> None:
    valid = (
        2 <= len(value) <= 9 and all(48 <= b <= 57 for b in value[:-1]) and chr(value[-1]) in UNITS
    )
    assert (timeout_ns(value) is not None) == valid


@given(st.text(max_size=100))
@settings(max_examples=100)
def test_messages_are_percent_encoded(text: str) -> None:
    from urllib.parse import unquote

    encoded = encode_message(text.encode("utf-8", "surrogatepass"))
    assert all(0x20 <= b <= 0x7E for b in encoded)
    assert unquote(encoded.decode(), errors="surrogatepass") == text


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"Application/GRPC", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc+proto ; x", True),
        (b"application/grp", False),
        (b"application/grpcx", False),
        (b"application/grpc+thrift", False),
        (b"", False),
    ],
)
def test_content_types(value: bytes, accepted: bool) -> None:
    assert accepts_content_type(value) is accepted
