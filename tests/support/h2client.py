"""A raw HTTP/2 client over the h2 package: what well-behaved gRPC libraries never send."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from fastpath.sans_io import ServerSession

ECHO = "/scoregate.bench.Echo/Echo"
HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", ECHO),
    (":authority", "test"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),  # codespell:ignore te
)


def headers(**changes: str | None) -> list[tuple[str, str]]:
    """Return a gRPC call's headers; `method`, `path` and so on stand for pseudo headers."""
    fields = dict(HEADERS)
    for key, value in changes.items():
        name = f":{key}" if f":{key}" in fields else key.replace("_", "-")
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = value
    return list(fields.items())


def frame(message: bytes, flag: int = 0) -> bytes:
    """Prefix a message as gRPC does."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def text(value: bytes | str) -> str:
    """Return a header's text: h2 hands out either."""
    return value.decode() if isinstance(value, bytes) else value


@dataclass
class Answer:
    """Everything that arrived on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def http(self) -> int:
        """The HTTP status."""
        return int(self.headers[":status"])

    @property
    def status(self) -> int:
        """The gRPC status, from the trailers or from trailers-only headers."""
        return int((self.trailers or self.headers)["grpc-status"])

    @property
    def message(self) -> str:
        """The grpc-message as it was on the wire."""
        return (self.trailers or self.headers).get("grpc-message", "")

    @property
    def trailers_only(self) -> bool:
        """Whether the whole answer was one HEADERS frame."""
        return self.ended and not self.trailers and not self.body


class Client:
    """The client's side of one connection, without I/O."""

    def __init__(self, *, validate: bool = True) -> None:
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=validate,
                normalize_outbound_headers=validate,
            )
        )
        self.h2.initiate_connection()
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int, bytes]] = []
        self.n_ping_acks = 0
        self.acknowledge = True
        self.raw = b""

    def begin(self, fields: list[tuple[str, str]] | None = None, *, end: bool = False) -> int:
        """Open a stream. Returns its id."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, fields or headers(), end_stream=end)
        return stream

    def call(self, message: bytes, fields: list[tuple[str, str]] | None = None) -> int:
        """Send one whole call. Returns its stream."""
        stream = self.begin(fields)
        self.data(stream, frame(message), end=True)
        return stream

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send bytes of a body, as frames of at most 16 KiB."""
        chunks = [data[i : i + 16384] for i in range(0, len(data), 16384)] or [b""]
        for chunk in chunks[:-1]:
            self.h2.send_data(stream, chunk)
        self.h2.send_data(stream, chunks[-1], end_stream=end)

    def output(self) -> bytes:
        """Return what is to be sent."""
        raw, self.raw = self.raw, b""
        return self.h2.data_to_send() + raw

    def input(self, data: bytes) -> None:
        """Take what was received."""
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ConnectionTerminated):
                if event.last_stream_id == 2**31 - 1:
                    # h2 falls silent here: answer by hand the PING that follows.
                    self.raw += b"\0\0\x08\6\1\0\0\0\0" + bytes(8)
                self.goaways.append(
                    (
                        int(event.last_stream_id or 0),
                        int(event.error_code or 0),
                        event.additional_data or b"",
                    )
                )
            elif isinstance(event, h2.events.PingAckReceived):
                self.n_ping_acks += 1
            stream = getattr(event, "stream_id", None)
            answer = self.answers.get(stream) if stream else None
            if answer is None or stream is None:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                answer.headers = {text(k): text(v) for k, v in event.headers or ()}
            elif isinstance(event, h2.events.TrailersReceived):
                answer.trailers = {text(k): text(v) for k, v in event.headers or ()}
            elif isinstance(event, h2.events.DataReceived):
                answer.body += event.data or b""
                if self.acknowledge and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, h2.events.StreamEnded):
                answer.ended = True
            elif isinstance(event, h2.events.StreamReset):
                answer.reset = int(event.error_code or 0)


class SessionClient(Client):
    """A client against a server session in the same process."""

    def __init__(self, server: ServerSession, *, validate: bool = True) -> None:
        super().__init__(validate=validate)
        self.server = server
        self.pump()

    def pump(self, chunk: int = 1 << 20) -> None:
        """Exchange bytes, `chunk` at a time, until both sides are silent."""
        while True:
            out = self.output()
            for i in range(0, len(out), chunk):
                self.server.receive(out[i : i + chunk])
            answer = self.server.send()
            self.input(answer)
            if not out and not answer:
                return


class SocketClient(Client):
    """A client behind a socket."""

    def __init__(
        self, address: tuple[str, int] | str, *, timeout_s: float = 20.0, receive_buffer: int = 0
    ) -> None:
        super().__init__()
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        self.socket.connect(address)
        self.closed = False
        self.flush()

    def __enter__(self) -> SocketClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Send what is to be sent."""
        self.socket.sendall(self.output())

    def read(self) -> bool:
        """Take one piece from the server. False at its end."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return False
        self.input(data)
        self.flush()
        return True

    def wait(self, *streams: int) -> list[Answer]:
        """Read until these streams have ended or were reset."""
        self.flush()
        while any(not (a := self.answers[s]).ended and a.reset is None for s in streams):
            assert self.read(), f"the server closed: {self.goaways}"
        return [self.answers[s] for s in streams]

    def echo(self, message: bytes) -> bytes:
        """Make one call, which must succeed."""
        answer = self.wait(self.call(message))[0]
        assert answer.status == 0, answer
        return answer.body[5:]

    def read_to_end(self) -> None:
        """Read until the server closes."""
        while self.read():
            pass
