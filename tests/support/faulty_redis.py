"""A proxy in front of a redis-server that answers as badly as it is told to.

    with FaultyRedis(redis.socket) as proxy:
        proxy.delay_s = 0.2            # every answer, that late; pipelines stay pipelines
        proxy.answer = refuse(b"-OOM command not allowed\\r\\n")
        proxy.heal()

Works on answers to GET only: what it does to them is a function of the true answer. A function
that returns an `Answer` with `close` ends the connection after those bytes. Handshakes pass, but
for the delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self


class Answer(NamedTuple):
    """Bytes to send instead of the true answer."""

    data: bytes
    close: bool = False


Fault = Callable[[bytes], Answer]


def intact(reply: bytes) -> Answer:
    """Pass the true answer on."""
    return Answer(reply)


def cut(n_bytes: int) -> Fault:
    """Close after the answer's first bytes."""
    return lambda reply: Answer(reply[:n_bytes], close=True)


def instead(data: bytes) -> Fault:
    """Send something else."""
    return lambda reply: Answer(data)


def flip_record(reply: bytes) -> Answer:
    """Turn every bit of the record's fingerprint; the frame around it stays whole."""
    header, newline, record = reply.partition(b"\r\n")
    if not reply.startswith(b"$") or len(record) < 8:
        return Answer(reply)
    return Answer(header + newline + bytes(byte ^ 0xFF for byte in record[:8]) + record[8:])


class FaultyRedis:
    """The proxy, on a Unix socket of its own, in a thread of its own."""

    def __init__(self, upstream: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sgproxy-"))
        self.socket = str(self.folder / "proxy.sock")
        self.delay_s = 0.0
        self.answer: Fault = intact
        self.n_gets = 0  # that reached the proxy
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-redis")

    @property
    def address(self) -> str:
        """The proxy, as the settings take it."""
        return f"unix:{self.socket}"

    def heal(self) -> None:
        """Be a good proxy again."""
        self.delay_s = 0.0
        self.answer = intact

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self.socket)

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                from_redis, to_redis = await asyncio.open_unix_connection(self._upstream)
            except OSError:
                writer.close()
                return
            owed: asyncio.Queue[tuple[bool, float]] = asyncio.Queue()
            asking = asyncio.ensure_future(self._ask(reader, to_redis, owed))
            answering = asyncio.ensure_future(self._answer(from_redis, writer, owed))
            try:
                await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (asking, answering):
                    task.cancel()
                await asyncio.gather(asking, answering, return_exceptions=True)
                writer.close()
                to_redis.close()

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        to_redis: asyncio.StreamWriter,
        owed: asyncio.Queue[tuple[bool, float]],
    ) -> None:
        while True:
            frame = await read_frame(reader)
            is_get = frame.startswith(b"*2\r\n$3\r\nGET\r\n")
            self.n_gets += is_get
            owed.put_nowait((is_get, self._loop.time() + self.delay_s))
            to_redis.write(frame)

    async def _answer(
        self,
        from_redis: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        owed: asyncio.Queue[tuple[bool, float]],
    ) -> None:
        while True:
            is_get, due = await owed.get()
            reply = await read_frame(from_redis)
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            answer = self.answer(reply) if is_get else Answer(reply)
            writer.write(answer.data)
            if answer.close:
                await writer.drain()
                return


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Read one value of RESP2, with all that is in it."""
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind == b"$" and int(rest) >= 0:
        return line + await reader.readexactly(int(rest) + 2)
    if kind == b"*":
        return line + b"".join([await read_frame(reader) for _ in range(int(rest))])
    return line
