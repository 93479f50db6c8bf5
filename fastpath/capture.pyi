from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HEAD_TYPE: np.dtype[np.void]

class CapturedRows(NamedTuple):
    slot: int
    rows: NDArray[np.float32]
    sources: NDArray[np.uint8]
    raw: NDArray[np.float32]
    event_time_ms: NDArray[np.int64]
    decided_time_ms: NDArray[np.int64]
    id_hash: NDArray[np.uint64]
    generation: NDArray[np.uint64]
    bucket: NDArray[np.uint32]
    arm: NDArray[np.uint8]
    decision: NDArray[np.uint8]
    degraded: NDArray[np.bool_]

class Capture:
    def __new__(cls, n_threads: int, *, capacity_bytes: int = ..., seed: int = ...) -> Capture: ...
    @property
    def n_threads(self) -> int: ...
    @property
    def capacity_bytes(self) -> int: ...
    def set_rate(self, slot: int, rate: float) -> None: ...
    def rate(self, slot: int) -> float: ...
    def drain(self) -> list[CapturedRows]: ...
    def stats(self) -> list[dict[str, float]]: ...

def id_hash(request_id: str) -> tuple[int, int]: ...
