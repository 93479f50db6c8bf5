from typing import Final

OUTCOMES: Final[tuple[str, ...]]

class OnlineStore:
    def stats(self) -> dict[str, int]: ...

class BatchTable:
    @property
    def generation(self) -> str: ...
