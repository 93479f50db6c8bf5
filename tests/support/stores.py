"""What tests of stored features share: a bundle with two groups, records for it, load, and eyes.

    with StoredServing({"features.online": "redis", "redis.address": redis.address}) as server:
        write_online("lmdb:DIR")
        with Load(server) as load:
            ...
        load.assert_all_ok()

Record values follow from the entity's id (`values_of`), so that an answer can be compared with that
to a request which sends the same values itself: equal sources of truth, equal scores.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from sklearn.ensemble import GradientBoostingClassifier

from bench.generator import Generator, Limits, Message, Schedule
from fastpath.spec import FallbackLimits, GroupSpec
from server.export import ExportOptions, FeatureOptions, export_model
from server.features import open_writer
from server.pb.scoregate.v1 import control_pb2, scoring_pb2
from tests.support.clients import SCORE, control, scoring
from tests.support.serving import MODEL, Serving, example_rows

# Long enough that a busy machine does not look like a slow store, short beside any deadline.
BUDGET_US = 50_000
CUSTOMER = GroupSpec(
    "customer",
    "customer",
    (("n_day", "numeric"), ("mean", "numeric")),
    ttl_s=3600.0,
    batch_max_age_s=86_400.0,
    read_budget_us=BUDGET_US,
)
TERMINAL = GroupSpec(
    "terminal", "terminal", (("risk", "numeric"),), ttl_s=3600.0, read_budget_us=BUDGET_US
)
GROUPS = (CUSTOMER, TERMINAL)
N_ENTITIES = 50
DEADLINE_S = 5.0
CALLS_PER_S = 400
CHUNK_S = 0.1
REDIS = {
    "features.online": "redis",
    "redis.stall_us": 4 * BUDGET_US,
    "redis.breaker_cool_off_ms": 100,
}


@functools.cache
def stored_repository(budget_us: int = BUDGET_US) -> Path:
    """Export a model with two features in stores; removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="scoregate-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    export_stored(
        folder / MODEL / "1", [group._replace(read_budget_us=budget_us) for group in GROUPS]
    )
    return folder


def export_stored(out: Path, groups: Sequence[GroupSpec]) -> None:
    """Export a model that reads n_day and risk from groups of these columns."""
    train, target = example_rows(1500, 1)
    valid, valid_target = example_rows(500, 2)
    model = GradientBoostingClassifier(n_estimators=20, max_depth=3, random_state=0)
    model.fit(train, target)
    options = ExportOptions(
        thresholds={"review": 0.3},
        features={
            "n_day": FeatureOptions(source="customer", default=1.0),
            "risk": FeatureOptions(source="terminal", default=0.25),
        },
        groups=groups,
        fallback=FallbackLimits(degrade_over=0),
    )
    export_model(model, train, target, valid, valid_target, out=out, options=options)


def values_of(entity: int) -> tuple[float, float]:
    """Return n_day and risk of customer and terminal number `entity`."""
    return float(entity % 9), float(np.float32((entity % 31) / 31))


