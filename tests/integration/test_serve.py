"""The serving process: start, refusals to start, and every way to end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from server.pb.scoregate.v1 import control_pb2
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.clients import SCORE, check_health, control, health, scoring
from tests.support.h2client import SocketClient, headers
from tests.support.serving import (
    MODEL,
    ROOT,
    Serving,
    copy_repository,
    example_repository,
    run_serve,
    serve_command,
    write_config,
)


def request(amount: float = 12.5) -> pb.ScoreRequest:
    message = pb.ScoreRequest()
    message.named.values["amount"].number = amount
    return message


def score_once(address: str) -> pb.ScoreResponse:
    with grpc.insecure_channel(address) as channel:
        answer: pb.ScoreResponse = scoring(channel).Score(request(), timeout=10)
        return answer


def unfinished_call(address: str) -> SocketClient:
    """Open a call that never sends its message; the server has seen it."""
    host, _, port = address.rpartition(":")
    client = SocketClient((host, int(port)))
    client.begin(headers(path=SCORE))
    client.h2.ping(b"12345678")
    client.flush()
    while not client.n_ping_acks:
        assert client.read()
    return client


def wait_goaway(client: SocketClient) -> None:
    while not client.goaways:
        assert client.read()


class TestStart:
    def test_says_what_serves_where_and_how_long_it_took(self, tmp_path: Path) -> None:
        sock = tmp_path / "fast.sock"
        with Serving(settings={"fast.unix_socket": str(sock), "fast.loops": 2}) as server:
            text = server.stdout()
            assert "ready in" in text
            assert f"{MODEL} 2 (linear engine, 4 features)" in text
            assert all(address in text for address in server.ready["addresses"].values())
            assert server.ready["pid"] == server.process.pid
            assert score_once(server.fast).version == "2"
            assert score_once(f"unix:{sock}").version == "2"
            assert server.http("/readyz") == (200, "ok\n")
            ready_file = server.folder / "ready.json"
            assert ready_file.exists()
            server.signal()
            assert server.wait() == 0
            assert not ready_file.exists()
            assert not sock.exists()

    def test_settings_come_from_flags_and_environment_too(self, tmp_path: Path) -> None:
        config = write_config(tmp_path / "c.toml", tmp_path / "nowhere", {})
        done = run_serve("--config", str(config), SCOREGATE_REPOSITORY=str(tmp_path / "env"))
        assert f"repository {tmp_path}/env: no such directory" in done.stderr
        done = run_serve(
            "--config", str(config), "--repository", str(tmp_path / "flag"),
            SCOREGATE_REPOSITORY=str(tmp_path / "env"),
        )  # fmt: skip
        assert f"repository {tmp_path}/flag: no such directory" in done.stderr

    def test_stays_small(self) -> None:
        with Serving() as server:
            score_once(server.fast)
            score_once(server.control)
            server.http("/metrics")
            assert server.metric("process_resident_memory_bytes") < 120e6
        heavy = "{'onnxruntime', 'scipy', 'sklearn', 'pandas', 'onnx', 'pyarrow', 'rich'}"
        code = f"import sys, server.process; print({heavy} & set(sys.modules))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout == "set()\n"

    def test_needs_nobody_who_reads_its_output(self, tmp_path: Path) -> None:
        config = write_config(
            tmp_path / "c.toml",
            example_repository().path,
            {"ready_file": str(tmp_path / "ready.json")},
        )
        read_end, write_end = os.pipe()
        os.close(read_end)
        command = serve_command("--config", str(config))
        process = subprocess.Popen(command, cwd=ROOT, stdout=write_end, stderr=subprocess.DEVNULL)
        os.close(write_end)
        while process.poll() is None and not (tmp_path / "ready.json").exists():
            time.sleep(0.01)
        process.terminate()
        assert process.wait(30) == 0

    def test_logs_as_json(self) -> None:
        with Serving(settings={"log.format": "json"}) as server:
            server.signal()
            server.wait()
            lines = [json.loads(line) for line in server.stderr().splitlines()]
        assert lines
        assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
        assert any("loaded fraud 2" in line["message"] for line in lines)


class TestRefusalsToStart:
    """Exit code, one line, and no traceback."""

    def refused(self, code: int, *args: str) -> str:
        ports = ["--fast-port", "0", "--control-port", "0", "--sidecar-port", "0"]
        done = run_serve("--log-level", "error", *ports, *args)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("scoregate: ")
        return done.stderr

    def test_a_wrong_setting(self) -> None:
        assert "--fast-loops: '0' is not allowed" in self.refused(2, "--fast-loops", "0")

    def test_nothing_to_serve(self, tmp_path: Path) -> None:
        assert "no models" in self.refused(1, "--repository", str(tmp_path))

    def test_a_missing_repository(self, tmp_path: Path) -> None:
        text = self.refused(1, "--repository", str(tmp_path / "nope"))
        assert f"repository {tmp_path}/nope: no such directory" in text

    def test_a_repository_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        text = self.refused(1, "--repository", str(tmp_path / "file"))
        assert "cannot be read: Not a directory" in text

    def test_a_repository_that_leads_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        text = self.refused(1, "--repository", str(tmp_path / "loop"))
        assert "cannot be read: Too many levels of symbolic links" in text

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_an_unreadable_repository(self, tmp_path: Path) -> None:
        tmp_path.chmod(0)
        try:
            text = self.refused(1, "--repository", str(tmp_path))
        finally:
            tmp_path.chmod(0o700)
        assert "cannot be read: Permission denied" in text

    def test_a_damaged_bundle(self, tmp_path: Path) -> None:
        repository = copy_repository(tmp_path / "repository")
        file = repository / MODEL / "2" / "model.onnx"
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
        text = self.refused(2, "--repository", str(repository))
        assert f"{file}: the content was changed" in text

    @pytest.mark.parametrize("door", ["fast", "control", "sidecar"])
    def test_a_taken_port(self, door: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            repository = str(example_repository().path)
            text = self.refused(1, "--repository", repository, f"--{door}-port", port)
        assert port in text

    def test_an_open_control_port_without_permission(self) -> None:
        assert "needs access tokens and TLS" in self.refused(2, "--control-address", "0.0.0.0")

    def test_a_ready_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        repository = str(example_repository().path)
        file = str(tmp_path / "no" / "ready.json")
        text = self.refused(1, "--repository", repository, "--ready-file", file)
        assert f"ready file {file}: cannot be written: No such file" in text


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_an_idle_server_with_zero(self, number: signal.Signals) -> None:
        with Serving() as server, grpc.insecure_channel(server.fast) as channel:
            scoring(channel).Score(request(), timeout=10)
            server.signal(number)  # although the channel stays open
            assert server.wait() == 0

    def test_calls_in_flight_are_answered(self) -> None:
        codes: list[list[grpc.StatusCode]] = [[] for _ in range(4)]
        started = threading.Barrier(len(codes) + 1)

        def caller(mine: list[grpc.StatusCode], address: str) -> None:
            with grpc.insecure_channel(address) as channel:
                stub = scoring(channel)
                stub.Score(request(), timeout=10)
                started.wait()
                while not mine or mine[-1] is grpc.StatusCode.OK:
                    try:
                        stub.Score(request(), timeout=10)
                        mine.append(grpc.StatusCode.OK)
                    except grpc.RpcError as error:
                        mine.append(error.code())

        with Serving(settings={"fast.loops": 2}) as server:
            threads = [
                threading.Thread(target=caller, args=(mine, address))
                for mine, address in zip(
                    codes, [server.fast, server.fast, server.fast, server.control], strict=True
                )
            ]
            for thread in threads:
                thread.start()
            started.wait()
            while min(map(len, codes)) < 50:
                time.sleep(0.001)
            server.signal()
            assert server.wait() == 0
            for thread in threads:
                thread.join(30)
        for mine in codes:
            # Every call was answered, until the one that found the door closed.
            assert mine[-1] is grpc.StatusCode.UNAVAILABLE or mine is codes[3]
            assert len(mine) > 50
        # grpcio's own port may cancel a call that came while it was being closed.
        assert codes[3][-1] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

    def test_while_draining_every_port_says_so(self) -> None:
        with (
            Serving(settings={"drain.grace_s": 60}) as server,
            unfinished_call(server.fast) as call,
        ):
            server.signal()
            wait_goaway(call)
            assert server.http("/readyz") == (503, "draining\n")
            assert server.http("/healthz") == (200, "ok\n")
            with grpc.insecure_channel(server.control) as channel:
                assert check_health(channel) == "NOT_SERVING"
                status = control(channel).GetStatus(control_pb2.GetStatusRequest(), timeout=10)
                assert status.state == control_pb2.SERVING_STATE_DRAINING
            call.socket.close()  # the last call is gone: nothing to wait for
            assert server.wait() == 0

    def test_the_grace_has_an_end(self) -> None:
        with Serving(settings={"drain.grace_s": 0.2}) as server:
            with unfinished_call(server.fast):
                server.signal()
                assert server.wait() == 0
            assert "the grace of 0.2 s is over" in server.stderr()

    def test_a_second_signal_ends_at_once(self) -> None:
        server = Serving(settings={"drain.grace_s": 3600})
        with unfinished_call(server.fast) as call:
            server.signal()
            wait_goaway(call)
            server.signal()
            assert server.wait() == 128 + signal.SIGTERM
        server.end()

    def test_a_health_watch_does_not_hold_the_end_up(self) -> None:
        settings = {"drain.grace_s": 3600}
        with Serving(settings=settings) as server, grpc.insecure_channel(server.control) as channel:
            watch = health(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            server.signal()
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert server.wait() == 0
