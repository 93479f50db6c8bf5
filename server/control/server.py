"""Assembles the control port: services, health, reflection, access, TLS, one failure table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import (  # type: ignore[import-untyped]
    health,
    health_pb2,
    health_pb2_grpc,
)
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from server.config import ControlSettings
from server.control.access import Access, AccessInterceptor
from server.control.failures import FailureInterceptor
from server.control.feedback import MAX_STREAMS, FeedbackServicer
from server.control.relay import Loops, ScoringRelay
from server.control.servicer import ControlServicer
from server.control.watch import MAX_WATCHERS
from server.errors import StartError
from server.feedback.opening import Feedback
from server.lifecycle import Lifecycle, State
from server.pb.scoregate.v1 import (
    control_pb2,
    control_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
    scoring_pb2,
)

SCORING = scoring_pb2.DESCRIPTOR.services_by_name["Scoring"].full_name
CONTROL = control_pb2.DESCRIPTOR.services_by_name["Control"].full_name
FEEDBACK = feedback_pb2.DESCRIPTOR.services_by_name["Feedback"].full_name
# Calls that may wait for a worker, per worker; more are refused with RESOURCE_EXHAUSTED.
CALLS_PER_WORKER = 64
# Of a change: ten thousand keys of a kilobyte can be pinned in one. Answers have no limit here.
MAX_CHANGE_BYTES = 16 << 20


class ControlPort:
    """The grpcio server.

    Parameters
    ----------
    settings
        Address, port, workers.
    max_message_bytes
        Of a scoring request, as at the fast door.
    loops
        Who answers scoring calls.
    servicer
        Who answers Control.
    lifecycle
        What the health service follows.
    access
        Who may call what; None: everybody everything.
    credentials
        For TLS (`tls.server_credentials`); None: calls are not encrypted.
    feedback
        Who takes outcomes; None: nobody.

    Raises
    ------
    StartError
        The address cannot be listened on.
    """

    def __init__(
        self,
        settings: ControlSettings,
        max_message_bytes: int,
        loops: Loops,
        servicer: ControlServicer,
        lifecycle: Lifecycle,
        access: Access | None = None,
        credentials: grpc.ServerCredentials | None = None,
        feedback: Feedback | None = None,
    ) -> None:
        # A stream keeps its thread for as long as it lasts: those are extra, made when needed.
        threads = settings.max_workers + MAX_WATCHERS + MAX_STREAMS
        self._server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="control"),
            handlers=[ScoringRelay(loops, max_message_bytes)],
            interceptors=[AccessInterceptor(access or Access()), FailureInterceptor()],
            options=[
                ("grpc.so_reuseport", 0),  # a second server on the port must fail
                ("grpc.max_receive_message_length", max(max_message_bytes, MAX_CHANGE_BYTES)),
            ],
            maximum_concurrent_rpcs=settings.max_workers * CALLS_PER_WORKER,
        )
        control_pb2_grpc.add_ControlServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]
        feedback_pb2_grpc.add_FeedbackServicer_to_server(  # type: ignore[no-untyped-call]
            FeedbackServicer(feedback, access), self._server
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SCORING, CONTROL, FEEDBACK, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        lifecycle.listen(self._follow)
        address = settings.address
        host = f"[{address}]" if ":" in address and not address.startswith("[") else address
        where = f"{host}:{settings.port}"
        try:
            self.port: int = (
                self._server.add_insecure_port(where)
                if credentials is None
                else self._server.add_secure_port(where, credentials)
            )
        except RuntimeError:
            raise StartError(
                f"control port: cannot listen on {where}: taken, or no address of "
                "this machine; choose another with --control-address and --control-port"
            ) from None

    def start(self) -> None:
        """Answer calls."""
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Refuse new calls, give those in flight `grace_s`, and wait for the end."""
        self._server.stop(grace_s).wait()

    def _follow(self, state: State) -> None:
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if state is State.SERVING
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for service in ("", SCORING, CONTROL, FEEDBACK):
            self._health.set(service, status)
