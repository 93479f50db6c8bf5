"""A peer that speaks just enough HTTP/2 to make calls that gRPC clients would not make.

Clients finish what they begin, and never send a deadline that has passed.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM = 1
END_HEADERS = 4
ACK = 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame (RFC 9113, section 4.1)."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def field(name: bytes, value: bytes) -> bytes:
    """Return a literal header field without indexing, new name (RFC 7541, section 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class RawCall:
    """A connection with one open call, whose message is sent when told, or never."""

    def __init__(
        self, address: str, method: str = "/scoregate.v1.Scoring/Score", timeout: str = ""
    ) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        headers = b"".join(
            field(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", method.encode()),
                (b":authority", b"test"),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"grpc-timeout", timeout.encode()),
            )
            if value
        )
        self._buffer = b""
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))
        self.socket.sendall(
            frame(HEADERS, END_HEADERS, 1, headers) + frame(PING, 0, 0, b"12345678")
        )
        # The answer to the PING: the server has seen the headers that came before it.
        while self.next_frame()[:2] != (PING, ACK):
            pass

    def next_frame(self) -> tuple[int, int, bytes]:
        """Return kind, flags and payload of the next frame; acknowledge settings and pings."""
        head = self._take(9)
        kind, flags = head[3], head[4]
        payload = self._take(int.from_bytes(head[:3], "big"))
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        return kind, flags, payload

    def send(self, message: bytes) -> None:
        """Send the message and end the request."""
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self.socket.sendall(frame(DATA, END_STREAM, 1, body))

    def wait_end(self) -> None:
        """Read until the server has ended the call."""
        while True:
            kind, flags, _ = self.next_frame()
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                return

    def wait_goaway(self) -> None:
        """Read until the server says that it ends."""
        while self.next_frame()[0] != GOAWAY:
            pass

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise ConnectionError("the server closed the connection")
            self._buffer += chunk
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()
