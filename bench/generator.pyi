from collections.abc import Callable, Sequence
from typing import Any, Self, final

from numpy.typing import NDArray

from bench.message import Message as Message
from bench.outcome import Limits as Limits
from bench.outcome import LoadResult as LoadResult
from bench.outcome import Progress as Progress
from bench.schedule import Schedule as Schedule

__all__ = ["Generator", "Limits", "LoadResult", "Message", "Progress", "Schedule"]

@final
class Generator:
    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    def __init__(
        self,
        address: str,
        messages: Sequence[Message],
        *,
        n_connections: int = ...,
        n_streams: int = ...,
        timeout_s: float = ...,
        order: str = ...,
        seed: int = ...,
        check: str | None = ...,
        check_share: float = ...,
        limits: Limits | None = ...,
        slack_s: float = ...,
        max_queue_s: float | None = ...,
        give_up_s: float = ...,
        connect_timeout_s: float = ...,
        spin_us: float = ...,
        poll_us: float = ...,
        core: int | None = ...,
    ) -> None: ...
    @property
    def address(self) -> str: ...
    @property
    def messages(self) -> tuple[Message, ...]: ...
    def run_open(
        self,
        times_ns: NDArray[Any],
        *,
        warmup_s: float = ...,
        on_progress: Callable[[Progress], object] | None = ...,
    ) -> LoadResult: ...
    def run_closed(
        self,
        *,
        duration_s: float | None = ...,
        n_calls: int | None = ...,
        warmup_s: float = ...,
        on_progress: Callable[[Progress], object] | None = ...,
    ) -> LoadResult: ...
