from collections.abc import Mapping

from fastpath.store import OUTCOMES as OUTCOMES
from fastpath.store import BatchTable, OnlineStore

class ScriptedStore(OnlineStore):
    def __new__(cls, *, may_wait: bool = ...) -> ScriptedStore: ...
    @property
    def asked(self) -> list[bytes]: ...
    @property
    def abandoned(self) -> list[tuple[bytes, bool]]: ...
    @property
    def n_flushes(self) -> int: ...
    def set(
        self,
        key: bytes,
        record: bytes | None = ...,
        *,
        outcome: str = ...,
        delay_ns: int | None = ...,
    ) -> None: ...

class ScriptedBatch(BatchTable):
    def __new__(cls, records: Mapping[bytes, bytes]) -> ScriptedBatch: ...
