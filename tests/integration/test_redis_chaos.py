"""The law of the Redis store under servers that do anything: each read gets its own answer or none.

Two servers answer a GET with its own key, in pieces, late, with an error, with junk, or close
the connection. Reads are begun and abandoned at random, and hedged. Whatever is read must be the
key that was asked, every read must end once, and the store must be well again when the servers
are. One thing they do not do is answer a GET twice: replies carry no name, so only their number
says whose they are.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from typing import Self

import pytest

from fastpath.store_probe import StoreProbe
from fastpath.store_redis import BreakerSpec, RedisStore

GET = re.compile(rb"\*2\r\n\$3\r\nGET\r\n\$\d+\r\n([^\r]+)\r\n")
PING = b"*1\r\n$4\r\nPING\r\n"
PATIENCE_S = 60.0


class Chaos:
    """A server on a free port; `calm` makes it a good one."""

    def __init__(self, seed: int) -> None:
        self.calm = False
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with connection, contextlib.suppress(OSError):
                    self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        unread = b""
        while data := connection.recv(65536):
            unread += data
            answers = []
            while unread:
                match = GET.match(unread)
                if match is None and not unread.startswith(PING):
                    break
                unread = unread[match.end() if match else len(PING) :]
                answers.append(self._answer(match[1]) if match else b"+PONG\r\n")
            if not self._send(connection, b"".join(answers)):
                return

    def _answer(self, key: bytes) -> bytes:
        draw = 1.0 if self.calm else self._random.random()
        if draw < 0.002:
            return b":42\r\n"
        if draw < 0.05:
            return b"-LOADING later\r\n"
        return b"$%d\r\n%s\r\n" % (len(key) * 20, key * 20)

    def _send(self, connection: socket.socket, data: bytes) -> bool:
        while data:
            n = len(data) if self.calm else self._random.randint(1, 4000)
            connection.sendall(data[:n])
            data = data[n:]
            if not self.calm and self._random.random() < 0.1:
                time.sleep(self._random.random() * 0.004)
            if not self.calm and self._random.random() < 0.02:
                return False
        return True


@pytest.mark.parametrize("hedge_after_us", [0, 300])
def test_each_read_gets_its_own_answer_or_none(hedge_after_us: int) -> None:
    seed = int(os.environ.get("SCOREGATE_SEED", random.SystemRandom().randrange(2**32)))
    print(f"SCOREGATE_SEED={seed}")
    draw = random.Random(seed)
    seen: Counter[str] = Counter()
    with Chaos(seed + 1) as primary, Chaos(seed + 2) as replica, contextlib.ExitStack() as cleanup:
        store = RedisStore(
            primary.address,
            replica=replica.address,
            hedge_after_us=hedge_after_us,
            breaker=BreakerSpec(window_ms=50, min_reads=20, cool_off_ms=1, max_cool_off_ms=4),
            stall_us=10_000,
            seed=seed,
        )
        probe = StoreProbe(store)
        cleanup.callback(probe.close)
        waiting: dict[int, bytes] = {}
        for step in range(3000):
            for i in range(draw.randint(0, 6)):
                key = b"customer:%d:%d" % (step, i)
                waiting[probe.begin(key)] = key
            probe.turn(draw.random() * 0.002)
            for ticket in list(waiting):
                answer = probe.take(ticket)
                if answer is not None:
                    outcome, record = answer
                    key = waiting.pop(ticket)
                    seen[outcome] += 1
                    if outcome == "hit":
                        assert record == (b"scoregate:" + key) * 20
                elif draw.random() < 0.05:
                    probe.abandon(ticket, timed_out=draw.random() < 0.5)
                    waiting.pop(ticket)
                    seen["abandoned"] += 1
        primary.calm = replica.calm = True
        give_up = time.monotonic() + PATIENCE_S
        while waiting or probe.get(b"customer:last")[0] != "hit":
            assert time.monotonic() < give_up, store.stats()
            probe.turn(0.01)
            waiting = {t: k for t, k in waiting.items() if probe.take(t) is None}
        stats = store.stats()
        print(dict(seen), {name: n for name, n in stats.items() if n})
        assert stats["pending"] == 0
        assert probe.n_surplus == 0
        assert min(seen["hit"], seen["abandoned"], stats["late_replies"]) > 0
        assert stats["disconnects_closed"] > 0
        assert (stats["hedged"] > 0) == (hedge_after_us > 0)
