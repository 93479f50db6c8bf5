from collections.abc import Container, Sequence

from fastpath.capture import Capture
from fastpath.ledger import Ledger
from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from fastpath.store import OnlineStore

class Engine:
    def __new__(
        cls,
        board: PlanBoard,
        metrics: Metrics,
        thread: int = ...,
        *,
        store: OnlineStore | None = ...,
        capture: Capture | None = ...,
        ledger: Ledger | None = ...,
        fixed_wall_ns: int | None = ...,
        seed: int | None = ...,
    ) -> Engine: ...
    @property
    def board(self) -> PlanBoard: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def store(self) -> OnlineStore | None: ...
    @property
    def capture(self) -> Capture | None: ...
    @property
    def ledger(self) -> Ledger | None: ...
    @property
    def thread(self) -> int: ...
    def answer(
        self,
        messages: Sequence[bytes],
        *,
        now_ns: int,
        flush_ns: int | None = ...,
        deadlines_ns: Sequence[int | None] | None = ...,
        cancelled: Container[int] = ...,
    ) -> list[tuple[int, bytes, str]]: ...
