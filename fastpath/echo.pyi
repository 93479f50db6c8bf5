from typing import Self

from fastpath.service import Service

MAX_DELAY_US: int

class EchoService(Service):
    def __new__(cls, delay_us: int = ...) -> Self: ...
