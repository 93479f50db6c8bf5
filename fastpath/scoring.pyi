from fastpath.capture import Capture
from fastpath.engine import Engine
from fastpath.ledger import Ledger
from fastpath.metrics import Metrics
from fastpath.plan import PlanBoard
from fastpath.service import Service
from fastpath.store import OnlineStore

METHODS: tuple[str, ...]

class ScoringService(Service):
    def __new__(
        cls,
        board: PlanBoard,
        metrics: Metrics,
        thread: int,
        store: OnlineStore | None = ...,
        capture: Capture | None = ...,
        ledger: Ledger | None = ...,
    ) -> ScoringService: ...
    @property
    def engine(self) -> Engine: ...
