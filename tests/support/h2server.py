"""gRPC servers that behave as they are told, to try the load generator on.

    with H2Server(lambda call: call.answer(call.body, delay_s=0.02)) as server:
        Generator(server.address, ...)

`H2Server` speaks HTTP/2 by the h2 package in an asyncio loop of a thread of its own; `RawServer`
gives each accepted socket to a function. Both listen on a free port of 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from tests.support.h2client import frame, text

JOIN_S = 10.0


@dataclass
class Call:
    """One request, whole, and the ways to answer it."""

    protocol: _Protocol
    stream: int
    received_s: float  # monotonic, when its last byte was read
    number: int  # over all connections, from 0
    headers: dict[str, str]
    body: bytes = b""

    @property
    def message(self) -> bytes:
        """The request's message without its prefix."""
        return self.body[5:]

    def answer(
        self,
        message: bytes | None,
        *,
        status: int | None = 0,
        http: int = 200,
        delay_s: float = 0.0,
        note: str = "",
        cut: int = 0,
        leave: bool = False,
    ) -> None:
        """Answer after a while.

        `cut` leaves out the last bytes, None for `status` the status; `leave` says GOAWAY in the
        same breath.
        """
        data = b"" if message is None else frame(message)[: len(message) + 5 - cut]
        loop = asyncio.get_running_loop()
        if delay_s:
            at_s = self.received_s + delay_s
            loop.call_at(at_s, self._send, data, status, http, note, leave)
        else:
            self._send(data, status, http, note, leave)

    def _send(self, data: bytes, status: int | None, http: int, note: str, leave: bool) -> None:
        h2c = self.protocol.h2
        trailers = [] if status is None else [("grpc-status", str(status))]
        trailers += [("grpc-message", note)] if note else []
        with contextlib.suppress(h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError):
            h2c.send_headers(
                self.stream, [(":status", str(http)), ("content-type", "application/grpc")]
            )
            for i in range(0, len(data), 16384):
                h2c.send_data(self.stream, data[i : i + 16384])
            if trailers:
                h2c.send_headers(self.stream, trailers, end_stream=True)
            else:
                h2c.end_stream(self.stream)
            if leave:
                h2c.close_connection(last_stream_id=self.stream)
            self.protocol.flush()
            self.protocol.server.service_s.append(time.monotonic() - self.received_s)

    def reset(self) -> None:
        """Reset the stream."""
        self.protocol.h2.reset_stream(self.stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        self.protocol.flush()

    def hang_up(self) -> None:
        """Close the connection without a word."""
        assert self.protocol.transport is not None
        self.protocol.transport.close()


class _Protocol(asyncio.Protocol):
    def __init__(self, server: H2Server) -> None:
        self.server = server
        self.transport: asyncio.Transport | None = None
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.calls: dict[int, Call] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.n_connections += 1
        self.server.transports.add(transport)
        self.h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.server.max_streams
            },
        )
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.server.transports.discard(self.transport)

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            # h2 knows no frames after its own GOAWAY.
            events = []
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                fields = {text(name): text(value) for name, value in event.headers}
                self.calls[event.stream_id] = Call(self, event.stream_id, now, -1, fields)
            elif isinstance(event, h2.events.DataReceived) and event.stream_id in self.calls:
                self.calls[event.stream_id].body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.calls.pop(event.stream_id, None)
                self.server.n_resets += 1
            elif isinstance(event, h2.events.StreamEnded) and event.stream_id in self.calls:
                call = self.calls.pop(event.stream_id)
                call.number, call.received_s = self.server.n_calls, now
                self.server.n_calls += 1
                self.server.serve(call)
        self.flush()


@dataclass
class H2Server:
    """A server whose behaviour is a function of the call."""

    serve: Callable[[Call], object]
    max_streams: int = 100
    n_calls: int = 0
    n_connections: int = 0
    n_resets: int = 0
    service_s: list[float] = field(default_factory=list)  # last byte read to answer written
    transports: set[asyncio.Transport] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(JOIN_S)
        return self

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        server = await self._loop.create_server(lambda: _Protocol(self), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self._ready.set()
        await self._end.wait()
        server.close()
        for transport in list(self.transports):
            transport.abort()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(JOIN_S)
        assert not self._thread.is_alive()


class RawServer:
    """Gives every accepted socket to a function; closes it when the function returns."""

    def __init__(self, serve: Callable[[socket.socket], object]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._one, args=(accepted,))
            self._threads.append(thread)
            thread.start()

    def _one(self, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError):
            accepted.settimeout(JOIN_S)
            self._serve(accepted)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ended.set()
        # Closing alone does not wake a thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(JOIN_S)
            assert not thread.is_alive()
