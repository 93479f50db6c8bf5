"""What is sent: a method, a serialized message, and what its answer has to be."""

from __future__ import annotations

import struct
from dataclasses import dataclass

CHECKS = ("none", "bytes", "score")


@dataclass(frozen=True, slots=True)
class Message:
    """One request.

    Parameters
    ----------
    method
        Path of a unary method: "/package.Service/Method".
    body
        The serialized message, without gRPC's prefix.
    expected
        The whole serialized answer, for the check "bytes".
    expected_raw
        `ScoreResponse.raw_score`, for the check "score"; compared bit for bit as a float32.
    """

    method: str
    body: bytes
    expected: bytes | None = None
    expected_raw: float | None = None

    @property
    def check(self) -> str:
        """The strictest check that it can stand: "bytes", "score" or "none"."""
        if self.expected is not None:
            return "bytes"
        return "none" if self.expected_raw is None else "score"

    @property
    def framed(self) -> bytes:
        """The message as gRPC sends it: not compressed, length in big-endian, body."""
        return struct.pack(">BI", 0, len(self.body)) + self.body
