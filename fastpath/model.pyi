import numpy as np
from numpy.typing import NDArray

class Model:
    @property
    def n_features(self) -> int: ...
    def score(self, rows: NDArray[np.float32], thread: int = ...) -> NDArray[np.float32]: ...
