import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpath.model import Model

class Linear(Model):
    def __init__(
        self, *, coefficients: ArrayLike, intercept: float, fill: ArrayLike
    ) -> None: ...
    @property
    def coefficients(self) -> NDArray[np.float64]: ...
    @property
    def fill(self) -> NDArray[np.float32]: ...
    @property
    def intercept(self) -> float: ...
    @property
    def resident_bytes(self) -> int: ...
