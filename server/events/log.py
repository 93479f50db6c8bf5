"""The events of this process: emitted from any thread, kept, logged, written, posted.

Rules
-----
* `emit` never waits and never raises: drift's thread and the one that changes what serves call it.
  What takes time (the process's log, the log file) is done by a thread of its own, and the webhook
  has another.
* States that flap are limited (`limiter`); what passes gets its number then, so numbers rise in the
  order in which events are told.
* The newest 1,000 are kept, with what became of each at the webhook.
* A log file that cannot be written loses lines, which are counted and said once a minute; it never
  stops anything.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from server.events.event import Event, encode, make_event
from server.events.kinds import KINDS
from server.events.limiter import Limiter
from server.events.line_file import LineFile
from server.events.webhook import Result, Webhook
from server.priority import be_nice

N_KEPT = 1000
N_UNWRITTEN = 1000  # that may wait for the log file
COMPLAIN_S = 60.0
GRACE_S = 2.0
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}

Delivery = Literal["none", "waiting", "delivered", "failed", "dropped"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """An event, and what became of it at the webhook."""

    event: Event
    delivery: Delivery


class EventLog:
    """What happened, newest last. Safe from any thread.

    Parameters
    ----------
    source
        Which server speaks.
    file
        Where each event is appended to as a line; None: nowhere.
    limiter
        Holds back what flaps.
    clock_ms, monotonic_s
        The time, and what intervals are measured with.
    """

    def __init__(
        self,
        source: str = "",
        file: LineFile | None = None,
        *,
        limiter: Limiter | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._file = file
        self._limiter = limiter or Limiter()
        self._clock_ms = clock_ms
        self._monotonic_s = monotonic_s
        self._webhook: Webhook | None = None
        self._wake = threading.Condition()
        self._next_id = time.time_ns() // 1000
        # By id, oldest first; packed: a quarter of what the objects take, and there are a thousand.
        self._kept: dict[int, bytes] = {}
        self._deliveries: dict[int, Delivery] = {}  # of those that the webhook was handed
        self._unwritten: deque[Event] = deque()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._n_lines_lost = 0
        self._complained_s = float("-inf")
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="scoregate-events", daemon=True)

    def post_to(self, webhook: Webhook) -> None:
        """Hand every event to a webhook, too; before `start`."""
        self._webhook = webhook

    def start(self) -> None:
        """Begin to write and to post."""
        self._thread.start()
        if self._webhook is not None:
            self._webhook.start()

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End: tell what was held back, write what waits, give the webhook a last chance."""
        with self._wake:
            for event in self._limiter.rest(self._monotonic_s()):
                self._tell(event)
            self._is_ending = True
            self._wake.notify()
        if self._webhook is not None:
            left = self._webhook.stop(grace_s)
            for event in left:
                self.settle(event, "dropped")
            if left:
                log.warning("webhook: %d events are not delivered: the server ends", len(left))
        if self._thread.is_alive():
            self._thread.join(grace_s)

    # ------------------------------------------------------------------- tell

    def emit(
        self,
        kind: str,
        summary: str,
        *,
        model: str = "",
        version: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        """Tell that something happened.

        Parameters
        ----------
        kind
            One of KINDS.
        summary
            One line for people.
        model, version
            Of which, where it concerns one.
        details
            More, as JSON can hold it: no rows, no keys, no ids of callers.
        """
        try:
            event = make_event(
                kind,
                summary,
                time_ms=self._clock_ms(),
                model=model,
                version=version,
                details=details or {},
            )
            encode(event, self._source)  # what JSON cannot hold fails here, where it is seen
            with self._wake:
                passed = self._limiter.offer(event, self._monotonic_s())
                if passed is not None:
                    self._tell(passed)
                self._wake.notify()
        except Exception:
            log.exception("an event of kind %s is lost", kind)

    def settle(self, event: Event, result: Result) -> None:
        """Note what became of an event at the webhook."""
        with self._wake:
            self._settle(event, result)

    def _tell(self, event: Event) -> None:
        """Give an event that passed its number, and hand it on. The lock is held."""
        event = msgspec.structs.replace(event, id=self._next_id)
        self._next_id += 1
        self._counts[event.kind, "emitted"] += 1
        self._kept[event.id] = msgspec.msgpack.encode(event)
        if self._webhook is not None:
            self._deliveries[event.id] = "waiting"
        if len(self._kept) > N_KEPT:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._deliveries.pop(oldest, None)
        self._unwritten.append(event)
        if len(self._unwritten) > N_UNWRITTEN:
            self._unwritten.popleft()
            self._n_lines_lost += self._file is not None
        if self._webhook is not None:
            dropped = self._webhook.offer(event)
            if dropped is not None:
                self._settle(dropped, "dropped")

    def _settle(self, event: Event, result: Result) -> None:
        self._counts[event.kind, result] += 1
        if event.id in self._deliveries:
            self._deliveries[event.id] = result

    # ------------------------------------------------------------------- read

    def read(
        self, limit: int, *, after_id: int = 0, kinds: Collection[str] = ()
    ) -> tuple[list[Kept], int]:
        """Return kept events, and the newest one's id.

        Parameters
        ----------
        limit
            So many at most.
        after_id
            Only later ones, the oldest of them first; 0: the newest first.
        kinds
            Only these; empty: all.
        """
        with self._wake:
            last_id = next(reversed(self._kept), 0)
            ids = list(self._kept) if after_id else list(reversed(self._kept))
            found: list[Kept] = []
            for event_id in ids:
                if len(found) == limit:
                    break
                if event_id > after_id:
                    event = msgspec.msgpack.decode(self._kept[event_id], type=Event)
                    if not kinds or event.kind in kinds:
                        found.append(Kept(event, self._deliveries.get(event_id, "none")))
            return found, last_id

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many events had which (kind, result), with zeros."""
        with self._wake:
            return {
                (kind, result): self._counts[kind, result]
                for kind in KINDS
                for result in ("emitted", "delivered", "failed", "dropped")
            }

    @property
    def n_waiting(self) -> int:
        """Events that wait for the webhook."""
        return 0 if self._webhook is None else self._webhook.n_waiting

    @property
    def n_lines_lost(self) -> int:
        """Events that are missing in the log file."""
        return self._n_lines_lost

    # ------------------------------------------------------------------ write

    def _run(self) -> None:
        # Not idle: whoever emits waits for it where it holds the lock.
        be_nice()
        while True:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._unwritten or self._is_ending,
                    self._limiter.wait_s(self._monotonic_s()),
                )
                for event in self._limiter.due(self._monotonic_s()):
                    self._tell(event)
                events = list(self._unwritten)
                self._unwritten.clear()
                is_ending = self._is_ending
            for event in events:
                try:
                    self._write(event)
                except Exception:
                    log.exception("event %d cannot be written", event.id)
            if is_ending and not events:
                break
        if self._file is not None:
            self._file.close()

    def _write(self, event: Event) -> None:
        of = " ".join(part for part in (event.model, event.version) if part)
        log.log(
            LEVELS[event.severity],
            "event %s%s: %s", event.kind, f" of {of}" if of else "", event.summary,
            extra={"fields": {"event": event.document(self._source)}},
        )  # fmt: skip
        if self._file is None:
            return
        try:
            self._file.append(encode(event, self._source))
        except OSError as error:
            self._n_lines_lost += 1
            now_s = self._monotonic_s()
            if now_s - self._complained_s >= COMPLAIN_S:
                self._complained_s = now_s
                log.error(
                    "events.log_file cannot be written: %s; %d events are missing in it so far",
                    error.strerror, self._n_lines_lost,
                )  # fmt: skip
