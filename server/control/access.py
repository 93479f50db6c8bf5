"""Who may call what at the control port.

Rules
-----
* Every method has a role here; one without is for admins, and a test fails.
* `authorization: Bearer TOKEN` says who calls. Health stays open to everybody: probes carry no
  tokens. Scoring calls here need the least role; the fast door knows no tokens at all.
* Without a tokens file everything is allowed, and changes are marked as not verified.
* A refused call is refused before its message is parsed.

The interceptor decides; who makes a change asks again for the name (`Access.caller`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import grpc

from server.config import ControlSettings
from server.control.failures import status_of
from server.control.tokens import Role, Token, TokenFile
from server.errors import AccessError, UnauthenticatedError

HEADER = "authorization"
SCHEME = "bearer"

CONTROL = "/scoregate.v1.Control/"
FEEDBACK = "/scoregate.v1.Feedback/"
ROLES: dict[str, Role] = {
    "/scoregate.v1.Scoring/Score": Role.READ,
    "/scoregate.v1.Scoring/GetModel": Role.READ,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.READ,
    CONTROL + "GetStatus": Role.READ,
    CONTROL + "ListModels": Role.READ,
    CONTROL + "GetHistory": Role.READ,
    CONTROL + "Watch": Role.READ,
    CONTROL + "GetDrift": Role.READ,
    CONTROL + "GetEvents": Role.READ,
    FEEDBACK + "GetQuality": Role.READ,
    FEEDBACK + "ReportOutcomes": Role.OPERATE,
    CONTROL + "LoadModel": Role.OPERATE,
    CONTROL + "UnloadModel": Role.OPERATE,
    CONTROL + "Deploy": Role.OPERATE,
    CONTROL + "SetTraffic": Role.OPERATE,
    CONTROL + "Promote": Role.OPERATE,
    CONTROL + "Rollback": Role.OPERATE,
    CONTROL + "SetThresholds": Role.OPERATE,
    CONTROL + "SetOverrides": Role.OPERATE,
    CONTROL + "SetLabels": Role.OPERATE,
    CONTROL + "Retire": Role.OPERATE,
    CONTROL + "SetDefaultModel": Role.OPERATE,
    CONTROL + "SetExploration": Role.OPERATE,
    CONTROL + "Freeze": Role.ADMIN,
}
OPEN = "/grpc.health.v1.Health/"

HOW = (
    "send `authorization: Bearer TOKEN` (the command line: SCOREGATE_TOKEN or --token-file); "
    "`scoregate token new` makes one"
)

# As grpcio gives it: (key, value) pairs.
Metadata = Iterable[tuple[str, str | bytes]]

log = logging.getLogger(__name__)


class Access:
    """The tokens of a control port, and what they allow. Safe from any thread.

    Parameters
    ----------
    tokens
        Who may call; None: everybody may do everything.
    """

    def __init__(self, tokens: TokenFile | None = None) -> None:
        self._tokens = tokens

    def caller(self, metadata: Metadata) -> Token | None:
        """Return who calls; None where no tokens are known.

        Raises
        ------
        UnauthenticatedError
            No token, or one that is not known.
        """
        if self._tokens is None:
            return None
        values = [value for key, value in metadata if key == HEADER]
        if not values:
            raise UnauthenticatedError(f"this control port needs a token: {HOW}")
        scheme, _, secret = str(values[0]).strip().partition(" ")
        if len(values) > 1 or scheme.lower() != SCHEME or not secret.strip():
            raise UnauthenticatedError(f"the authorization metadata is not one bearer token: {HOW}")
        token = self._tokens.find(secret.strip())
        if token is None:
            raise UnauthenticatedError(
                f"the token is not known here (mistyped, of another server, or revoked): {HOW}"
            )
        return token

    def check(self, method: str, metadata: Metadata) -> None:
        """Refuse a call that its caller may not make.

        Parameters
        ----------
        method
            "/package.Service/Method".
        metadata
            Of the call.

        Raises
        ------
        UnauthenticatedError
            No token, or one that is not known.
        AccessError
            The token's role is not enough.
        """
        if self._tokens is None or method.startswith(OPEN):
            return
        token = self.caller(metadata)
        needed = ROLES.get(method, Role.ADMIN)
        if token is not None and token.rank < needed:
            raise AccessError(
                f"{method.rpartition('/')[2]} needs the role {needed.label}; the token "
                f"{token.name} has {token.role}"
            )


def open_access(settings: ControlSettings) -> Access:
    """Return the access that settings ask for.

    Raises
    ------
    InputError
        The tokens file cannot be used.
    """
    return Access(TokenFile(Path(settings.tokens_file)) if settings.tokens_file else None)


class AccessInterceptor(grpc.ServerInterceptor):
    """Refuses calls before their message is parsed."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler, or one of its kind that refuses."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        try:
            self._access.check(method, handler_call_details.invocation_metadata or ())
        except AccessError as error:
            return _refusal(handler, method, error)
        return handler


def _refusal(
    handler: grpc.RpcMethodHandler[Any, Any], method: str, error: AccessError
) -> grpc.RpcMethodHandler[Any, Any]:
    code, text = status_of(error)

    def refuse(_: Any, context: grpc.ServicerContext) -> NoReturn:
        log.info("refused %s to %s: %s", method, context.peer(), text)
        context.abort(code, text)
        raise AssertionError("abort raises")

    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)
