"""Requests of which every one is another decision, and the outcomes of those.

All rows of the bench's model are in them, but one request in a hundred scores over the lowest
threshold, as in traffic that has few frauds. Ids are as long as those of UUIDs.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from bench.errors import LoadError
from bench.message import Message
from bench.model import BenchModel
from bench.monitoring_loads import of_now
from bench.scenario import Rows
from bench.sources import SCORE, rows
from server.pb.scoregate.v1 import feedback_pb2 as pb
from server.pb.scoregate.v1 import scoring_pb2

REPORT = "/scoregate.v1.Feedback/ReportOutcomes"
FLAGGED_SHARE = 0.01
N_ROWS = 2_000  # different ones
N_CANDIDATES = 8_000
REPORTED_AT_ONCE = 5_000
PATIENCE_S = 120.0
ID_FIELD = b"\x0a\x24"  # field 1, 36 bytes


@dataclass(frozen=True)
class Batch:
    """What is sent, in the order of `ids`.

    Attributes
    ----------
    messages
        Each with its own id.
    ids
        Theirs.
    flagged
        Of each, whether its score is over the lowest threshold.
    """

    messages: list[Message]
    ids: list[str]
    flagged: list[bool]

    def chosen(self, *, flagged: bool) -> list[str]:
        """Return the ids of those over the threshold, or of the others."""
        pairs = zip(self.ids, self.flagged, strict=True)
        return [id_ for id_, is_flagged in pairs if is_flagged is flagged]


def lowest_threshold(model: BenchModel) -> float:
    """Return the raw score from which on a request is flagged."""
    manifest = json.loads((model.bundle / "manifest.json").read_text("utf-8"))
    return float(manifest["thresholds"][0]["raw_score"])


class Requests:
    """Makes requests that no server has seen yet.

    Parameters
    ----------
    model : BenchModel
    n : int
        How many there are in a batch.
    """

    def __init__(self, model: BenchModel, n: int) -> None:
        cut = lowest_threshold(model)
        candidates = of_now(rows(Rows(n=N_CANDIDATES), SCORE, model))
        over = [m for m in candidates if m.expected_raw is not None and m.expected_raw >= cut]
        under = [m for m in candidates if m.expected_raw is not None and m.expected_raw < cut]
        self._n_over = round(N_ROWS * FLAGGED_SHARE)
        pool = [*over[: self._n_over], *under[: N_ROWS - self._n_over]]
        self._pool = [(_without_id(message.body), message.expected_raw) for message in pool]
        self._order = np.random.default_rng(3).permutation(N_ROWS).tolist()
        self._n = n
        self._n_batches = 0

    def batch(self) -> Batch:
        """Return requests with ids that no earlier batch has."""
        salt = self._n_batches
        self._n_batches += 1
        messages, ids, flagged = [], [], []
        for i in range(self._n):
            at = self._order[i % N_ROWS]
            id_ = f"{salt:08x}-5f2e-7c3a-9d41-{i:012x}"
            body, raw = self._pool[at]
            messages.append(Message(SCORE, ID_FIELD + id_.encode() + body, expected_raw=raw))
            ids.append(id_)
            flagged.append(at < self._n_over)
        return Batch(messages, ids, flagged)


def _without_id(body: bytes) -> bytes:
    request = scoring_pb2.ScoreRequest.FromString(body)
    request.request_id = ""
    return request.SerializeToString()


@dataclass(frozen=True)
class Reported:
    """What the control port made of outcomes."""

    accepted: int
    unmatched: int
    per_s: float


def report(control: str, ids: list[str]) -> Reported:
    """Report an outcome of each request over one stream.

    Raises
    ------
    LoadError
        The port does not take them, or rejects one.
    """
    batches = []
    for at in range(0, len(ids), REPORTED_AT_ONCE):
        batch = pb.ReportOutcomesRequest()
        for i, id_ in enumerate(ids[at : at + REPORTED_AT_ONCE]):
            label = pb.LABEL_POSITIVE if i % 100 == 0 else pb.LABEL_NEGATIVE
            batch.outcomes.add(request_id=id_, label=label, amount=i % 500, source="chargeback")
        batches.append(batch.SerializeToString())
    accepted = unmatched = 0
    started = time.perf_counter()
    try:
        with grpc.insecure_channel(control) as channel:
            stream: Any = channel.stream_stream(
                REPORT,
                request_serializer=None,
                response_deserializer=pb.ReportOutcomesResponse.FromString,
            )
            for answer in stream(iter(batches), timeout=PATIENCE_S):
                if answer.rejected:
                    raise LoadError(f"{control}: an outcome was rejected: {answer.first_rejected}")
                accepted += answer.accepted
                unmatched += answer.unmatched
    except grpc.RpcError as error:
        raise LoadError(f"{control}: ReportOutcomes failed: {error}") from None
    return Reported(accepted, unmatched, accepted / (time.perf_counter() - started))
