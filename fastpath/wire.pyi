from typing import TypedDict

__all__ = ["decode", "encode", "encode_arm"]

class DecodedRequest(TypedDict):
    request_id: str
    event_time_ms: int
    entities: list[tuple[str, str, str]]
    routing_key: str
    model: str
    provenance: bool
    timings: bool
    reasons: bool
    form: str | None
    layout: int
    n_values: int
    values: list[float]
    named: dict[str, float | bool | str | None]

def decode(message: bytes) -> DecodedRequest: ...
def encode_arm(
    model: str, version: str, sha256: bytes, arm: str, generation: int, score_kind: int
) -> bytes: ...
def encode(
    *,
    request_id: str = "",
    raw_score: float = 0.0,
    score: float = 0.0,
    decision: str = "",
    threshold: float | None = None,
    bucket: int = 0,
    unsticky: bool = False,
    degraded: bool = False,
    cached: bool = False,
    explored: bool = False,
    decision_propensity: float = 0.0,
    source_counts: tuple[int, int, int, int] = (0, 0, 0, 0),
    arm: bytes = b"",
    provenance: bytes | None = None,
    timings: tuple[int, int, int, int] | None = None,
) -> bytes: ...
