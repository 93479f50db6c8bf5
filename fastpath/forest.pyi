import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpath.model import Model

ISAS: dict[str, int]

def available_isas() -> tuple[str, ...]: ...
def choose_isa(isa: str | None) -> str: ...
def flat_array(
    name: str, values: ArrayLike, dtype: type[np.generic], n: int | None = ...
) -> NDArray[np.generic]: ...

class Forest(Model):
    def __init__(
        self,
        *,
        n_features: int,
        roots: ArrayLike,
        feature: ArrayLike,
        threshold: ArrayLike,
        true_child: ArrayLike,
        false_child: ArrayLike,
        missing_true: ArrayLike,
        leaf: ArrayLike,
        base: float,
        isa: str | None = ...,
    ) -> None: ...
    @property
    def n_trees(self) -> int: ...
    @property
    def n_nodes(self) -> int: ...
    @property
    def max_depth(self) -> int: ...
    @property
    def layout(self) -> str: ...
    @property
    def isa(self) -> str: ...
    @property
    def exact(self) -> bool: ...
    @property
    def resident_bytes(self) -> int: ...
    @property
    def thresholds(self) -> list[NDArray[np.float32]]: ...
