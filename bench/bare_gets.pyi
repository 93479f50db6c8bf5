import os
from collections.abc import Sequence
from typing import Literal

from bench.key_order import Order

def lmdb_gets(
    path: str | os.PathLike[str],
    keys: Sequence[bytes],
    n_gets: int,
    *,
    order: Order | Literal["given"] = "uniform",
    seed: int = 0,
    n_per_txn: int = 64,
    exponent: float = 1.0,
) -> tuple[float, float]: ...
def redis_gets(
    address: str,
    keys: Sequence[bytes],
    n_calls: int,
    *,
    order: Order | Literal["given"] = "uniform",
    seed: int = 0,
    depth: int = 1,
    exponent: float = 1.0,
) -> list[int]: ...