def rows_of(group: GroupSpec, entities: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return the values of a group's records."""
    if group.name == "customer":
        return np.array([[values_of(i)[0], 7.0] for i in entities], dtype=np.float32)
    return np.array([[values_of(i)[1]] for i in entities], dtype=np.float32)


def write_online(url: str, n_entities: int = N_ENTITIES) -> None:
    """Write the records of the first entities of both groups, as of now."""
    entities = range(n_entities)
    for group in GROUPS:
        with open_writer(url, group) as writer:
            writer.write(
                [f"{group.name[0]}{i}" for i in entities], now_ms(), rows_of(group, entities)
            )


def now_ms() -> int:
    """Return the time as requests and records have it."""
    return time.time_ns() // 1_000_000


def request(entity: int = 0, *, customer: str = "", terminal: str = "") -> Any:
    """Return a request that leaves the stored features to the stores."""
    message = scoring_pb2.ScoreRequest(options=scoring_pb2.ScoreOptions(provenance=True))
    for kind, name in (
        ("customer", customer or f"c{entity}"),
        ("terminal", terminal or f"t{entity}"),
    ):
        message.entities.add(role="payer", type=kind, id=name)
    message.named.values["amount"].number = 120.0
    message.named.values["night"].flag = True
    return message


def whole_request(n_day: float, risk: float) -> Any:
    """Return a request that sends the stored features itself."""
    message = request()
    message.named.values["n_day"].number = n_day
    message.named.values["risk"].number = risk
    return message


def until(condition: Callable[[], bool], what: str = "it", timeout_s: float = 120.0) -> None:
    """Wait for a state."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{what} never happened"
        time.sleep(0.02)


class StoredServing(Serving):
    """A server of `stored_repository`, with a client that never waits past a deadline."""

    def __init__(self, settings: Mapping[str, Any], repository: Path | None = None) -> None:
        super().__init__(repository or stored_repository(), {"features.poll_s": 0.05, **settings})
        self.channel = grpc.insecure_channel(self.fast)
        self.operator = grpc.insecure_channel(self.control)

    def score(self, message: Any, timeout_s: float = DEADLINE_S) -> Any:
        """Score one request; an error is raised."""
        return scoring(self.channel).Score(message, timeout=timeout_s)

    def group_reads(self, message: Any) -> dict[str, tuple[str, str]]:
        """Return how the reads of one request ended: group -> online, batch, in small letters."""
        name = scoring_pb2.ReadOutcome.Name
        return {
            read.group: (
                name(read.online).removeprefix("READ_OUTCOME_").lower(),
                name(read.batch).removeprefix("READ_OUTCOME_").lower(),
            )
            for read in self.score(message).group_reads
        }

    def all_online(self) -> bool:
        """Whether every entity is answered from its online records, rightly."""
        for entity in range(0, N_ENTITIES, 7):
            answer = self.score(request(entity))
            if answer.source_counts.online != 2 or answer.degraded:
                return False
            whole = self.score(whole_request(*values_of(entity)))
            assert answer.raw_score == whole.raw_score
        return True

    def stores(self) -> dict[tuple[str, str], Any]:
        """Return GetStatus's stores by table and group."""
        status = control(self.operator).GetStatus(
            control_pb2.GetStatusRequest(), timeout=DEADLINE_S
        )
        stores = {(store.table, store.group): store for store in status.stores}
        assert len(stores) == len(status.stores), "a store is reported twice"
        return stores

    def online_state(self) -> str:
        """Return the online store's state in small letters."""
        state = self.stores()["online", ""].state
        return str(control_pb2.StoreState.Name(state)).removeprefix("STORE_STATE_").lower()

    def counts(self) -> Counter[str]:
        """Return the counters that tell of stores, by a short name."""
        from prometheus_client.parser import text_string_to_metric_families

        counts: Counter[str] = Counter()
        for family in text_string_to_metric_families(self.http("/metrics")[1]):
            for sample in family.samples:
                # Table before outcome, source before group.
                labels = {
                    label: sample.labels[label]
                    for label in sorted(sample.labels, reverse=True)
                    if not label.startswith("model")
                }
                if family.type == "counter" and sample.name.endswith("_total"):
                    name = sample.name.removeprefix("scoregate_").removesuffix("_total")
                    counts[":".join([name, *labels.values()])] += int(sample.value)
        return counts

    def end(self) -> int:
        """Close the client, then end the server."""
        for name in ("channel", "operator"):
            if hasattr(self, name):
                getattr(self, name).close()
        return super().end()


class Load:
    """Calls at a steady rate from the compiled generator, from `with` to its end.

    Parameters
    ----------
    server
        Its fast door.
    entities
        Whom the requests are about, in turn.
    """

    def __init__(self, server: Serving, entities: Sequence[int] = range(N_ENTITIES)) -> None:
        messages = [Message(SCORE, request(i).SerializeToString()) for i in entities]
        self._generator = Generator(
            server.fast,
            messages,
            n_connections=2,
            n_streams=64,
            timeout_s=DEADLINE_S,
            limits=Limits(max_lag_p99_ms=1e6, max_late_share=1, max_stall_ms=1e6),
        )
        self.answers: Counter[str] = Counter()  # gRPC status or transport error -> calls
        self.longest_ns = 0
        self.first_error = ""
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def _run(self) -> None:
        times_ns = Schedule.constant(CALLS_PER_S).times_ns(CHUNK_S)
        try:
            while not self._stop.is_set():
                result = self._generator.run_open(times_ns)
                self.answers.update(result.status_counts)
                self.answers.update(result.transport_errors)
                self.longest_ns = max(self.longest_ns, int(result.latency.max))
                self.first_error = self.first_error or result.first_error
        except BaseException as error:  # noqa: BLE001 - raised where the load ends
            self._failure = error

    def more(self, n_calls: int = CALLS_PER_S // 8) -> None:
        """Wait until so many calls more have ended."""
        before = self.answers.total()
        until(
            lambda: self._failure is not None or self.answers.total() >= before + n_calls,
            "load",
        )

    def assert_all_ok(self) -> None:
        """Every call was answered, in time and without an error."""
        assert self.answers.total() > 0
        assert set(self.answers) == {"OK"}, (self.answers, self.first_error)
        assert self.longest_ns < DEADLINE_S * 1e9

    def __enter__(self) -> Self:
        self._thread.start()
        self.more()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        if error is None:
            self.assert_all_ok()
