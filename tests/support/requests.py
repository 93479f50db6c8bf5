"""ScoreRequests for tests, and what the official protobuf runtime makes of any bytes.

The reference is upb, the runtime behind the `protobuf` package. `assert_agrees` is the law of
`fastpath.wire`: what it refuses, we refuse; what it accepts, we understand the same way, within
the limits that are ours.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from fastpath.errors import RequestError
from fastpath.wire import decode
from server.pb.scoregate.v1 import scoring_pb2 as pb

MAX_VALUES = 1024
TEXTS = ("", "a", "champion", "zażółć", "日本語テキスト", "\U0001f4b3", "x" * 130, "\0")


def reference(message: pb.ScoreRequest) -> dict[str, Any]:
    """Return the official message in the form of `fastpath.wire.decode`."""
    named = {}
    for name, value in message.named.values.items():
        kind = value.WhichOneof("kind")
        named[name] = getattr(value, kind) if kind else None
    return {
        "request_id": message.request_id,
        "event_time_ms": message.event_time_ms,
        "entities": [(e.role, e.type, e.id) for e in message.entities],
        "routing_key": message.routing_key,
        "model": message.model,
        "provenance": message.options.provenance,
        "timings": message.options.timings,
        "reasons": message.options.reasons,
        "form": message.WhichOneof("features"),
        "layout": message.dense.layout,
        "n_values": len(message.dense.values),
        "values": list(message.dense.values)[:MAX_VALUES],
        "named": named,
    }


def limit_exceeded(message: pb.ScoreRequest) -> str | None:
    """Return a word of the error text that our own limits demand for a message, if any."""
    if len(message.request_id.encode()) > 128:
        return "request_id"
    if len(message.routing_key.encode()) > 1024:
        return "routing_key"
    if len(message.entities) > 16:
        return "entities"
    return "named" if len(message.named.values) > 1024 else None


def assert_agrees(data: bytes) -> bool:
    """Compare one input with the official runtime; return whether it was accepted."""
    try:
        message = pb.ScoreRequest.FromString(data)
    except DecodeError:
        with pytest.raises(RequestError):
            decode(data)
        return False
    limit = limit_exceeded(message)
    if limit:
        with pytest.raises(RequestError, match=limit):
            decode(data)
        return False
    ours, theirs = dict(decode(data)), reference(message)
    # repr tells NaN from NaN, 1 from 1.0 from True, and -0.0 from 0.0; maps have no order.
    ours["named"] = sorted(map(repr, decode(data)["named"].items()))
    theirs["named"] = sorted(map(repr, theirs["named"].items()))
    assert repr(ours) == repr(theirs), data.hex()
    return True


def length_delimited(tag: int, body: bytes) -> bytes:
    """Return a field of a one-byte tag and a length."""
    size, length = len(body), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([tag]) + length + bytes([size]) + body


def packed(*values: float) -> bytes:
    """Return `DenseFeatures.values` as one packed field."""
    return length_delimited(0x12, struct.pack(f"<{len(values)}f", *values))


def random_request(rng: random.Random) -> pb.ScoreRequest:
    """Return a message with any subset of the fields."""
    message = pb.ScoreRequest()
    if rng.random() < 0.6:
        message.request_id = rng.choice(TEXTS)
    if rng.random() < 0.6:
        message.event_time_ms = rng.choice([1, 1_700_000_000_000, -1, -(2**63), 2**63 - 1])
    for _ in range(rng.randrange(4)):
        message.entities.add(
            role=rng.choice(TEXTS), type=rng.choice(TEXTS), id=str(rng.getrandbits(40))
        )
    if rng.random() < 0.3:
        message.routing_key = rng.choice(TEXTS)
    if rng.random() < 0.5:
        message.model = rng.choice(TEXTS)
    if rng.random() < 0.4:
        message.options.provenance = rng.random() < 0.5
        message.options.timings = rng.random() < 0.5
    form = rng.randrange(3)
    if form == 0:
        message.dense.layout = rng.getrandbits(64)
        message.dense.values.extend(rng.gauss(0, 100) for _ in range(rng.randrange(8)))
    elif form == 1:
        message.named.SetInParent()
        for _ in range(rng.randrange(6)):
            value = message.named.values[rng.choice(TEXTS)]
            kind = rng.randrange(4)
            if kind == 0:
                value.number = rng.gauss(0, 1e30)
            elif kind == 1:
                value.flag = rng.random() < 0.5
            elif kind == 2:
                value.text = rng.choice(TEXTS)
    return message
