from collections.abc import Sequence
from typing import NamedTuple

from fastpath.store import OUTCOMES as OUTCOMES

DURATION_BOUNDS_NS: tuple[int, ...]
READ_BOUNDS_NS: tuple[int, ...]
MISSING_CAUSES: tuple[str, ...]
STAGES: tuple[str, ...]
SOURCES: tuple[str, ...]

class SlotSnapshot(NamedTuple):
    model: str
    version: str
    predictions: int
    degraded: int
    duration_sum_ns: int
    duration_buckets: tuple[int, ...]
    features_by_source: dict[str, int]
    features_missing: dict[str, int]
    decisions: dict[str, int]
    fallbacks: dict[tuple[str, str], int]

class Snapshot(NamedTuple):
    slots: tuple[SlotSnapshot, ...]
    errors: tuple[int, ...]
    batches: int
    batch_rows: int
    waits: int
    online_reads: dict[str, int]
    batch_reads: dict[str, int]
    read_buckets: tuple[int, ...]
    read_sum_ns: int
    stages: dict[str, tuple[tuple[int, ...], int]]
    queue: tuple[tuple[int, ...], int]

class Metrics:
    def __new__(cls, n_threads: int) -> Metrics: ...
    @property
    def n_threads(self) -> int: ...
    def register(
        self, model: str, version: str, decisions: Sequence[str], groups: Sequence[str] = ...
    ) -> int: ...
    def snapshot(self) -> Snapshot: ...
