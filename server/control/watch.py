"""Watch: the plan at once, every change as it happens, traffic every interval.

Rules
-----
* No change is lost: a stream that falls too many behind is ended, and says so. Traffic is counted
  between two reports, so a slow watcher gets fewer reports, each over a longer time, never old
  ones.
* A stream has a thread of its own, beside the workers of other calls; there is a number of them.
* Streams end when the server drains, and when their token is revoked.

How it works: `Watchers` hears of changes from the rollout and puts them into every stream's queue;
the stream's thread waits for its queue or its next report, whichever is first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import grpc

from fastpath.metrics import Metrics
from server.control.convert import Converter
from server.control.failures import RpcFailure
from server.control.traffic import TrafficMeter
from server.errors import InputError
from server.lifecycle import Lifecycle, State
from server.pb.scoregate.v1 import control_pb2 as pb
from server.rollout.entry import Entry
from server.rollout.rollout import Rollout

MAX_WATCHERS = 16
MAX_BEHIND = 256  # changes
DEFAULT_INTERVAL_MS = 1000
MIN_INTERVAL_MS = 50
MAX_INTERVAL_MS = 3_600_000

Code = grpc.StatusCode


class Watcher:
    """The queue of one stream."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: deque[Entry] = deque()
        self._failure: RpcFailure | None = None
        self._is_cancelled = False

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody listens any more."""
        return self._is_cancelled

    def put(self, entry: Entry) -> None:
        """Add a change; never blocks."""
        with self._changed:
            if len(self._entries) < MAX_BEHIND:
                self._entries.append(entry)
            elif self._failure is None:
                self._failure = RpcFailure(
                    Code.RESOURCE_EXHAUSTED,
                    f"this watch is {MAX_BEHIND} changes behind: watch again, read faster",
                )
            self._changed.notify()

    def end(self, failure: RpcFailure) -> None:
        """End the stream after what is queued."""
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify()

    def cancel(self) -> None:
        """End the stream now."""
        with self._changed:
            self._is_cancelled = True
            self._changed.notify()

    def next(self, timeout_s: float) -> Entry | None:
        """Return the next change; None when there is none in time, or nobody listens.

        Raises
        ------
        RpcFailure
            The stream has to end.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._entries or self._failure or self._is_cancelled, max(0.0, timeout_s)
            )
            if self._is_cancelled:
                return None
            if self._entries:
                return self._entries.popleft()
            if self._failure is not None:
                raise self._failure
            return None


class Watchers:
    """All streams of a control port.

    Parameters
    ----------
    rollout
        What is watched.
    metrics
        Where traffic is counted.
    lifecycle
        Says when to end.
    converter
        Makes messages.
    """

    def __init__(
        self, rollout: Rollout, metrics: Metrics, lifecycle: Lifecycle, converter: Converter
    ) -> None:
        self._rollout = rollout
        self._metrics = metrics
        self._converter = converter
        self._lock = threading.Lock()
        self._watchers: list[Watcher] = []
        self._is_over = False
        rollout.listen(self._on_change)
        lifecycle.listen(self._on_state)

    def stream(
        self, request: pb.WatchRequest, context: grpc.ServicerContext, check: Callable[[], None]
    ) -> Iterator[pb.WatchResponse]:
        """Yield what one stream sends.

        Parameters
        ----------
        request
            The interval.
        context
            Of the call: says when nobody listens any more.
        check
            Raises when the caller may not watch any more.

        Raises
        ------
        InputError
            The interval is outside its range.
        RpcFailure
            Too many watch, this one is too slow, or the server drains.
        """
        interval_ms = request.interval_ms or DEFAULT_INTERVAL_MS
        if not MIN_INTERVAL_MS <= interval_ms <= MAX_INTERVAL_MS:
            raise InputError(
                f"interval_ms: {MIN_INTERVAL_MS} to {MAX_INTERVAL_MS}, not {interval_ms}"
            )
        watcher = self._open()
        try:
            if context.add_callback(watcher.cancel):
                yield from self._events(watcher, interval_ms / 1000, check)
        finally:
            self._close(watcher)

    def _events(
        self, watcher: Watcher, interval_s: float, check: Callable[[], None]
    ) -> Iterator[pb.WatchResponse]:
        meter = TrafficMeter(self._metrics, self._rollout)
        # Asked after the watcher hears of changes: a change may be heard of twice, never not.
        served = self._rollout.served
        generation = 0
        if served is None:
            yield pb.WatchResponse(plan=pb.PlanDescription())
        else:
            generation = served.state.generation
            yield pb.WatchResponse(plan=self._converter.plan(served.state))
        due = time.monotonic() + interval_s
        while True:
            entry = watcher.next(due - time.monotonic())
            if watcher.is_cancelled:
                return
            check()
            if entry is not None:
                if entry.generation > generation:
                    yield pb.WatchResponse(change=self._converter.change(entry))
            elif time.monotonic() >= due:
                yield pb.WatchResponse(traffic=meter.report())
                due = max(due + interval_s, time.monotonic())

    def _open(self) -> Watcher:
        with self._lock:
            if self._is_over:
                raise _draining()
            if len(self._watchers) >= MAX_WATCHERS:
                raise RpcFailure(
                    Code.RESOURCE_EXHAUSTED,
                    f"{MAX_WATCHERS} watch already, which is all that there can be; end one, or "
                    "read the metrics of the sidecar port",
                )
            watcher = Watcher()
            self._watchers.append(watcher)
            return watcher

    def _close(self, watcher: Watcher) -> None:
        with self._lock:
            self._watchers.remove(watcher)

    def _on_change(self, entry: Entry) -> None:
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.put(entry)

    def _on_state(self, state: State) -> None:
        if state is not State.DRAINING:
            return
        with self._lock:
            self._is_over = True
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.end(_draining())


def _draining() -> RpcFailure:
    return RpcFailure(Code.UNAVAILABLE, "the server is draining; watch the one that takes over")
