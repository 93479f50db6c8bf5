"""What a run found, and whether it may be believed.

Rules: a result is data, made once. `valid` is True only if nothing speaks against the run; each
thing that does is a sentence in `invalid_reasons`. Times are nanoseconds in histograms, and
microseconds in the series.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from bench.errors import LoadInputError
from bench.hdr import Histogram

STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

# Why a call has no gRPC status, in the order of CAUSE_* in _types.pxd.
CALL_CAUSES = (
    "connection closed by the server",
    "not processed, says the server's GOAWAY",
    "stream reset by the server",
    "not HTTP/2",
    "timed out",
    "HTTP status not 200",
    "no valid grpc-status",
    "not one whole message",
    "never sent: no free stream",
    "never sent: no connection",
    "never sent: refused by our own HTTP/2",
)

# Why a connection ended, in the order of LOST_* in _types.pxd. The last but one is no failure.
CONNECTION_CAUSES = (
    "connection refused",
    "cannot connect",
    "connecting timed out",
    "closed by the server",
    "reset by the server",
    "not HTTP/2",
    "left after GOAWAY",
    "no socket or memory left here",
)

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)


@dataclass(frozen=True)
class Limits:
    """Beyond which a run is not valid.

    Attributes
    ----------
    max_error_share
        Calls without status OK or with a wrong status, as a share of all. A wrong answer is never
        allowed.
    max_lag_p99_ms
        99th percentile of how late the generator itself was.
    max_late_share, late_ms
        Share of calls that it sent more than `late_ms` after they could have been sent.
    max_stall_ms
        How late the loop may wake, or how long one turn may take.
    max_clock_jump_ms
        How far the wall clock may jump against the monotonic one.
    max_busy_share
        Open loop: how busy the generator may be. Above, answers wait for it, and their wait would
        be taken for the server's.
    """

    max_error_share: float = 0.0
    max_lag_p99_ms: float = 1.0
    max_late_share: float = 0.01
    late_ms: float = 1.0
    max_stall_ms: float = 50.0
    max_clock_jump_ms: float = 100.0
    max_busy_share: float = 0.97

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not (math.isfinite(value) and 0 <= value <= 1e6):
                raise LoadInputError(f"the limit {limit.name} is {value!r}; it has to be 0 to 1e6")


class Second(NamedTuple):
    """One second of the series: the calls that ended in it. Latencies of those with a status."""

    second: int
    calls: int
    errors: int
    p50_us: float
    p99_us: float
    max_us: float


class Progress(NamedTuple):
    """What a live line shows. `last` is the last whole second."""

    elapsed_s: float  # since the measurement began; negative while warming up
    n_sent: int
    n_answered: int
    n_errors: int
    last: Second | None


@dataclass(frozen=True)
class WrongAnswer:
    """The first answer that was not the expected one."""

    message_index: int
    method: str
    what: str
    expected: str
    got: str


@dataclass(frozen=True)
class LoadResult:
    """What one run found. Only measured calls are counted, none of the warm-up.

    Attributes
    ----------
    mode
        "open" or "closed".
    n_scheduled, n_sent, n_answered
        Calls intended, sent, and answered with a gRPC status.
    n_warmup, n_queued, n_late
        Calls before the measurement; calls that found no free stream when they were due; calls
        that the generator itself sent too late.
    seconds
        From the begin of the measurement to the end of the last call.
    calls_per_s
        Calls answered OK, and right where checked, per second.
    latency
        ns from the *intended* send time to the answer, of all calls with a gRPC status.
    service_time
        ns from the actual send to the answer.
    lag
        ns from when a call could be sent to when it was: the generator's own.
    status_counts
        gRPC status name -> calls.
    transport_errors
        Cause -> calls that ended without a gRPC status.
    connection_errors
        Cause -> connections that were lost or not made; "left after GOAWAY" is no failure.
    first_error
        Status and message of the first call that a gRPC status failed; "" = none.
    series
        One row per second.
    generator_cpu_s
        User and system time of the generator's thread while it measured; polling counts.
    generator_busy_share
        Share of the time in which its loop did something other than to wait or to poll.
    clock_jump_ns, longest_stall_ns, n_stalls
        What the machine did meanwhile.
    """

    mode: str
    n_scheduled: int
    n_sent: int
    n_answered: int
    n_warmup: int
    n_queued: int
    n_late: int
    seconds: float
    calls_per_s: float
    latency: Histogram
    service_time: Histogram
    lag: Histogram
    status_counts: dict[str, int]
    transport_errors: dict[str, int]
    connection_errors: dict[str, int]
    n_reconnects: int
    first_error: str
    n_checked: int
    n_wrong: int
    first_wrong: WrongAnswer | None
    series: list[Second]
    generator_cpu_s: float
    generator_busy_share: float
    clock_jump_ns: int
    longest_stall_ns: int
    n_stalls: int
    valid: bool
    invalid_reasons: list[str] = field(default_factory=list)

    @property
    def client_bound(self) -> bool:
        """Whether the generator was the limit, at least in part: no statement about the server."""
        return self.generator_busy_share >= 0.9

    @property
    def n_errors(self) -> int:
        """Calls that did not end with status OK."""
        return (
            self.n_answered - self.status_counts.get("OK", 0) + sum(self.transport_errors.values())
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data for `json`; histograms as text and as percentiles in microseconds."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        found["first_wrong"] = asdict(self.first_wrong) if self.first_wrong else None
        found["series"] = [row._asdict() for row in self.series]
        for name in ("latency", "service_time", "lag"):
            found[name] = summary(found[name])
        return found | {"n_errors": self.n_errors, "client_bound": self.client_bound}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> LoadResult:
        """Return the result that `to_json` described."""
        found = {f.name: document[f.name] for f in fields(cls)}
        wrong = document["first_wrong"]
        found["first_wrong"] = WrongAnswer(**wrong) if wrong else None
        found["series"] = [Second(**row) for row in document["series"]]
        for name in ("latency", "service_time", "lag"):
            found[name] = Histogram.decode(document[name]["hdr"])
        return cls(**found)


def summary(histogram: Histogram) -> dict[str, Any]:
    """Return count, mean, percentiles and extremes in microseconds, and the encoded whole."""
    return {
        "count": histogram.count,
        "min_us": histogram.min / 1e3,
        "mean_us": histogram.mean() / 1e3,
        **{f"p{p:g}_us": histogram.percentile(p) / 1e3 for p in PERCENTILES},
        "max_us": histogram.max / 1e3,
        "hdr": histogram.encode(),
    }
