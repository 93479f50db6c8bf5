from typing import TypedDict, type_check_only

import numpy as np
from numpy.typing import NDArray

from fastpath.schema import Gather, Schema

__all__ = ["resolve_message"]

@type_check_only
class ResolvedRow(TypedDict):
    row: NDArray[np.float32]
    sources: bytes
    n_by_source: list[int]
    n_missing: dict[str, int]
    degraded: bool

def resolve_message(schema: Schema, gather: Gather | None, message: bytes) -> ResolvedRow: ...
