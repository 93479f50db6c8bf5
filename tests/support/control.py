"""A control port in this process, over a real rollout; and its calls.

with ControlWorld(repository) as world:
    world.control.Deploy(pb.DeployRequest(version="1", traffic_basis_points=1000))
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import grpc
import pytest

from fastpath.engine import Engine
from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from server.config import ControlSettings, FeatureSettings, RedisSettings, Settings
from server.control.access import open_access
from server.control.describe import describe_model
from server.control.server import ControlPort
from server.control.servicer import ControlServicer
from server.control.tls import server_credentials
from server.control.tokens import new_token, write_tokens
from server.lifecycle import Lifecycle, State
from server.pb.scoregate.v1 import control_pb2 as pb
from server.pb.scoregate.v1 import scoring_pb2
from server.rollout.opening import open_rollout
from server.stores import FeatureStores
from tests.support.clients import control
from tests.support.serving import FEATURES, MODEL

Result = TypeVar("Result")


class NoLoops:
    """Answers every scoring call with nothing."""

    def call(self, method: str, message: bytes, timeout_s: float | None) -> tuple[int, bytes, str]:
        return 0, b"", ""


class ControlWorld:
    """A rollout of a repository, served at a control port of this process."""

    def __init__(
        self,
        repository: Path,
        settings: ControlSettings | None = None,
        models: tuple[str, ...] = (f"{MODEL}@1",),
        target: Callable[[int], grpc.Channel] | None = None,
    ) -> None:
        self.board = PlanBoard()
        self.metrics = Metrics(1)
        self.lifecycle = Lifecycle()
        self.rollout = open_rollout(
            Settings(repository=str(repository)), self.board, self.metrics, describe_model
        )
        self.engine = Engine(self.board, self.metrics)
        control_settings = settings or ControlSettings(port=0)
        access = open_access(control_settings)
        self._stores = FeatureStores(FeatureSettings(), RedisSettings(), 1)
        servicer = ControlServicer(
            self.rollout, self.metrics, self.lifecycle, list, {}, self._stores, access
        )
        self.port = ControlPort(
            control_settings,
            4 << 20,
            NoLoops(),
            servicer,
            self.lifecycle,
            access,
            server_credentials(control_settings),
        )
        self.rollout.start(models, MODEL)
        self.lifecycle.move(State.SERVING)
        self.port.start()
        self.channel = (target or plain)(self.port.port)
        self.control: Any = control(self.channel)

    def score(self, n: int = 1, key: str = "") -> scoring_pb2.ScoreResponse:
        """Score a row on the engine, so that there is traffic; return the last answer."""
        request = scoring_pb2.ScoreRequest(request_id="r", routing_key=key)
        for name in FEATURES:
            request.named.values[name].number = 1.0
        for _ in range(n):
            [(status, body, text)] = self.engine.answer(
                [request.SerializeToString()], now_ns=time.monotonic_ns()
            )
            assert status == 0, text
        return scoring_pb2.ScoreResponse.FromString(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lifecycle.move(State.DRAINING)
        self.channel.close()
        self.port.stop(0.5)
        self._stores.stop()
        self.rollout.close()


def plain(port: int) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{port}")


class Refused(NamedTuple):
    """How a call failed."""

    code: grpc.StatusCode
    text: str


def refused(call: Callable[[], object]) -> Refused:
    """Return how a call fails; it has to."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return Refused(error.code(), error.details() or "")


def arms(plan: pb.PlanDescription, model: str = MODEL) -> dict[str, tuple[str, int]]:
    """Return what serves of a model: arm -> (version, basis points)."""
    [found] = [one for one in plan.models if one.model == model]
    return {arm.arm: (arm.version, arm.weight_basis_points) for arm in found.arms}


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a token."""
    return (("authorization", f"Bearer {secret}"),)


def tokens_file(path: Path, **roles: str) -> dict[str, str]:
    """Write a tokens file of one token per name=role; return name -> secret."""
    made = {name: new_token(name, role) for name, role in roles.items()}
    write_tokens(path, [token for token, _ in made.values()])
    return {name: secret for name, (_, secret) in made.items()}


def wait_for(probe: Callable[[], Result | None], timeout_s: float = 10.0) -> Result:
    """Return the first result of a probe that is not None or False."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        found = probe()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


def make_certificate(folder: Path, name: str, authority: str = "") -> tuple[Path, Path]:
    """Make NAME.pem and NAME.key with openssl: self-signed, or signed by an authority made so."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(chain)),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
    ]
    if authority:
        command += ["-CA", str(folder / f"{authority}.pem")]
        command += ["-CAkey", str(folder / f"{authority}.key")]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return chain, key
