"""Random and damaged bytes at the fast door: it survives, leaks nothing, and serves on."""

from __future__ import annotations

import socket
import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.echo import EchoService
from fastpath.loop import LoopGroup
from fastpath.sans_io import ServerSession
from tests.support.h2client import Client, SocketClient, frame, headers

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def conversation() -> bytes:
    """Return what an honest client sends: several calls, one of them large, one reset."""
    client = Client()
    client.call(b"small", headers(user_agent="fuzz", grpc_timeout="5S"))
    client.call(bytes(20_000))
    client.begin(headers(path="/no/Such"), end=True)
    stream = client.begin()
    client.data(stream, frame(bytes(3000))[:-7])
    client.h2.reset_stream(stream, 8)
    client.h2.ping(b"12345678")
    client.call(b"last")
    return client.output()


HONEST = conversation()

frames = st.builds(
    lambda kind, flags, stream, payload: (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    ),
    st.integers(0, 12),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x25, 0xFF]),
    st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([frame(b"x"), bytes.fromhex("838684418474657374"), bytes(8), bytes(4)]),
    ),
)


def feed(data: bytes, cuts: list[int]) -> None:
    """Feed a session in pieces; whatever it makes of them, it ends with nothing held."""
    server = ServerSession(EchoService(), max_message_bytes=1 << 16, max_held_bytes=1 << 16)
    start = 0
    for cut in [*sorted(cuts), len(data)]:
        server.receive(data[start:cut])
        server.send()
        start = cut
    assert server.held_bytes <= 3 << 16
    server.drain()
    server.advance(3.0)
    server.send()


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
@settings(max_examples=200)
def test_random_bytes(data: bytes, cuts: list[int]) -> None:
    feed(data, cuts)
    feed(PREFACE + data, cuts)


@given(st.lists(frames, max_size=12), st.lists(st.integers(0, 400), max_size=3))
@settings(max_examples=400)
def test_random_frames(parts: list[bytes], cuts: list[int]) -> None:
    feed(PREFACE + b"".join(parts), cuts)


@given(
    st.lists(st.tuples(st.integers(0, len(HONEST) - 1), st.integers(0, 255)), max_size=5),
    st.lists(st.integers(0, len(HONEST)), max_size=5),
    st.integers(0, len(HONEST)),
)
@settings(max_examples=300)
def test_damaged_conversations(
    changes: list[tuple[int, int]], cuts: list[int], length: int
) -> None:
    data = bytearray(HONEST)
    for place, value in changes:
        data[place] = value
    feed(bytes(data[:length]), cuts)


def test_junk_over_sockets_leaves_the_server_serving(rng: np.random.Generator) -> None:
    group = LoopGroup([EchoService(), EchoService()])
    port = group.listen("127.0.0.1", 0)
    group.start()
    try:
        with SocketClient(("127.0.0.1", port)) as good:
            for i in range(150):
                junk = rng.bytes(int(rng.integers(1, 3000)))
                if i % 3 == 1:
                    junk = PREFACE + junk
                elif i % 3 == 2:
                    damaged = bytearray(HONEST)
                    for place in rng.integers(0, len(damaged), 4):
                        damaged[place] = int(rng.integers(0, 256))
                    junk = bytes(damaged)
                with socket.create_connection(("127.0.0.1", port), timeout=20) as bad:
                    bad.sendall(junk)
                    if i % 2:
                        bad.shutdown(socket.SHUT_WR)
                assert good.echo(b"%d" % i) == b"%d" % i
            end = time.monotonic() + 20
            while sum(loop["open_connections"] for loop in group.stats()) > 1:
                assert time.monotonic() < end
                time.sleep(0.01)
            assert sum(loop["held_bytes"] for loop in group.stats()) == 0
    finally:
        group.stop()


def test_the_honest_conversation_is_honest() -> None:
    """The corpus that the others damage reaches the service."""
    server = ServerSession(EchoService())
    server.receive(HONEST)
    assert frame(b"last") in server.send()
    assert server.statuses[0] == 3
    assert server.statuses[12] == 1
    assert not server.finished
