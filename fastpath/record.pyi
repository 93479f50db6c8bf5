from collections.abc import Iterable
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import disjoint_base

from fastpath.schema import Schema

__all__ = ["HEADER_BYTES", "RecordGather", "decode_record", "encode_records", "record_key"]

HEADER_BYTES: Final[int]

@disjoint_base
class RecordGather:
    def __new__(
        cls, schema: Schema, group_index: int, columns: Iterable[tuple[str, str]]
    ) -> Self: ...
    @property
    def schema(self) -> Schema: ...
    @property
    def group(self) -> int: ...
    @property
    def columns(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def fingerprint(self) -> int: ...
    @property
    def n_columns(self) -> int: ...
    @property
    def members(self) -> list[int]: ...
    @property
    def column_of(self) -> list[int]: ...

def record_key(group: str, entity_id: str) -> bytes: ...
def encode_records(
    fingerprint: int, event_time_ms: ArrayLike, values: ArrayLike
) -> NDArray[np.uint8]: ...
def decode_record(data: bytes) -> tuple[int, int, NDArray[np.float32]]: ...
