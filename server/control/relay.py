"""Scoring at the control port: raw bytes to a loop, raw bytes back.

Nothing is parsed here, so the same request gets the same answer at both doors, errors included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import grpc

from server.control.failures import CODE_BY_NUMBER, RpcFailure

METHODS = ("/scoregate.v1.Scoring/Score", "/scoregate.v1.Scoring/GetModel")
# Longer than any loop waits; grpcio gives this order of magnitude where a call has no deadline.
NO_DEADLINE_S = 10 * 365 * 86_400.0


class Loops(Protocol):
    """The part of `fastpath.loop.LoopGroup` that a relay needs."""

    def call(self, method: str, message: bytes, timeout_s: float | None) -> tuple[int, bytes, str]:
        """Answer one call on a loop thread."""


class ScoringRelay(grpc.GenericRpcHandler):
    """Serves the methods of `scoregate.v1.Scoring` that a loop answers.

    Parameters
    ----------
    loops
        Who answers.
    max_message_bytes
        Of a request, as at the fast door. The port itself takes larger ones, for changes.
    """

    def __init__(self, loops: Loops, max_message_bytes: int) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            method: grpc.unary_unary_rpc_method_handler(
                _relay(loops, method, max_message_bytes), None, None
            )
            for method in METHODS
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return the handler of a method, or None: UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)


def _relay(
    loops: Loops, method: str, max_message_bytes: int
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def answer(message: bytes, context: grpc.ServicerContext) -> bytes:
        if len(message) > max_message_bytes:
            raise RpcFailure(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"a message of {len(message)} bytes; up to {max_message_bytes} are taken "
                "(fast.max_message_bytes)",
            )
        remaining_s: float | None = context.time_remaining()
        if remaining_s is not None and remaining_s > NO_DEADLINE_S:
            remaining_s = None
        number, body, text = loops.call(method, message, remaining_s)
        if number:
            raise RpcFailure(CODE_BY_NUMBER[number], text)
        return body

    return answer
