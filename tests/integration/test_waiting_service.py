"""A loop whose service keeps calls: real sockets, timers, drain, stop, hand-over."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastpath.echo import EchoService
from fastpath.loop import LoopGroup
from tests.support.h2client import ECHO, Client, SocketClient, frame, headers

ROOT = Path(__file__).parents[2]
# Far longer than anything here takes: such a call is held until something else ends it.
FOREVER_US = 60_000_000
# Past a GOAWAY the h2 package is silent: the answer to the drain's PING, by hand.
PING_ANSWER = b"\0\0\x08\6\1\0\0\0\0" + bytes(8)


def start(delay_us: int, **options: int) -> tuple[LoopGroup, tuple[str, int]]:
    group = LoopGroup([EchoService(delay_us)], **options)
    port = group.listen("127.0.0.1", 0)
    group.start()
    return group, ("127.0.0.1", port)


@pytest.fixture
def served() -> Iterator[Callable[..., tuple[LoopGroup, tuple[str, int]]]]:
    groups: list[LoopGroup] = []

    def serve(delay_us: int, **options: int) -> tuple[LoopGroup, tuple[str, int]]:
        group, address = start(delay_us, **options)
        groups.append(group)
        return group, address

    yield serve
    for group in groups:
        group.stop()


Serve = Callable[..., tuple[LoopGroup, tuple[str, int]]]


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


@pytest.mark.parametrize("spin_us", [0, 50, 1_000_000])
@pytest.mark.parametrize("delay_us", [200, 20_000])
def test_answers_come_no_earlier_than_their_time(
    served: Serve, delay_us: int, spin_us: int
) -> None:
    _, address = served(delay_us, spin_us=spin_us)
    with SocketClient(address) as client:
        for i in range(10):
            began = time.monotonic()
            assert client.echo(b"%d" % i) == b"%d" % i
            assert time.monotonic() - began >= delay_us / 1e6


def test_a_timer_does_not_wait_for_the_tick(served: Serve) -> None:
    # 200 calls one after the other take as many timers. A loop that rounded each up to its tick
    # of a second would take minutes.
    group, address = served(300)
    with SocketClient(address) as client:
        for _ in range(200):
            client.echo(b"x")
    # One iteration takes the call, one answers it; each connection's end is one more.
    assert group.stats()[0]["iterations"] < 1000


def test_thousands_of_calls_are_held_without_polling(served: Serve) -> None:
    group, address = served(2_000_000)
    client = Client()
    for i in range(1000):
        client.call(b"%d" % i)
    once = client.output()  # every connection can say the same from its start
    sockets = [socket.create_connection(address, timeout=20) for _ in range(5)]
    try:
        for door in sockets:
            door.sendall(once)
        until(lambda: group.stats()[0]["calls"] == 5000)
        assert group.stats()[0]["status_0"] == 0
        before = group.stats()[0]["iterations"]
        until(lambda: group.stats()[0]["status_0"] == 5000)
        # Polling would have made hundreds of thousands. One connection's calls arrived in a few
        # reads, so they fall due in a few moments.
        assert group.stats()[0]["iterations"] - before < 200
        while not all(answer.ended for answer in client.answers.values()):
            client.input(sockets[-1].recv(1 << 16))
        assert [a.body for a in client.answers.values()] == [frame(b"%d" % i) for i in range(1000)]
    finally:
        for door in sockets:
            door.close()


def test_a_held_call_ends_at_its_deadline(served: Serve) -> None:
    _, address = served(FOREVER_US)
    with SocketClient(address) as client:
        stream = client.call(b"x", headers(grpc_timeout="50m"))
        answer = client.wait(stream)[0]
        assert answer.status == 4
        assert "deadline" in answer.message


def test_others_are_served_while_one_waits(served: Serve) -> None:
    group, address = served(500_000)
    with SocketClient(address) as waiting, SocketClient(address) as other:
        held = waiting.call(b"x")
        waiting.flush()
        until(lambda: group.stats()[0]["calls"] == 1)
        answer = other.wait(other.call(b"y", headers(path="/no.Such/Method")))[0]
        assert answer.status == 12
        assert group.stats()[0]["status_0"] == 0
        assert waiting.wait(held)[0].body == frame(b"x")


def test_a_cancelled_call_is_let_go(served: Serve) -> None:
    group, address = served(100_000)
    with SocketClient(address) as client:
        stream = client.call(b"x")
        client.flush()
        until(lambda: group.stats()[0]["calls"] == 1)
        client.h2.reset_stream(stream)
        client.flush()
        until(lambda: group.stats()[0]["resets"] == 1)
        assert client.echo(b"y") == b"y"
    assert group.stats()[0]["status_0"] == 1


def test_a_connection_that_goes_away_cancels_its_calls(served: Serve) -> None:
    group, address = served(100_000)
    with SocketClient(address) as client:
        for _ in range(50):
            client.call(bytes(1000))
        client.flush()
        until(lambda: group.stats()[0]["calls"] == 50)
    until(lambda: group.stats()[0]["open_connections"] == 0)
    assert group.drain(10)
    assert sum(group.stats()[0][f"status_{i}"] for i in range(17)) == 0


def test_drain_waits_for_what_is_held(served: Serve) -> None:
    group, address = served(400_000)
    with SocketClient(address) as client:
        client.call(b"held")
        client.flush()
        until(lambda: group.stats()[0]["calls"] == 1)
        before = group.stats()[0]["iterations"]
        results: list[bool] = []
        handed: list[tuple[int, bytes, str]] = []
        caller = threading.Thread(target=lambda: handed.append(group.call(ECHO, b"over", None)))
        caller.start()
        until(lambda: group.stats()[0]["handed_over"] == 1)
        drain = threading.Thread(target=lambda: results.append(group.drain(20)))
        drain.start()
        received = b""
        while b"\x7f\xff\xff\xff" not in received:  # GOAWAY with the highest stream
            received += client.socket.recv(1 << 16)
        client.socket.sendall(PING_ANSWER)
        while piece := client.socket.recv(1 << 16):
            received += piece
        assert frame(b"held") in received
        drain.join()
        caller.join()
        assert results == [True]
        assert handed == [(0, b"over", "")]
        assert group.stats()[0]["iterations"] - before < 50


def test_stop_cancels_what_is_held_and_lets_the_service_finish(served: Serve) -> None:
    group, address = served(300_000)
    with SocketClient(address) as client:
        client.call(b"held")
        client.flush()
        handed: list[tuple[int, bytes, str]] = []
        caller = threading.Thread(target=lambda: handed.append(group.call(ECHO, b"over", None)))
        caller.start()
        until(lambda: group.stats()[0]["calls"] + group.stats()[0]["handed_over"] == 2)
        before = group.stats()[0]["iterations"]
        group.stop()
        caller.join()
        assert handed == [(14, b"", "the server is stopping: try another one")]
        assert group.stats()[0]["iterations"] - before < 50
        client.read_to_end()
        assert group.stats()[0]["status_0"] == 0


def test_stop_abandons_a_service_that_never_answers(served: Serve) -> None:
    group, address = served(FOREVER_US)
    with SocketClient(address) as client:
        client.call(b"held")
        client.flush()
        handed: list[tuple[int, bytes, str]] = []
        caller = threading.Thread(target=lambda: handed.append(group.call(ECHO, b"over", None)))
        caller.start()
        until(lambda: group.stats()[0]["calls"] + group.stats()[0]["handed_over"] == 2)
        before = group.stats()[0]["iterations"]
        group.stop()
        caller.join()
    assert handed == [(14, b"", "the server is stopping: try another one")]
    # Five seconds of it, ten looks a second.
    assert group.stats()[0]["iterations"] - before < 100


def test_a_handed_over_call_waits_too(served: Serve) -> None:
    group, _ = served(50_000)
    began = time.monotonic()
    assert group.call(ECHO, b"x", 10.0) == (0, b"x", "")
    assert time.monotonic() - began >= 0.05
    status, _, text = group.call(ECHO, b"x", 0.01)
    assert (status, text) == (
        4,
        "the deadline passed before the call was answered; allow more time",
    )


# A filter that answers epoll_pwait2 (441 on every architecture) with the error given, as an old
# kernel (ENOSYS, 38) or an old sandbox (EPERM, 1) does.
WITHOUT_PWAIT2 = """
import ctypes, struct, sys
error = int(sys.argv[1])
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in (
    (0x20, 0, 0, 0),                    # load the call's number
    (0x15, 0, 1, 441),                  # another one: skip the next line
    (0x06, 0, 0, 0x00050000 | error),   # SECCOMP_RET_ERRNO
    (0x06, 0, 0, 0x7FFF0000),           # SECCOMP_RET_ALLOW
)))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)              # PR_SET_NO_NEW_PRIVS
filter_ = Program(4, ctypes.addressof(program))
if libc.prctl(22, 2, ctypes.byref(filter_), 0, 0) != 0:
    sys.exit(77)
assert libc.syscall(441, -1, None, 0, None, None, 0) == -1 and ctypes.get_errno() == error
from fastpath.echo import EchoService
from fastpath.loop import LoopGroup
group = LoopGroup([EchoService(300)])
group.start()
for _ in range(100):
    assert group.call("/scoregate.bench.Echo/Echo", b"x", 10.0) == (0, b"x", "")
print(group.stats()[0]["iterations"])
group.stop()
"""


@pytest.mark.parametrize("error", [38, 1], ids=["ENOSYS", "EPERM"])
def test_a_kernel_without_fine_waits_serves_too(error: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_PWAIT2, str(error)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if result.returncode == 77:
        pytest.skip("this system lets no filter be installed")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 1000
