"""The fast door over real sockets: raw HTTP/2, several loops, taken addresses, drain, hand-over."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h2.errors
import pytest

from fastpath.batch_echo import BatchEchoService
from fastpath.echo import EchoService
from fastpath.errors import ListenError, LoopError
from fastpath.loop import LoopGroup
from fastpath.service import Service
from tests.support.h2client import ECHO, SocketClient, frame, headers

BATCH = "/scoregate.bench.Echo/Batch"


@pytest.fixture
def group() -> Iterator[LoopGroup]:
    group = LoopGroup([EchoService()])
    yield group
    group.stop()


@pytest.fixture
def port(group: LoopGroup) -> int:
    port = group.listen("127.0.0.1", 0)
    group.start()
    return port


def total(group: LoopGroup, counter: str) -> int:
    return sum(loop[counter] for loop in group.stats())


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for something that the loops do on their own time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def n_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_calls_over_one_connection(group: LoopGroup, port: int) -> None:
    with SocketClient(("127.0.0.1", port)) as client:
        for size in (0, 1, 1000, 100_000):
            assert client.echo(bytes(size)) == bytes(size)
        streams = {client.call(bytes([i])): bytes([i]) for i in range(50)}
        for answer, message in zip(client.wait(*streams), streams.values(), strict=True):
            assert answer.body == frame(message)
    assert total(group, "calls") == total(group, "status_0") == 54
    until(lambda: total(group, "open_connections") == 0)
    assert total(group, "held_bytes") == 0


def test_ipv6_and_host_names(group: LoopGroup) -> None:
    places = [("localhost", group.listen("localhost", 0))]
    if Path("/proc/net/if_inet6").exists():
        places.append(("::1", group.listen("[::1]", 0)))
    group.start()
    for place in places:
        with socket.create_connection(place, timeout=10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert plain.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_unix_socket_and_its_stale_file(tmp_path: Path) -> None:
    path = tmp_path / "fast.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    group = LoopGroup([EchoService()])
    group.listen_unix(path)
    group.start()
    try:
        with SocketClient(str(path)) as client:
            assert client.echo(b"unix") == b"unix"
        other = LoopGroup([EchoService()])
        with pytest.raises(ListenError, match=r"fast\.sock: another server answers there"):
            other.listen_unix(path)
        other.stop()
    finally:
        group.stop()
    assert not path.exists()


def test_a_unix_path_that_cannot_be_used(group: LoopGroup, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    with pytest.raises(ListenError, match="no socket is there"):
        group.listen_unix(precious)
    assert precious.read_text() == "data"
    with pytest.raises(ListenError, match="No such file"):
        group.listen_unix(tmp_path / "missing" / "x.sock")
    with pytest.raises(ListenError, match="too long"):
        group.listen_unix(tmp_path / ("x" * 200))


def test_a_taken_port_says_which_and_what_to_do(group: LoopGroup, port: int) -> None:
    second = LoopGroup([EchoService()])
    with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port}: .*stop it, or choose") as error:
        second.listen("127.0.0.1", port)
    assert isinstance(error.value, OSError)
    second.stop()
    with SocketClient(("127.0.0.1", port)) as client:
        assert client.echo(b"still here") == b"still here"


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("256.1.1.1", 0, "host name"),
        ("", 0, "give a host"),
        ("127.0.0.1", 65536, "a port is 0 to 65535"),
        ("127.0.0.1", -1, "a port is 0 to 65535"),
        ("192.0.2.1", 0, "one of its own"),
    ],
)
def test_addresses_that_cannot_be_used(group: LoopGroup, host: str, port: int, words: str) -> None:
    with pytest.raises(ListenError, match=words):
        group.listen(host, port)


def test_a_port_can_be_taken_over_at_once_after_a_restart() -> None:
    port = 0
    for _ in range(3):
        group = LoopGroup([EchoService()])
        port = group.listen("127.0.0.1", port)
        group.start()
        with SocketClient(("127.0.0.1", port)) as client:
            assert client.echo(b"x") == b"x"
            group.stop()  # the server closes first: its side is left in TIME_WAIT


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="number of services is 0"):
        LoopGroup([])
    with pytest.raises(ValueError, match="max_connections is 0"):
        LoopGroup([EchoService()], max_connections=0)
    with pytest.raises(ValueError, match="bare Service"):
        LoopGroup([Service()])
    with pytest.raises(TypeError):
        LoopGroup(["no service"])  # type: ignore[list-item]


def test_a_group_starts_once(group: LoopGroup, port: int) -> None:
    with pytest.raises(LoopError, match="starts once"):
        group.start()
    group.stop()
    group.stop()
    with pytest.raises(LoopError):
        group.start()
    with pytest.raises(LoopError, match="has ended"):
        group.listen("127.0.0.1", 0)


def test_loops_share_the_connections() -> None:
    group = LoopGroup([EchoService(), EchoService(), EchoService()])
    port = group.listen("127.0.0.1", 0)
    group.start()
    clients = []
    try:
        for i in range(9):
            client = SocketClient(("127.0.0.1", port))
            clients.append(client)
            assert client.echo(b"%d" % i) == b"%d" % i
        assert [loop["open_connections"] for loop in group.stats()] == [3, 3, 3]
        assert [loop["calls"] for loop in group.stats()] == [3, 3, 3]
        names = {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
        assert {"scoregate-loop0", "scoregate-loop1", "scoregate-loop2"} <= names
    finally:
        for client in clients:
            client.socket.close()
        assert group.drain(10)


def test_one_connection_too_many_is_told_so() -> None:
    group = LoopGroup([EchoService(), EchoService()], max_connections=4)
    port = group.listen("127.0.0.1", 0)
    group.start()
    clients = [SocketClient(("127.0.0.1", port)) for _ in range(4)]
    try:
        for client in clients:
            client.echo(b"x")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as extra:
            data = b""
            while piece := extra.recv(1000):
                data += piece
            assert data.endswith(b"\0\0\0\x0btoo_many_connections")
        assert total(group, "refused") == 1
        clients.pop().socket.close()
        until(lambda: total(group, "open_connections") == 3)
        with SocketClient(("127.0.0.1", port)) as client:
            assert client.echo(b"room again") == b"room again"
    finally:
        for client in clients:
            client.socket.close()
        group.stop()


def test_connections_come_and_go_without_a_trace(group: LoopGroup, port: int) -> None:
    def cycle() -> None:
        with SocketClient(("127.0.0.1", port)) as client:
            client.echo(bytes(3000))
            client.begin()  # left open
            client.flush()

    for _ in range(20):
        cycle()
    until(lambda: total(group, "open_connections") == 0)
    before = n_files()
    for _ in range(300):
        cycle()
    until(lambda: total(group, "open_connections") == 0)
    assert n_files() == before
    assert total(group, "held_bytes") == 0
    assert total(group, "accepted") == total(group, "closed") == 320


def test_a_group_leaves_no_files_or_threads() -> None:
    before = n_files()
    n_threads = threading.active_count()
    for _ in range(20):
        group = LoopGroup([EchoService(), EchoService()])
        port = group.listen("127.0.0.1", 0)
        group.start()
        with SocketClient(("127.0.0.1", port)) as client:
            client.echo(b"x")
            group.stop()
        del group
    assert n_files() == before
    assert threading.active_count() == n_threads


OUT_OF_FILES = """
import resource, sys
from fastpath.echo import EchoService
from fastpath.loop import LoopGroup
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
group = LoopGroup([EchoService()])
print(group.listen("127.0.0.1", 0), flush=True)
group.start()
sys.stdin.readline()
print(group.stats()[0]["iterations"], flush=True)
group.stop()
"""


def test_running_out_of_files_neither_spins_nor_ends_the_listener() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OUT_OF_FILES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = ("127.0.0.1", int(server.stdout.readline()))
        waiting = [socket.create_connection(address, timeout=10) for _ in range(60)]
        time.sleep(0.3)
        for extra in waiting:
            extra.close()
        with SocketClient(address) as client:
            assert client.echo(b"after the storm") == b"after the storm"
        server.stdin.write("\n")
        server.stdin.flush()
        assert int(server.stdout.readline()) < 1000
    assert server.returncode == 0


def test_a_slow_reader_delays_nobody_and_gets_everything(group: LoopGroup, port: int) -> None:
    message = bytes(range(256)) * 4096
    with (
        SocketClient(("127.0.0.1", port), receive_buffer=4096) as slow,
        SocketClient(("127.0.0.1", port)) as other,
    ):
        slow.h2.update_settings({4: 1 << 24})  # SETTINGS_INITIAL_WINDOW_SIZE
        slow.h2.increment_flow_control_window(1 << 24)
        slow.flush()
        streams = []
        for _ in range(3):
            stream = slow.begin()
            streams.append(stream)
            body = frame(message)
            while body:
                room = slow.h2.local_flow_control_window(stream)
                if not room:
                    slow.read()
                    continue
                slow.data(stream, body[:room], end=room >= len(body))
                slow.flush()
                body = body[room:]
        for _ in range(20):
            assert other.echo(b"quick") == b"quick"
        for answer in slow.wait(*streams):
            assert answer.body == frame(message)
    until(lambda: total(group, "held_bytes") == 0)


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("n_bytes", [0, 65_000, 65_536, 400_000])
def test_nothing_is_left_unread_before_the_end(
    group: LoopGroup, port: int, tmp_path: Path, family: str, n_bytes: int
) -> None:
    # More than one read, and the end of the stream, before the loop has looked once.
    path = str(tmp_path / "door")
    group.listen_unix(path)
    with SocketClient(("127.0.0.1", port) if family == "tcp" else path) as client:
        assert client.echo(b"learns the windows") == b"learns the windows"
        client.call(bytes(n_bytes), headers(path="/no.Such/Method"))
        last = client.call(b"the last word")
        client.socket.sendall(client.output())
        client.socket.shutdown(socket.SHUT_WR)
        while piece := client.socket.recv(1 << 16):
            client.input(piece)
        assert client.answers[last].body == frame(b"the last word")
        assert client.answers[last].ended
    until(lambda: total(group, "open_connections") == 0)


def test_a_reset_in_mid_flight(group: LoopGroup, port: int) -> None:
    with SocketClient(("127.0.0.1", port)) as client:
        client.echo(b"opens the window")
        for _ in range(100):
            stream = client.begin()
            client.data(stream, frame(bytes(10_000))[:-1])
            client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            client.flush()
        assert client.echo(b"on we go") == b"on we go"
    assert total(group, "resets") == 100
    assert total(group, "held_bytes") == 0


@pytest.mark.parametrize(
    "junk",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"\0" * 100,
        b"PRI * HTTP/2.0\r\n\r\nXX",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\1\0\0\0\0",
        b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_junk_is_closed_and_hurts_nobody(group: LoopGroup, port: int, junk: bytes) -> None:
    with (
        SocketClient(("127.0.0.1", port)) as good,
        socket.create_connection(("127.0.0.1", port), timeout=10) as bad,
    ):
        assert good.echo(b"before") == b"before"
        bad.sendall(junk)
        while bad.recv(1000):
            pass
        assert good.echo(b"after") == b"after"


def test_a_flood_of_pings_is_told_why(group: LoopGroup, port: int) -> None:
    with SocketClient(("127.0.0.1", port)) as client:
        client.echo(b"x")
        for i in range(2000):
            client.h2.ping(i.to_bytes(8, "big"))
        client.flush()
        client.read_to_end()
        assert client.goaways[-1][1:] == (
            h2.errors.ErrorCodes.ENHANCE_YOUR_CALM,
            b"too_many_pings",
        )
    assert total(group, "calmed") == 1


def test_drain_finishes_what_is_in_flight(group: LoopGroup, port: int) -> None:
    with SocketClient(("127.0.0.1", port)) as client:
        client.echo(b"x")
        held = client.begin()
        client.data(held, frame(b"held")[:6])
        client.flush()
        until(lambda: total(group, "bytes_in") >= 9 + 6)
        result: list[bool] = []
        thread = threading.Thread(target=lambda: result.append(group.drain(20)))
        thread.start()
        while len(client.goaways) < 2:
            assert client.read()
        assert [g[:2] for g in client.goaways] == [(2**31 - 1, 0), (held, 0)]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        # Past its GOAWAY h2 sends no more by itself: the rest of the message, by hand.
        rest = frame(b"held")[6:]
        client.socket.sendall(
            len(rest).to_bytes(3, "big") + b"\0\1" + held.to_bytes(4, "big") + rest
        )
        received = b""
        while piece := client.socket.recv(1 << 16):
            received += piece
        assert frame(b"held") in received
        thread.join()
        assert result == [True]
    assert group.call(ECHO, b"x", 1.0)[0] == 14


def test_drain_closes_what_does_not_finish(group: LoopGroup, port: int) -> None:
    with SocketClient(("127.0.0.1", port)) as client:
        client.echo(b"x")
        client.begin()
        client.flush()
        until(lambda: total(group, "bytes_in") > 0)
        assert client.echo(b"y") == b"y"
        assert group.drain(0.3) is False
        client.read_to_end()
        assert client.closed


def test_drain_of_silent_and_idle_connections(group: LoopGroup, port: int) -> None:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as silent,
        SocketClient(("127.0.0.1", port)) as idle,
    ):
        idle.echo(b"x")
        thread = threading.Thread(target=idle.read_to_end)
        thread.start()
        assert group.drain(20)
        thread.join()
        assert silent.recv(100) == b""


def test_calls_from_python_threads(group: LoopGroup, port: int) -> None:
    wrong: list[object] = []

    def work(index: int) -> None:
        for i in range(300):
            message = b"%d-%d" % (index, i)
            answer = group.call(ECHO, message, 20.0 if i % 2 else None)
            if answer != (0, message, ""):
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert total(group, "handed_over") == 2400
    assert total(group, "calls") == 0


def test_python_and_the_network_share_batches() -> None:
    group = LoopGroup([BatchEchoService(), BatchEchoService()])
    port = group.listen("127.0.0.1", 0)
    group.start()
    try:
        wrong: list[object] = []

        def work() -> None:
            for i in range(200):
                answer = group.call(BATCH, b"%d" % i, 20.0)
                if answer != (0, b"%d" % i, ""):
                    wrong.append(answer)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        with SocketClient(("127.0.0.1", port)) as client:
            for _ in range(20):
                streams = [client.call(bytes(1000), headers(path=BATCH)) for _ in range(20)]
                assert all(a.body == frame(bytes(1000)) for a in client.wait(*streams))
        for thread in threads:
            thread.join()
        assert wrong == []
        assert group.drain(20)
        assert total(group, "handed_over") == 800
        assert total(group, "status_0") == 400
    finally:
        group.stop()


def test_calls_from_python_that_fail(group: LoopGroup) -> None:
    assert group.call(ECHO, b"x", 1.0)[0] == 14  # not started
    group.start()
    assert group.call("/no/Such", b"x", 1.0) == (
        12,
        b"",
        "no method /no/Such here: check the service and method names, and the port",
    )
    assert group.call(ECHO, b"x", 0.0)[0] == 4
    assert group.call(ECHO, b"x", float("nan"))[0] == 4
    assert group.call(ECHO, b"x", 1e30)[0] == 0
    assert group.call(ECHO, bytes((4 << 20) + 1), 1.0)[0] == 8
    assert group.call(ECHO, bytes(4 << 20), 20.0)[0] == 0
    group.stop()
    assert group.call(ECHO, b"x", 1.0)[0] == 14


def test_calls_from_python_end_with_the_group() -> None:
    group = LoopGroup([EchoService(), EchoService()])
    group.start()
    statuses: set[int] = set()
    started = threading.Barrier(9)

    def work() -> None:
        started.wait()
        while True:
            status, body, _ = group.call(ECHO, b"x", None)
            statuses.add(status)
            if status:
                return
            assert body == b"x"

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    started.wait()
    until(lambda: total(group, "handed_over") > 100)
    group.stop()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert statuses == {0, 14}


def test_spinning_loops_serve_too() -> None:
    group = LoopGroup([EchoService()], spin_us=200)
    port = group.listen("127.0.0.1", 0)
    group.start()
    with SocketClient(("127.0.0.1", port)) as client:
        for _ in range(50):
            assert client.echo(b"spin") == b"spin"
        assert group.call(ECHO, b"x", 10.0)[0] == 0
    assert group.drain(10)


def test_plain_http_over_a_socket(port: int) -> None:
    with SocketClient(("127.0.0.1", port)) as client:
        answer = client.wait(client.begin(headers(method="GET", content_type=None), end=True))[0]
        assert answer.http == 405


def test_signals_stay_with_the_main_thread(group: LoopGroup, port: int) -> None:
    group.call(ECHO, b"the thread runs", 20.0)
    tasks = {(t / "comm").read_text().strip(): t for t in Path("/proc/self/task").iterdir()}
    status = (tasks["scoregate-loop0"] / "status").read_text()
    blocked = int(status.split("SigBlk:")[1].split()[0], 16)
    assert blocked & 1 << (signal.SIGTERM - 1)
    assert blocked & 1 << (signal.SIGINT - 1)
