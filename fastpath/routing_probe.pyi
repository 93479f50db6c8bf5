from numpy import int64
from numpy.typing import NDArray

from fastpath.plan import Plan

def route_many(plan: Plan, model: str, text: bytes, ends: NDArray[int64]) -> bytes: ...
