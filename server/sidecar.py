"""The HTTP port: /metrics, /healthz, /readyz, and the console (`server.console`).

Rules: read-only, no authentication, loopback unless told otherwise. /healthz says that the
process lives, /readyz that scoring calls are welcome (503 with the reason otherwise). A scrape
reads counters and never waits for a loop.

How it works: the standard library's HTTP server, one thread per connection, at most
MAX_CONNECTIONS of them; a peer that is silent for TIMEOUT_S is dropped. Routes are a table from
path to a function, so that further pages are one entry each.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from server.errors import StartError
from server.lifecycle import Lifecycle

MAX_CONNECTIONS = 32
TIMEOUT_S = 10.0
STOP_POLL_S = 0.1  # how often the idle server looks whether it has to stop
TEXT = "text/plain; charset=utf-8"

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What a route returns."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()  # besides those that every answer has


Route = Callable[[Message], Answer]  # from the request's headers


def routes(lifecycle: Lifecycle, registry: CollectorRegistry) -> dict[str, Route]:
    """Return the table of pages."""

    def metrics(headers: Message) -> Answer:
        encode, content_type = choose_encoder(headers.get("Accept", ""))
        return Answer(HTTPStatus.OK, content_type, encode(registry))

    def healthz(_: Message) -> Answer:
        return Answer(HTTPStatus.OK, TEXT, b"ok\n")

    def readyz(_: Message) -> Answer:
        if lifecycle.is_serving:
            return Answer(HTTPStatus.OK, TEXT, b"ok\n")
        reason = lifecycle.read()[1]
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"{reason}\n".encode())

    return {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}


class _Handler(BaseHTTPRequestHandler):
    """Looks a path up in the server's table."""

    protocol_version = "HTTP/1.1"
    server_version = "scoregate"
    sys_version = ""
    timeout = TIMEOUT_S
    error_content_type = TEXT
    error_message_format = "%(code)d %(message)s\n"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        table = cast("_Server", self.server).table
        route = table.get(self.path.partition("?")[0])
        if route is None:
            known = ", ".join(table)
            answer = Answer(HTTPStatus.NOT_FOUND, TEXT, f"no such page; try {known}\n".encode())
        else:
            try:
                answer = route(self.headers)
            except Exception:
                # The last resort of a port: whatever a page raises is logged whole.
                log.exception("%s failed", self.path)
                text = b"internal error; the server's log has the details\n"
                answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, text)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited name
        log.debug("sidecar: " + format, *args)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A threading server with a bound on its connections."""

    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self.address_family = family
        self.table: dict[str, Route] = {}
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("sidecar: connection from %s broke off", client_address)


class Sidecar:
    """The listening socket and its thread.

    Parameters
    ----------
    address, port
        Where to listen; port 0 takes a free one.
    table
        Path -> page.

    Raises
    ------
    StartError
        The address cannot be listened on.
    """

    def __init__(self, address: str, port: int, table: Mapping[str, Route]) -> None:
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
            self._server = _Server(found[0][0], (address, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(
                f"sidecar: cannot listen on {address}:{port}: {reason}; "
                "choose another with --sidecar-address and --sidecar-port"
            ) from None
        self._server.table = dict(table)
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_POLL_S,), name="sidecar", daemon=True
        )

    def start(self) -> None:
        """Answer requests, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening. Connections that are open end with the process."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
