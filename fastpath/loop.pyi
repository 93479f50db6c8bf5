import os
from collections.abc import Sequence
from typing import Self

from fastpath.service import Service

class LoopGroup:
    def __new__(
        cls,
        services: Sequence[Service],
        *,
        max_message_bytes: int = ...,
        spin_us: int = ...,
        max_connections: int = ...,
        max_streams: int = ...,
        max_header_bytes: int = ...,
        max_held_bytes: int = ...,
    ) -> Self: ...
    def listen(self, host: str, port: int) -> int: ...
    def listen_unix(self, path: str | os.PathLike[str]) -> None: ...
    def start(self) -> None: ...
    def drain(self, grace_s: float) -> bool: ...
    def stop(self) -> None: ...
    def call(
        self, method: str, message: bytes, timeout_s: float | None
    ) -> tuple[int, bytes, str]: ...
    def stats(self) -> list[dict[str, int]]: ...
