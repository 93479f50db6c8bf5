"""A real Prometheus for a test, and a server under load for it to scrape.

    with Prometheus(config(server.sidecar, folder), folder) as prometheus:
        prometheus.query("up")

It is Debian's: a process of its own on a free port, its data in a temporary folder, ended with the
test. `ScrapedWorld` has everything that our rules and dashboards look at: stored features in
Redis and in batch tables, entities that have no record, callers that are wrong, outcomes of
decisions that mature within seconds.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
import numpy as np
import pytest

from server.features.batch import BatchTableWriter
from server.pb.scoregate.v1 import control_pb2, feedback_pb2, feedback_pb2_grpc, scoring_pb2
from tests.support.clients import control
from tests.support.redis_server import free_port
from tests.support.redis_store import StoreServer
from tests.support.serving import ROOT
from tests.support.stores import (
    CUSTOMER,
    N_ENTITIES,
    REDIS,
    Load,
    StoredServing,
    now_ms,
    request,
    until,
    write_online,
)

DEPLOY = ROOT / "deploy" / "prometheus"
START_S = 30.0
PATIENCE_S = 30.0
INTERVAL = "500ms"
# Decisions whose outcomes can all be seen, mature in seconds, and are measured at once.
FEEDBACK = {
    "feedback.maturity_s": 1.0,
    "feedback.window_s": 600.0,
    "feedback.drain_s": 0.1,
    "feedback.records_per_s": 1e6,  # all, however quickly a machine asks
    "feedback.interval_s": 0.5,
    "feedback.unseen_decisions": ["none"],
}
N_OUTCOMES = 150

# What rules and dashboards ask for although no server has it yet. A metric that a server has may
# not stand here: whoever adds one takes it off, and from then on its queries must find data.
PENDING: Mapping[str, str] = {}
# A monitor that warms up says NaN, which is an answer.
NAN_IS_DATA = re.compile(r"ml_(data_drift|drift|feature_drift|feature_missing|score_drift)_")

_SELECTOR = re.compile(
    r'(?<![\w:"$~.])((?:job:|scoregate:)?(?:ml|scoregate|process|slo)_[\w:]+|up)(?![\w(])'
    r"(\{[^}]*\})?"
)


def needs_prometheus() -> None:
    """Skip the test where Prometheus or its tool is not installed."""
    for name in ("prometheus", "promtool"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (apt-get install prometheus)")


def promtool(*words: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool in the repository; `text` is its input."""
    needs_prometheus()
    command = ["promtool", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, input=text, capture_output=True, text=True, timeout=120, check=False
    )


class Selector(NamedTuple):
    """One series that an expression asks for."""

    name: str
    text: str  # with its matchers


def selectors(expression: str) -> list[Selector]:
    """Return what an expression selects."""
    return [Selector(m[1], m[0]) for m in _SELECTOR.finditer(expression)]


def is_pending(expression: str) -> bool:
    """Whether an expression needs a metric that no server has yet."""
    return any(one.name in PENDING for one in selectors(expression))


