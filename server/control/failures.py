"""From exceptions to gRPC status: one table, and the interceptor that applies it.

An exception of ours carries a message for people and is answered with it. Any other is a defect:
logged whole, answered as INTERNAL without detail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc

from fastpath import errors as fastpath_errors
from server import errors
from server.rollout.database import DamagedJournalError
from server.rollout.rollout import NothingServableError

log = logging.getLogger(__name__)

Code = grpc.StatusCode

# Every subclass of the two roots stands here itself; the roots are for what has no class yet.
CODE_BY_ERROR: dict[type[Exception], grpc.StatusCode] = {
    errors.ScoregateError: Code.INTERNAL,
    errors.ConfigError: Code.INVALID_ARGUMENT,
    errors.InputError: Code.INVALID_ARGUMENT,
    errors.BundleError: Code.FAILED_PRECONDITION,
    errors.ParityError: Code.FAILED_PRECONDITION,
    errors.ExportError: Code.INVALID_ARGUMENT,
    errors.StartError: Code.FAILED_PRECONDITION,
    errors.NotFoundError: Code.NOT_FOUND,
    NothingServableError: Code.FAILED_PRECONDITION,
    errors.CallError: Code.UNAVAILABLE,
    errors.RefusedError: Code.INVALID_ARGUMENT,
    errors.JournalError: Code.INTERNAL,
    DamagedJournalError: Code.DATA_LOSS,
    errors.ChangeError: Code.INVALID_ARGUMENT,
    errors.ConflictError: Code.ABORTED,
    errors.AccessError: Code.PERMISSION_DENIED,
    errors.UnauthenticatedError: Code.UNAUTHENTICATED,
    errors.FeatureStoreError: Code.UNAVAILABLE,
    errors.FeedbackError: Code.UNAVAILABLE,
    fastpath_errors.FastpathError: Code.INTERNAL,
    fastpath_errors.ModelError: Code.FAILED_PRECONDITION,
    fastpath_errors.SchemaError: Code.FAILED_PRECONDITION,
    fastpath_errors.PlanError: Code.FAILED_PRECONDITION,
    fastpath_errors.RoutingError: Code.INVALID_ARGUMENT,
    fastpath_errors.RequestError: Code.INVALID_ARGUMENT,
    fastpath_errors.RuntimeLibraryError: Code.FAILED_PRECONDITION,
    fastpath_errors.ListenError: Code.UNAVAILABLE,
    fastpath_errors.LoopError: Code.UNAVAILABLE,
    fastpath_errors.StoreError: Code.FAILED_PRECONDITION,
}
CODE_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in Code}

OURS = "/scoregate."
UNKNOWN_TEXT = "internal error; the server's log has the details"


class RpcFailure(Exception):  # noqa: N818 - not an error of the server: an answer
    """A call that ends with a status other than OK, as a loop answered it."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the status and the text that a caller gets for an exception."""
    if isinstance(error, RpcFailure):
        return error.code, error.text
    for kind in type(error).__mro__:
        if kind in CODE_BY_ERROR:
            return CODE_BY_ERROR[kind], str(error)
    return Code.INTERNAL, UNKNOWN_TEXT


class FailureInterceptor(grpc.ServerInterceptor):
    """Ends calls that raised with the status of the table."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of a call; libraries' own streams pass unchanged."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                _guarded(handler.unary_unary, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        # The health service's watch answers by a callback, which grpcio finds by this attribute.
        if handler.unary_stream is not None and not getattr(
            handler.unary_stream, "experimental_non_blocking", False
        ):
            return grpc.unary_stream_rpc_method_handler(
                _guarded_stream(handler.unary_stream, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.stream_stream is not None and method.startswith(OURS):
            return grpc.stream_stream_rpc_method_handler(
                _guarded_stream(handler.stream_stream, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return handler


def _guarded(answer: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], Any]:
    def guarded(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return answer(request, context)
        except Exception as error:  # noqa: BLE001 - the last resort of a port
            _abort(error, method, context)

    return guarded


def _guarded_stream(
    answer: Callable[[Any, Any], Iterator[Any]], method: str
) -> Callable[[Any, Any], Iterator[Any]]:
    def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from answer(request, context)
        except grpc.RpcError:
            # The requests' iterator says so when the caller is gone; the library knows its own.
            raise
        except Exception as error:  # noqa: BLE001 - the last resort of a port
            _abort(error, method, context)

    return guarded


def _abort(error: Exception, method: str, context: grpc.ServicerContext) -> NoReturn:
    code, text = status_of(error)
    if text is UNKNOWN_TEXT:
        log.error("%s raised", method, exc_info=error)
    context.abort(code, text)
    raise AssertionError("abort raises")
