"""Where the process is in its life: one value that every port reads.

`starting` -> `serving` -> `draining`. `serving` needs a published plan. Nothing else decides what
/readyz, grpc.health.v1 and Control.GetStatus say. Safe from any thread.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable


class State(enum.Enum):
    """The values are those of scoregate.v1.ServingState."""

    STARTING = 1
    SERVING = 2
    NOT_READY = 3
    DRAINING = 4


class Lifecycle:
    """The state, why it is so, and who wants to know of a change."""

    def __init__(self) -> None:
        self.started_time_ms = time.time_ns() // 1_000_000
        self._lock = threading.Lock()
        self._state = State.STARTING
        self._reason = "starting"
        self._listeners: list[Callable[[State], None]] = []

    def read(self) -> tuple[State, str]:
        """Return the state and its reason; the reason is empty while serving."""
        with self._lock:
            return self._state, self._reason

    @property
    def is_serving(self) -> bool:
        """Whether scoring calls are welcome."""
        return self.read()[0] is State.SERVING

    def move(self, state: State, reason: str = "") -> None:
        """Change the state and tell the listeners; nothing leaves `draining`."""
        with self._lock:
            if self._state is State.DRAINING:
                return
            self._state, self._reason = state, reason
            listeners = list(self._listeners)
        for listener in listeners:
            listener(state)

    def listen(self, listener: Callable[[State], None]) -> None:
        """Call `listener` with the state now, and after every change, on the changing thread."""
        with self._lock:
            self._listeners.append(listener)
            state = self._state
        listener(state)
