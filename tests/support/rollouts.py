"""A rollout over a repository, with an engine that shows what serves; and harm done to bundles."""

from __future__ import annotations

import json
import time
from pathlib import Path

from fastpath.engine import Engine
from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from server.config import RolloutSettings, Settings
from server.control.describe import describe_model
from server.pb.scoregate.v1 import scoring_pb2 as pb
from server.rollout.change import Author
from server.rollout.opening import open_rollout
from server.rollout.verbs import Verbs
from tests.support.serving import FEATURES

ANNA = Author("anna", is_verified=True, why="because")


class World:
    """A rollout over a repository, and an engine that shows what serves."""

    def __init__(self, repository: Path, **rollout: object) -> None:
        self.path = repository
        self.board = PlanBoard()
        self.metrics = Metrics(1)
        settings = Settings(
            repository=str(repository),
            rollout=RolloutSettings(**rollout),  # type: ignore[arg-type]
        )
        self.rollout = open_rollout(settings, self.board, self.metrics, describe_model)
        self.verbs = Verbs(self.rollout)
        self.engine = Engine(self.board, self.metrics)

    def score(self, key: str = "", model: str = "") -> pb.ScoreResponse:
        request = pb.ScoreRequest(request_id="r", routing_key=key, model=model)
        for name in FEATURES:
            request.named.values[name].number = 1.0
        [(status, body, text)] = self.engine.answer(
            [request.SerializeToString()], now_ns=time.monotonic_ns()
        )
        assert status == 0, text
        return pb.ScoreResponse.FromString(body)

    def split(self) -> dict[str, tuple[str, int]]:
        return {arm.name: (arm.version, arm.weight_basis_points) for arm in self.rollout.arms}

    def verbs_of_journal(self) -> list[str]:
        return [entry.verb for entry in self.rollout.journal.entries(100)][::-1]


def damaged(path: Path) -> None:
    """Change a byte in the middle of a bundle's model."""
    data = bytearray((path / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "model.onnx").write_bytes(data)


def replaced(path: Path) -> None:
    """Put another content under the same version."""
    manifest = path / "manifest.json"
    document = json.loads(manifest.read_text("utf-8"))
    manifest.write_text(json.dumps({**document, "created": "2031-01-01T00:00:00Z"}), "utf-8")
