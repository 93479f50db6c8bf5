"""A plan with stored features, an engine with a scripted store, and records to fill it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fastpath.engine import Engine
from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from fastpath.record import encode_records, record_key
from fastpath.scripted_store import ScriptedBatch, ScriptedStore
from fastpath.spec import FallbackLimits, FeatureSpec, GroupSpec, group_fingerprint
from server.pb.scoregate.v1 import scoring_pb2 as pb
from tests.support.plans import linear_arm, make_plan

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
WALL_NS = NOW_MS * 1_000_000

CUSTOMER = GroupSpec(
    "customer",
    "customer",
    (("n_day", "numeric"), ("mean", "numeric"), ("vip", "boolean")),
    ttl_s=3600.0,
    batch_max_age_s=7 * 86_400.0,
    read_budget_us=5000,
)
TERMINAL = GroupSpec(
    "terminal", "terminal", (("risk", "numeric"),), ttl_s=60.0, read_budget_us=2000
)
SPECS = (
    FeatureSpec("amount", "numeric", default=1.0, minimum=0.0, maximum=1e6),
    FeatureSpec("n_day", "numeric", default=2.0, minimum=0.0, maximum=1000.0, source="customer"),
    FeatureSpec("mean", "numeric", default=3.0, source="customer", ttl_s=10.0),
    FeatureSpec("vip", "boolean", default=0.0, source="customer"),
    FeatureSpec("risk", "numeric", default=0.5, maximum=1.0, source="terminal"),
)
GROUPS = (CUSTOMER, TERMINAL)


def record(
    group: GroupSpec,
    values: Sequence[float],
    *,
    age_ms: int = 0,
    columns: Sequence[tuple[str, str]] | None = None,
) -> bytes:
    """Return the record of one entity as it was `age_ms` before NOW_MS."""
    fingerprint = group_fingerprint(group.name, columns or group.columns)
    encoded = encode_records(
        fingerprint,
        np.array([NOW_MS - age_ms], dtype=np.int64),
        np.array([values], dtype=np.float32),
    )
    return encoded.tobytes()


class StoredWorld:
    """An engine over a scripted store; by default one plan with GROUPS."""

    def __init__(
        self,
        *,
        groups: Sequence[GroupSpec] = GROUPS,
        specs: Sequence[FeatureSpec] = SPECS,
        limits: FallbackLimits | None = None,
        batch: Mapping[str, Mapping[bytes, bytes]] | None = None,
        may_wait: bool = True,
        with_store: bool = True,
    ) -> None:
        self.metrics = Metrics(1)
        self.board = PlanBoard()
        self.store = ScriptedStore(may_wait=may_wait)
        self.specs, self.groups, self.limits = specs, groups, limits
        self.batch = {name: ScriptedBatch(records) for name, records in (batch or {}).items()}
        self.generation = 0
        self.publish()
        self.engine = Engine(
            self.board,
            self.metrics,
            store=self.store if with_store else None,
            fixed_wall_ns=WALL_NS,
            seed=3,
        )

    def publish(self) -> None:
        """Publish a plan of the same arm, one generation on."""
        self.generation += 1
        arm = linear_arm(self.metrics, specs=self.specs, groups=self.groups, limits=self.limits)
        self.board.publish(
            make_plan(self.metrics, generation=self.generation, arms=[arm], batch=self.batch)
        )

    def request(
        self,
        *,
        customer: str = "c1",
        terminal: str = "t1",
        request_id: str = "r",
        **values: float,
    ) -> pb.ScoreRequest:
        """Return a request by name, with its entities; an empty id leaves one out."""
        request = pb.ScoreRequest(request_id=request_id, event_time_ms=NOW_MS)
        request.options.provenance = True
        for kind, name in (("customer", customer), ("terminal", terminal)):
            if name:
                request.entities.add(role="payer", type=kind, id=name)
        request.named.SetInParent()
        for name, value in values.items():
            request.named.values[name].number = value
        return request

    def one(self, request: pb.ScoreRequest, **times: object) -> tuple[int, pb.ScoreResponse, str]:
        """Answer one request; its time begins at 1,000 ns."""
        [(status, body, text)] = self.engine.answer(
            [request.SerializeToString()],
            **{"now_ns": 1_000, **times},  # type: ignore[arg-type]
        )
        return status, pb.ScoreResponse.FromString(body), text

    def sources(self, answer: pb.ScoreResponse) -> dict[str, str]:
        """Return the source of each feature, in words."""
        names = ["", "request", "online", "batch", "default"]
        return {
            spec.name: names[source]
            for spec, source in zip(self.specs, answer.provenance, strict=True)
        }


def key(group: str, entity: str) -> bytes:
    """Return a record's key."""
    return record_key(group, entity)


NAN = math.nan
