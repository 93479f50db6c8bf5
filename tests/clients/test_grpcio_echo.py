"""The fast door and the stock grpcio client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import grpc
import pytest

from fastpath.echo import EchoService
from fastpath.loop import LoopGroup
from tests.support.h2client import ECHO


@pytest.fixture
def group() -> Iterator[LoopGroup]:
    group = LoopGroup([EchoService(), EchoService()])
    yield group
    group.stop()


@pytest.fixture
def target(group: LoopGroup) -> str:
    port = group.listen("127.0.0.1", 0)
    group.start()
    return f"127.0.0.1:{port}"


Streaming: TypeAlias = "grpc.StreamUnaryMultiCallable[bytes, bytes]"


def connect(target: str, **options: int) -> grpc.Channel:
    # A subchannel pool of its own: channels of one process would share a connection.
    settings = [("grpc.use_local_subchannel_pool", 1)]
    settings += [(f"grpc.{name}", value) for name, value in options.items()]
    return grpc.insecure_channel(target, options=settings)


def echo(channel: grpc.Channel, path: str = ECHO) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary(path)


def test_messages_of_many_sizes(target: str) -> None:
    with connect(target, max_receive_message_length=-1) as channel:
        for size in (0, 1, 100, 2000, 16_384, 70_000, 4 << 20):
            assert echo(channel)(bytes(size), timeout=30) == bytes(size)


def test_metadata_is_accepted_and_the_answer_has_none(target: str) -> None:
    with connect(target) as channel:
        metadata = (("x-tenant", "blue"), ("trace-bin", b"\0\xff"))
        answer, call = echo(channel).with_call(b"x", metadata=metadata, timeout=30)
        assert answer == b"x"
        assert call.code() is grpc.StatusCode.OK
        assert list(call.trailing_metadata()) == []


def test_errors_carry_status_and_text(target: str) -> None:
    with connect(target, max_send_message_length=-1) as channel:
        with pytest.raises(grpc.RpcError) as missing:
            echo(channel, "/no.Such/100%")(b"", timeout=30)
        assert missing.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert missing.value.details() == (
            "no method /no.Such/100% here: check the service and method names, and the port"
        )
        with pytest.raises(grpc.RpcError) as large:
            echo(channel)(bytes((4 << 20) + 1), timeout=30)
        assert large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "4194305 bytes" in str(large.value.details())
        assert echo(channel)(b"the channel lives", timeout=30) == b"the channel lives"


def test_compressed_messages_are_refused_clearly(target: str) -> None:
    with connect(target) as channel:
        with pytest.raises(grpc.RpcError) as error:
            echo(channel)(bytes(5000), timeout=30, compression=grpc.Compression.Gzip)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "identity" in str(error.value.details())


def test_streaming_calls_of_a_unary_method(target: str) -> None:
    with connect(target) as channel:
        stream: Streaming = channel.stream_unary(ECHO)
        assert stream(iter([b"one"]), timeout=30) == b"one"
        for messages in ([], [b"one", b"two"]):
            with pytest.raises(grpc.RpcError) as error:
                stream(iter(messages), timeout=30)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_cancelled_calls_leave_nothing(group: LoopGroup, target: str) -> None:
    release = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"one"
        release.wait(20)

    with connect(target) as channel:
        stream: Streaming = channel.stream_unary(ECHO)
        calls = [stream.future(slowly()) for _ in range(20)]
        end = time.monotonic() + 20
        while sum(loop["open_connections"] for loop in group.stats()) == 0:
            assert time.monotonic() < end
            time.sleep(0.005)
        for call in calls:
            assert call.cancel()
        release.set()
        assert echo(channel)(b"x", timeout=30) == b"x"
    assert sum(loop["held_bytes"] for loop in group.stats()) == 0


def test_many_channels_and_threads(group: LoopGroup, target: str) -> None:
    def work(index: int) -> int:
        with connect(target) as channel:
            call = echo(channel)
            return sum(
                call(b"%d/%d" % (index, i), timeout=30) == b"%d/%d" % (index, i) for i in range(100)
            )

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [100] * 8
    assert [loop["accepted"] for loop in group.stats()] == [4, 4]


def test_drain_loses_no_call(group: LoopGroup, target: str) -> None:
    started = threading.Barrier(5)

    def work(_: int) -> tuple[int, set[grpc.StatusCode]]:
        n_ok = 0
        failures: set[grpc.StatusCode] = set()
        with connect(target) as channel:
            call = echo(channel)
            n_ok += call(b"first", timeout=30) == b"first"
            started.wait(30)
            while not failures:
                calls = [call.future(b"%d" % i, timeout=30) for i in range(16)]
                for i, future in enumerate(calls):
                    code = future.code()
                    if code is grpc.StatusCode.OK:
                        assert future.result() == b"%d" % i
                        n_ok += 1
                    else:
                        failures.add(code)
        return n_ok, failures

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, i) for i in range(4)]
        started.wait(30)
        time.sleep(0.2)
        assert group.drain(30)
        results = [future.result() for future in futures]
    # What the server answered was received; what it did not was never begun.
    assert sum(n_ok for n_ok, _ in results) == sum(loop["status_0"] for loop in group.stats())
    assert set().union(*(failures for _, failures in results)) == {grpc.StatusCode.UNAVAILABLE}


def test_keepalive_pings_are_welcome(target: str) -> None:
    with connect(
        target,
        keepalive_time_ms=20,
        keepalive_permit_without_calls=1,
        http2_max_pings_without_data=0,
    ) as channel:
        assert echo(channel)(b"x", timeout=30) == b"x"
        time.sleep(0.5)
        assert echo(channel)(b"x", timeout=30) == b"x"
