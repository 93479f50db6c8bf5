from typing import TypedDict, type_check_only

__all__ = ["decode"]

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
