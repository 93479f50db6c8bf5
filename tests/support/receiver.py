"""A receiver of webhooks: a real HTTP server on a free port, answering as a test says.

    with Receiver([500, 500, 200]) as receiver:
        ...
        receiver.wait(3)

Answers are used one by one; the last one goes on. What is refused is received all the same.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

WAIT_S = 60.0


class Received(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float

    @property
    def event(self) -> dict[str, Any]:
        """The body as JSON."""
        document: dict[str, Any] = json.loads(self.body)
        return document


class Reply(NamedTuple):
    """How a request is answered."""

    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})


class Receiver:
    """The server, from ready to its end."""

    def __init__(
        self,
        replies: Sequence[int | Reply] = (200,),
        *,
        behave: Callable[[BaseHTTPRequestHandler], None] | None = None,
        certificate: tuple[Path, Path] | None = None,
        port: int = 0,
    ) -> None:
        self._replies = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]
        self._behave = behave  # instead of answering
        self._wake = threading.Condition()
        self.requests: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def do_GET(self) -> None:
                raise AssertionError("a redirect was followed")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that leave in the middle

        self._server = Server(("127.0.0.1", port), Handler)
        scheme = "http"
        if certificate is not None:
            scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/hook?team=fraud"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was received, in order."""
        with self._wake:
            return [request.event for request in self.requests]

    def wait(self, n_requests: int) -> list[Received]:
        """Return the requests once there are so many."""
        with self._wake:
            came = self._wake.wait_for(lambda: len(self.requests) >= n_requests, WAIT_S)
            assert came, f"{len(self.requests)} requests came, not {n_requests}"
            return list(self.requests)

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._wake:
            reply = self._replies[min(len(self.requests), len(self._replies) - 1)]
            self.requests.append(
                Received(handler.path, dict(handler.headers.items()), body, time.monotonic())
            )
            self._wake.notify_all()
        if self._behave is not None:
            self._behave(handler)
            return
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"thanks")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
