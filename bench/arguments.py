"""What the generator is asked for, looked at before anything is sent.

Rules: each function returns what the caller may use, or raises LoadInputError with the argument's
name, what it was and what it has to be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import LoadInputError
from bench.message import CHECKS, Message


def positive(name: str, value: float, most: float) -> float:
    """Return a number above 0 and at most `most`."""
    if not (isinstance(value, (int, float)) and math.isfinite(value) and 0 < value <= most):
        raise LoadInputError(f"{name} is {value!r}; it has to be above 0 and at most {most:g}")
    return value


def not_negative(name: str, value: float, most: float) -> float:
    """Return a number from 0 to `most`."""
    if not (isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= most):
        raise LoadInputError(f"{name} is {value!r}; it has to be 0 to {most:g}")
    return value


def headers(method: str, authority: str, timeout_s: float) -> list[tuple[bytes, bytes]]:
    """Return one request's headers, in the order of the wire."""
    us = max(1, round(timeout_s * 1e6))
    timeout = f"{us}u" if us < 10**8 else f"{max(1, us // 1000)}m"
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method.encode()),
        (b":authority", authority.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", b"scoregate-bench"),
        (b"grpc-timeout", timeout.encode()),
    ]


def checked(
    messages: Iterable[Message], check: str | None
) -> tuple[tuple[Message, ...], list[int]]:
    """Return the messages, and for each the check (index in CHECKS) that its answer gets."""
    if check is not None and check not in CHECKS:
        raise LoadInputError(f"check is {check!r}; it has to be one of {', '.join(CHECKS)}")
    messages = tuple(messages)
    if not messages:
        raise LoadInputError("there are no messages to send; give at least one")
    checks = []
    for i, message in enumerate(messages):
        if not isinstance(message, Message):
            raise LoadInputError(f"message {i} is a {type(message).__name__}, not a Message")
        method = message.method
        if not (method.startswith("/") and method.isascii() and method.isprintable()):
            raise LoadInputError(
                f"message {i}: {method!r} is no method's path; write /package.Service/Method"
            )
        wanted = message.check if check is None else check
        if (wanted == "bytes" and message.expected is None) or (
            wanted == "score" and message.expected_raw is None
        ):
            raise LoadInputError(f"message {i} has nothing to check {wanted} against")
        checks.append(CHECKS.index(wanted))
    return messages, checks


def whole(name: str, value: int) -> int:
    """Return a whole number above 0."""
    if not isinstance(value, int) or value < 1:
        raise LoadInputError(f"{name} is {value!r}; it has to be a whole number above 0")
    return value


def times(times_ns: Any) -> NDArray[np.int64]:
    """Return intended send times as the loop reads them: int64, C-contiguous, ascending from 0."""
    try:
        given = np.ascontiguousarray(times_ns)
    except (TypeError, ValueError) as error:
        raise LoadInputError(f"times_ns is no array of times: {error}") from None
    if given.ndim != 1 or given.size == 0 or given.dtype != np.int64:
        raise LoadInputError(
            f"times_ns is {given.dtype} of shape {given.shape}; it has to be int64, (n,), n > 0"
        )
    if given[0] < 0 or (np.diff(given) < 0).any():
        raise LoadInputError("times_ns has to ascend from 0")
    return given
