"""What came of the replayed calls: counts, latencies, and how well the scores rank frauds."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
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
        offline: list[list[float]] = rows.raw_score.tolist()
        self._offline = dict(zip(rows.versions.tolist(), offline, strict=True))
        self._unknown = [np.nan] * len(rows.fraud)
        # The newest raw score of every row, and what its version's should be; NaN: none yet.
        self._raw = np.full(len(rows.fraud), np.nan, dtype=np.float32)
        self._expected = self._raw.copy()
        self._versions: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._arms: Counter[tuple[str, str]] = Counter()  # (version, arm), in order of appearance
        self._recent_versions: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._faulty: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._decisions: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._first_error = ""
        self._total = LatencyHistogram()
        self._recent = LatencyHistogram()
        self._recent_degraded = 0
        self._recent_since = time.monotonic()

    def answered(
        self, row: int, answer: pb.ScoreResponse, *, latency_us: float, is_faulty: bool = False
    ) -> None:
        """Count one answer; what a faulty request got is not held against the offline score."""
        fraud = self._fraud[row]
        flagged = answer.decision != self._default
        found = answer.source_counts
        counts = self._counts
        expected = self._offline.get(answer.version, self._unknown)[row]
        with self._lock:
            self._recent.add(latency_us)
            if not is_faulty:
                self._raw[row] = answer.raw_score
                self._expected[row] = expected
                counts["as_offline"] += answer.raw_score == expected
            self._decisions[answer.decision] += 1
            self._arms[answer.version, answer.arm] += 1
            self._recent_versions[answer.version] += 1
            parts = [counts, self._versions[answer.version]]
            if is_faulty:
                parts.append(self._faulty)
            for counter in parts:
                counter["answered"] += 1
                counter["fraud"] += fraud
                counter["caught"] += fraud and flagged
                counter["false_alarms"] += flagged and not fraud
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
            raw, expected = self._raw.copy(), self._expected.copy()
            state = {
                **self._counts,
                "faulty": dict(self._faulty),
                "sources": dict(self._sources),
                "decisions": dict(self._decisions),
                "errors": dict(self._errors),
                "first_error": self._first_error,
                "versions": self._version_states(),
                "recent_calls_per_s": recent.n / max(now - since, 1e-9),
                "recent_degraded": recent_degraded,
                "recent_us": _quantiles(recent),
                "latency_us": _quantiles(self._total),
            }
        known = ~np.isnan(raw) & ~np.isnan(expected)
        fraud = self._rows.fraud[known]
        state["quality"] = ranking_quality(fraud, raw[known])
        state["offline_quality"] = ranking_quality(fraud, expected[known])
        return state

    def _version_states(self) -> list[dict[str, Any]]:
        """Return what every version that has answered did, by version."""
        recent, self._recent_versions = self._recent_versions, Counter()
        n_recent = recent.total()
        return [
            {
                "version": version,
                "arms": [arm for one, arm in self._arms if one == version],
                "recent_share": recent[version] / n_recent if n_recent else 0.0,
                **counter,
            }
            for version, counter in sorted(self._versions.items())
        ]


def _quantiles(histogram: LatencyHistogram) -> dict[str, float]:
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    found = {name: histogram.quantile_us(share) for name, share in shares.items()}
    return found | {"max": histogram.max_us}
