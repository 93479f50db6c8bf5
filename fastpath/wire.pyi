from typing import TypedDict, type_check_only

from fastpath.answer import encode as encode
from fastpath.answer import encode_arm as encode_arm

__all__ = ["decode", "encode", "encode_arm"]

@type_check_only
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
