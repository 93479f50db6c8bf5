"""What the tests of the load generator share: messages, lenient limits, what every run keeps."""

from __future__ import annotations

import json
from typing import Any

from bench.generator import Generator, Limits, LoadResult, Message
from tests.support.h2client import ECHO

ANY_MACHINE = Limits(
    max_lag_p99_ms=1e6,
    max_late_share=1,
    max_stall_ms=1e6,
    max_clock_jump_ms=1e6,
    max_busy_share=1,
)


def echoes(*sizes: int) -> list[Message]:
    """Return messages that differ, and whose answer is the message."""
    bodies = [bytes((i * 31 + j) % 256 for j in range(n)) for i, n in enumerate(sizes)]
    return [Message(ECHO, body, body) for body in bodies]


def one(message: bytes = b"x", expected: bytes | None = None) -> list[Message]:
    return [Message(ECHO, message, expected)]


def load(address: str, messages: list[Message] | None = None, **options: Any) -> Generator:
    return Generator(address, messages or one(), **{"limits": ANY_MACHINE, **options})


def assert_whole(result: LoadResult) -> None:
    """Check what must hold of every run."""
    assert result.n_sent >= result.n_answered == result.latency.count == result.service_time.count
    assert result.lag.count == result.n_sent
    assert result.n_answered == sum(result.status_counts.values())
    assert result.n_scheduled == result.n_answered + sum(result.transport_errors.values())
    assert sum(row.calls for row in result.series) == result.n_scheduled
    assert sum(row.errors for row in result.series) == result.n_errors + result.n_wrong
    assert result.valid == (not result.invalid_reasons)
    back = LoadResult.from_json(json.loads(json.dumps(result.to_json())))
    assert back.latency.encode() == result.latency.encode()
    assert back.to_json() == result.to_json()
