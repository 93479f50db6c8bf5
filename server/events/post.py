"""One HTTP POST within a deadline that counts from its begin to its end.

Rules
-----
* The time is for everything together: connecting, TLS, sending, and the answer's head. A server
  that sends a byte now and then does not get more of it.
* Redirects are not followed, proxies not used; certificates are checked against the system's.
* Of the answer only the status and Retry-After are read.

How it works: http.client speaks HTTP, over a socket whose every wait is cut to what is left of the
deadline. The one wait that cannot be cut is the resolver's, for a host that is given by name: its
own limits hold (resolv.conf), on the webhook's thread.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from server.errors import StartError

if TYPE_CHECKING:
    import ssl

PORTS = {"http": 80, "https": 443}


class Target(NamedTuple):
    """Where to post to."""

    scheme: str
    host: str
    port: int
    path: str  # with the query

    @property
    def public(self) -> str:
        """Return it for logs: paths and queries of webhooks are often secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/…"


class Answer(NamedTuple):
    """How a server answered."""

    status: int
    retry_after: str  # as it was sent; empty: it was not


def parse_target(url: str) -> Target:
    """Return the parts of an address.

    Raises
    ------
    StartError
        It is none that can be posted to.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
        host = "" if host is None else host.encode("idna").decode()
    except ValueError:
        port, host = None, ""
    if not host or parts.scheme not in PORTS:
        raise StartError(
            "events.webhook_url: not an address that events can be posted to; expected "
            "https://HOST[:PORT]/PATH"
        )
    if parts.username is not None:
        raise StartError(
            "events.webhook_url: a user name or password in the address is not sent; receivers "
            "know us by the signature (events.webhook_secret_file)"
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(character <= " " for character in path):
        raise StartError("events.webhook_url: write the path's special characters as %XX")
    return Target(parts.scheme, host, port or PORTS[parts.scheme], path)


def post(
    target: Target,
    headers: Mapping[str, str],
    body: bytes,
    timeout_s: float,
    tls: ssl.SSLContext | None,
) -> Answer:
    """Post once.

    Parameters
    ----------
    target
        Where to.
    headers, body
        What.
    timeout_s
        For all of it.
    tls
        How certificates are checked; None for http.

    Raises
    ------
    OSError
        It could not be sent, or nothing came back in time.
    HTTPException
        What came back is not HTTP.
    """
    deadline = _Deadline(timeout_s)
    plain = _connect(target, deadline)
    with closing(plain):
        sock = plain
        if tls is not None:
            plain.settimeout(deadline.left_s())
            sock = tls.wrap_socket(plain, server_hostname=target.host)
        with closing(sock):
            connection = HTTPConnection(target.host, target.port)
            connection.default_port = PORTS[target.scheme]  # not repeated in the Host header
            connection.sock = cast("socket.socket", _TimedSocket(sock, deadline))
            connection.request("POST", target.path, body, dict(headers))
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheader("Retry-After") or "")


class _Deadline:
    """A moment, and what is left until then."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._end_s = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds left, more than 0; raise TimeoutError after the end."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"no whole answer within {self._timeout_s:g} s")
        return left_s


def _connect(target: Target, deadline: _Deadline) -> socket.socket:
    """Connect to the first of the host's addresses that answers."""
    last: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        target.host, target.port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left_s())
            sock.connect(address)
        except OSError as error:
            sock.close()
            last = error
        else:
            return sock
    raise last


class _Sink(Protocol):
    """What is needed of a socket, plain or TLS."""

    def settimeout(self, value: float | None, /) -> None: ...
    def send(self, data: memoryview, /) -> int: ...
    def recv_into(self, buffer: memoryview, /) -> int: ...
    def close(self) -> None: ...


class _TimedSocket:
    """A socket as http.client uses one, each wait cut to what is left."""

    def __init__(self, sock: _Sink, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            self._sock.settimeout(self._deadline.left_s())
            left = left[self._sock.send(left) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Reader(self._sock, self._deadline))

    def close(self) -> None:
        """Leave it open: whoever connected closes it, after the answer's head was read."""


class _Reader(io.RawIOBase):
    """The answer's bytes."""

    def __init__(self, sock: _Sink, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._sock.settimeout(self._deadline.left_s())
        return self._sock.recv_into(buffer)
