__all__ = ["encode", "encode_arm"]

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