def has_data(expression: str, result: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a query found something; NaN alone is 0/0."""
    values = [float(row["value"][1]) for row in result]
    if NAN_IS_DATA.search(expression):
        return bool(values)
    return any(not math.isnan(value) for value in values)


def write_config(folder: Path, target: str, *, patience: str = "") -> Path:
    """Copy our configuration and rules, for one target and at once instead of every 15 s.

    `patience`, if any, takes the place of every `for:`, that alerts fire within a test.
    """
    shutil.copytree(DEPLOY / "rules", folder / "rules")
    # Prometheus begins a group at a random moment of its interval.
    for path in (folder / "rules").iterdir():
        rules = re.sub(r"(?m)^    interval: .*\n", "", path.read_text())
        if patience:
            rules = re.sub(r"(?m)^( +for: ).*$", rf"\g<1>{patience}", rules)
        path.write_text(rules)
    text = (DEPLOY / "prometheus.yml").read_text()
    for old, new in (("127.0.0.1:9464", target), ("_interval: 15s", f"_interval: {INTERVAL}")):
        assert old in text
        text = text.replace(old, new)
    path = folder / "prometheus.yml"
    path.write_text(text)
    return path


class Prometheus:
    """A process of Debian's Prometheus, from ready to its end."""

    def __init__(self, target: str, *, patience: str = "") -> None:
        needs_prometheus()
        self._patience = patience
        self.folder = Path(tempfile.mkdtemp(prefix="sgprom-"))
        self.address = f"127.0.0.1:{free_port()}"
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        config = write_config(self.folder, self._target, patience=self._patience)
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self.address}",
            "--log.level=warn",
        ]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait_ready(self._process)
        except BaseException:
            self._end()
            raise
        return self

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < end:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5),
            ):
                return
            time.sleep(0.05)
        raise AssertionError(f"prometheus is not ready:\n{(self.folder / 'log').read_text()}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def get(self, path: str, **words: str) -> Any:
        """Return the data of an API's answer; an error is an AssertionError with its text."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{words}: {json.load(error)['error']}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the rows of an expression's value now."""
        rows: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return rows

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule with its health, as Prometheus has evaluated it."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def all_with_data(self, expressions: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of each expression, once all have some; name those that stay empty."""
        found: dict[str, list[dict[str, Any]]] = {}
        left = sorted(set(expressions))
        end = time.monotonic() + PATIENCE_S
        while left:
            for expression in left:
                rows = self.query(expression)
                if has_data(expression, rows):
                    found[expression] = rows
            left = [expression for expression in left if expression not in found]
            assert time.monotonic() < end, "no data for\n" + "\n".join(left)
            if left:
                time.sleep(0.25)
        return found


class ScrapedWorld:
    """A server with stores and a plan that changed, under load, scraped by a Prometheus."""

    def __init__(self, folder: Path) -> None:
        needs_prometheus()
        self._folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            redis = stack.enter_context(StoreServer())
            # Half of the entities have no online record, and terminals no other.
            write_online(redis.url, N_ENTITIES // 2)
            self._write_batch()
            self.server = stack.enter_context(
                StoredServing(
                    {
                        **REDIS,
                        **FEEDBACK,
                        "redis.address": redis.unix,
                        "redis.cache_bytes": 1 << 20,
                        "redis.cache_ttl_ms": 20,
                        "features.directory": str(self._folder),
                    }
                )
            )
            until(lambda: self.server.online_state() == "ok", "the store")
            stack.enter_context(Load(self.server))
            self.prometheus = stack.enter_context(Prometheus(self.server.sidecar))
            until(self._is_scraped, "a scrape")
            self._be_wrong()
            self._report_outcomes()
            control(self.server.operator).Freeze(control_pb2.FreezeRequest(frozen=True), timeout=10)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _is_scraped(self) -> bool:
        return bool(self.prometheus.query("rate(ml_predictions_total[5s]) > 0 and on () up == 1"))

    def _write_batch(self) -> None:
        with BatchTableWriter(self._folder, CUSTOMER) as table:
            values = np.full((N_ENTITIES, 2), 2.0, dtype=np.float32)
            table.write([f"c{i}" for i in range(N_ENTITIES)], now_ms(), values)
            table.commit()

    def _report_outcomes(self) -> None:
        """Decide, and say what came of it: a third is positive. One outcome is of nothing."""
        outcomes = [feedback_pb2.Outcome(request_id="nobody's", label=feedback_pb2.LABEL_NEGATIVE)]
        for number in range(N_OUTCOMES):
            message = request(number % N_ENTITIES)
            message.request_id = f"known-{number}"
            self.server.score(message)
            label = feedback_pb2.LABEL_NEGATIVE if number % 3 else feedback_pb2.LABEL_POSITIVE
            outcomes.append(
                feedback_pb2.Outcome(request_id=message.request_id, label=label, amount=10.0)
            )
        until(self._all_recorded, "decisions on disk")
        stub: Any = feedback_pb2_grpc.FeedbackStub(self.server.operator)  # type: ignore[no-untyped-call]
        said = feedback_pb2.ReportOutcomesRequest(outcomes=outcomes)
        (answer,) = stub.ReportOutcomes(iter([said]), timeout=10)
        assert answer.accepted == len(outcomes), answer

    def _all_recorded(self) -> bool:
        return self.server.metric("ml_feedback_records_total") >= N_OUTCOMES

    def _be_wrong(self) -> None:
        """Make a call that is refused, as callers do."""
        with pytest.raises(grpc.RpcError):
            self.server.score(scoring_pb2.ScoreRequest(model="nobody's"))
