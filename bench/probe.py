"""Unary gRPC calls whose answers carry the time at which the kernel received them.

A Python client that is late, because it shares its core with a load, would say that answers were.
The kernel's time of arrival (SO_TIMESTAMPNS, the wall clock) does not depend on when the process
gets to read, so it can order the answers of several connections.

What it does not do: TLS, messages beyond HTTP/2's first windows, large answers, compression.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import h2.config
import h2.connection
import h2.events

from bench.errors import LoadError
from bench.message import Message

SO_TIMESTAMPNS = 35  # <asm-generic/socket.h>; not among Python's names
TIMESPEC = struct.Struct("@ll")
GONE = "a probing connection was closed, or got no answer"
TIMEOUT_S = 30.0
PSEUDO_HEADERS = ((":method", "POST"), (":scheme", "http"), (":authority", "bench"))
HEADERS = (("content-type", "application/grpc"), ("te", "trailers"))  # codespell:ignore te


@dataclass(slots=True)
class Answer:
    """One call's end."""

    sent_ns: int  # wall clock
    arrived_ns: int  # wall clock, the kernel's
    status: int
    body: bytes
    text: str  # of the status


@dataclass(slots=True)
class _Open:
    sent_ns: int
    body: bytearray
    status: int = -1
    text: str = ""


class Connection:
    """One connection, used by one thread.

    Parameters
    ----------
    address
        "host:port".
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._http.initiate_connection()
        self._open: dict[int, _Open] = {}
        self._flush()

    @property
    def n_open(self) -> int:
        """Calls without an answer."""
        return len(self._open)

    def send(self, messages: Sequence[Message]) -> None:
        """Send calls together."""
        for message in messages:
            stream = self._http.get_next_available_stream_id()
            headers = [*PSEUDO_HEADERS, (":path", message.method), *HEADERS]
            self._http.send_headers(stream, headers)
            self._http.send_data(stream, message.framed, end_stream=True)
            self._open[stream] = _Open(time.time_ns(), bytearray())
        self._flush()

    def receive(self) -> list[Answer]:
        """Take what has arrived, waiting for something; return the answers that are complete.

        Raises
        ------
        LoadError
            The server ended the connection, or said nothing for half a minute.
        """
        try:
            data, ancillary, _, _ = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(TIMESPEC.size))
        except (TimeoutError, ConnectionError):
            data, ancillary = b"", []
        if not data:
            raise LoadError(GONE)
        arrived_ns = _arrival_ns(ancillary)
        ended = []
        for event in self._http.receive_data(data):
            answer = self._take(event, arrived_ns)
            if answer is not None:
                ended.append(answer)
        self._flush()
        return ended

    def call(self, method: str, body: bytes) -> Answer:
        """Make one call, and return its answer, whatever its status."""
        self.send([Message(method, body)])
        while True:
            for answer in self.receive():
                return answer

    def _take(self, event: Any, arrived_ns: int) -> Answer | None:
        stream = int(getattr(event, "stream_id", 0))  # 0: about the connection
        call = self._open.get(stream)
        if call is None:
            return None
        if isinstance(event, h2.events.DataReceived):
            call.body += event.data
            self._http.acknowledge_received_data(event.flow_controlled_length, stream)
        elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            fields = {_text(name): _text(value) for name, value in event.headers}
            call.status = int(fields.get("grpc-status", call.status))
            call.text = fields.get("grpc-message", "")
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            del self._open[stream]
            body = bytes(call.body[5:])  # without gRPC's prefix
            return Answer(call.sent_ns, arrived_ns, call.status, body, call.text)
        return None

    def _flush(self) -> None:
        try:
            self.socket.sendall(self._http.data_to_send())
        except ConnectionError:  # reset, or a broken pipe: it closed with our calls unread
            raise LoadError(GONE) from None

    def close(self) -> None:
        """End the connection."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Prober:
    """Keeps a few calls in flight on a few connections.

    Parameters
    ----------
    address
        "host:port".
    messages
        Sent in turn.
    """

    def __init__(
        self, address: str, messages: Sequence[Message], n_connections: int = 4, n_streams: int = 4
    ) -> None:
        self._messages = messages
        self._n_streams = n_streams
        self._connections = [Connection(address) for _ in range(n_connections)]
        self._turn = 0

    def run(self, go_on: Callable[[], bool]) -> list[Answer]:
        """Call as long as `go_on()` holds; return every answer."""
        answers: list[Answer] = []
        with selectors.DefaultSelector() as selector:
            for connection in self._connections:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                connection.send(self._next())
            while any(connection.n_open for connection in self._connections):
                ready = selector.select(TIMEOUT_S)
                if not ready:
                    raise LoadError(f"the probes got no answer within {TIMEOUT_S:g} s")
                for key, _ in ready:
                    connection = key.data
                    answers += connection.receive()
                    if not connection.n_open and go_on():
                        connection.send(self._next())
        return answers

    def _next(self) -> list[Message]:
        n = len(self._messages)
        found = [self._messages[(self._turn + i) % n] for i in range(self._n_streams)]
        self._turn += self._n_streams
        return found

    def close(self) -> None:
        """End the connections."""
        for connection in self._connections:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _arrival_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = TIMESPEC.unpack(data[: TIMESPEC.size])
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    # The kernel takes times from a moment after the first socket asked for them. Until then an
    # answer counts as arrived when it was read: later than it was, which makes nothing look better.
    return time.time_ns()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
