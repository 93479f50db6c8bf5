from typing import Self

from fastpath.service import Service

class EchoService(Service):
    def __new__(cls, delay_us: int = ...) -> Self: ...
