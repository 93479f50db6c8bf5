"""What came of the replayed calls: counts, latencies, and how well the scores rank frauds."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import numpy as np

from server.demo.histogram import LatencyHistogram
from server.demo.quality import ranking_quality
from server.demo.traffic import Rows
from server.pb.scoregate.v1 import scoring_pb2 as pb

SOURCES = {"request": "request", "online": "online", "batch": "batch", "default": "default_value"}


class Tally:
    """Counts answers. Written by grpc's thread, read by another, under one lock.

    Parameters
    ----------
    rows : Rows
    default_decision : str
        What every other decision flags a transaction against.
    """

    def __init__(self, rows: Rows, default_decision: str) -> None:
        self._lock = threading.Lock()
        self._rows = rows
        self._default = default_decision
        self._fraud: list[bool] = rows.fraud.tolist()
        self._offline: list[float] = rows.raw_score.tolist()
        # The newest raw score of every row; NaN: not answered yet.
        self._raw = np.full(len(rows.fraud), np.nan, dtype=np.float32)
        self._counts: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._decisions: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._first_error = ""
        self._total = LatencyHistogram()
        self._recent = LatencyHistogram()
        self._recent_degraded = 0
        self._recent_since = time.monotonic()

    def answered(self, row: int, answer: pb.ScoreResponse, *, latency_us: float) -> None:
        """Count one answer."""
        fraud = self._fraud[row]
        flagged = answer.decision != self._default
        found = answer.source_counts
        counts = self._counts
        with self._lock:
            self._recent.add(latency_us)
            self._raw[row] = answer.raw_score
            self._decisions[answer.decision] += 1
            counts["answered"] += 1
            counts["as_offline"] += answer.raw_score == self._offline[row]
            counts["fraud"] += fraud
            counts["caught"] += fraud and flagged
            counts["false_alarms"] += flagged and not fraud
            counts["fallback_calls"] += found.default_value > 0
            counts["degraded"] += answer.degraded
            self._recent_degraded += answer.degraded
            for name, field in SOURCES.items():
                self._sources[name] += getattr(found, field)

    def failed(self, status: str, details: str, *, latency_us: float) -> None:
        """Count one call that got an error."""
        with self._lock:
            self._recent.add(latency_us)
            self._errors[status] += 1
            self._first_error = self._first_error or f"{status}: {details}"

    def snapshot(self) -> dict[str, Any]:
        """Return everything so far; what is "recent" begins anew."""
        with self._lock:
            now = time.monotonic()
            recent, since = self._recent, self._recent_since
            recent_degraded = self._recent_degraded
            self._total.merge(recent)
            self._recent, self._recent_since = LatencyHistogram(), now
            self._recent_degraded = 0
            raw = self._raw.copy()
            state = {
                **self._counts,
                "sources": dict(self._sources),
                "decisions": dict(self._decisions),
                "errors": dict(self._errors),
                "first_error": self._first_error,
                "recent_calls_per_s": recent.n / max(now - since, 1e-9),
                "recent_degraded": recent_degraded,
                "recent_us": _quantiles(recent),
                "latency_us": _quantiles(self._total),
            }
        known = ~np.isnan(raw)
        fraud = self._rows.fraud[known]
        state["quality"] = ranking_quality(fraud, raw[known])
        state["offline_quality"] = ranking_quality(fraud, self._rows.raw_score[known])
        return state


def _quantiles(histogram: LatencyHistogram) -> dict[str, float]:
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    found = {name: histogram.quantile_us(share) for name, share in shares.items()}
    return found | {"max": histogram.max_us}
