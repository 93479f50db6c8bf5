"""Posting events to a webhook: in order, one at a time, again and again, and never in the way.

Rules
-----
* Whoever offers an event does not wait: it goes into a bounded queue; where that is full, the
  oldest that waits is dropped.
* Events are posted in their order. The next one waits until the one before it was taken or given
  up, so a receiver that is gone for a while gets them late, not mixed up.
* 2xx: delivered. 429, 5xx, no answer or no connection: again, after a pause that doubles from a
  second to a minute, with jitter; a Retry-After of a 429 or 503 lengthens it, to five minutes at
  most. Everything else (redirects too): given up at once, another attempt would end alike.
* Each attempt has its own signature and the same Scoregate-Event-Id: an answer may get lost, so a
  receiver can see an event twice, and knows it by that.
* At the end what waits has a grace: one attempt each, until one fails or the grace is over.

It is a nice thread, and mostly sleeps.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Literal, NamedTuple

from server import __version__
from server.events.event import Event, encode
from server.events.post import Answer, Target, post
from server.events.signature import HEADER, sign
from server.priority import be_nice

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
LONGEST_RETRY_AFTER_S = 300.0
ID_HEADER = "Scoregate-Event-Id"
TOO_MANY, UNAVAILABLE = 429, 503

Result = Literal["delivered", "failed", "dropped"]

log = logging.getLogger(__name__)


class _Attempt(NamedTuple):
    """How one attempt ended."""

    trouble: str  # empty: delivered
    is_final: bool = False  # another would end alike
    wait_s: float = 0.0  # what the receiver asked for


class Webhook:
    """The queue and its thread.

    Parameters
    ----------
    target
        Where to post to.
    secret
        Signs what is posted; None: not signed.
    source
        Which server speaks.
    on_result
        Told, on the thread, what became of an event.
    timeout_s
        For one attempt as a whole.
    attempts
        Before an event is given up.
    capacity
        Events that may wait, beside the one that is on its way.
    first_pause_s
        Before the second attempt.
    """

    def __init__(
        self,
        target: Target,
        secret: bytes | None,
        source: str,
        on_result: Callable[[Event, Result], None],
        *,
        timeout_s: float,
        attempts: int,
        capacity: int,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._target = target
        self._secret = secret
        self._source = source
        self._on_result = on_result
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._capacity = capacity
        self._first_pause_s = first_pause_s
        self._tls = ssl.create_default_context() if target.scheme == "https" else None
        self._waiting: deque[Event] = deque()
        self._in_flight: Event | None = None
        self._wake = threading.Condition()
        self._end_s: float | None = None  # when the grace is over
        self._thread = threading.Thread(target=self._run, name="scoregate-webhook", daemon=True)

    @property
    def n_waiting(self) -> int:
        """Events that are neither delivered nor given up."""
        with self._wake:
            return len(self._waiting) + (self._in_flight is not None)

    def start(self) -> None:
        """Begin to post."""
        self._thread.start()

    def offer(self, event: Event) -> Event | None:
        """Take an event to post; return the one that had to go for it, or None."""
        with self._wake:
            dropped = self._waiting.popleft() if len(self._waiting) >= self._capacity else None
            self._waiting.append(event)
            self._wake.notify()
        return dropped

    def stop(self, grace_s: float) -> list[Event]:
        """End; return the events that are still not delivered, oldest first."""
        with self._wake:
            self._end_s = time.monotonic() + grace_s
            self._wake.notify()
        if self._thread.is_alive():
            # A hanging receiver may hold it for longer: then it ends with the process.
            self._thread.join(grace_s)
        with self._wake:
            left = [*([self._in_flight] if self._in_flight else []), *self._waiting]
            self._waiting.clear()
            self._in_flight = None
        return left

    def _run(self) -> None:
        be_nice()
        while (event := self._next()) is not None:
            try:
                result = self._deliver(event)
            except Exception:
                log.exception("webhook: event %d cannot be posted", event.id)
                result = "failed"
            if result is None:
                return  # the end came first: `stop` counts what is left
            with self._wake:
                if self._in_flight is not event:
                    return  # `stop` did not wait any longer, and has counted it
                self._in_flight = None
            self._on_result(event, result)

    def _next(self) -> Event | None:
        """Return the oldest event once there is one; None at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._end_s is not None)
            if not self._waiting or self._is_over():
                return None
            self._in_flight = self._waiting.popleft()
            return self._in_flight

    def _deliver(self, event: Event) -> Result | None:
        """Post an event until it is taken or given up; None: the end came first."""
        body = encode(event, self._source)
        pause_s = self._first_pause_s
        for number in range(1, self._attempts + 1):
            done = self._attempt(event, body)
            if not done.trouble:
                if number > 1:
                    log.info("webhook: event %d is delivered, at attempt %d", event.id, number)
                return "delivered"
            if done.is_final:
                log.warning("webhook: event %d is given up: %s", event.id, done.trouble)
                return "failed"
            if self._end_s is not None:
                return None
            if number == 1 and self._attempts > 1:
                log.warning(
                    "webhook: event %d is not delivered yet, further attempts follow: %s",
                    event.id, done.trouble,
                )  # fmt: skip
            if number < self._attempts:
                # Half of it is chance: servers that failed together do not come back together.
                jittered_s = pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
                self._pause(max(jittered_s, done.wait_s))
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        log.warning(
            "webhook: event %d is given up after %d attempts: %s",
            event.id, self._attempts, done.trouble,
        )  # fmt: skip
        return "failed"

    def _attempt(self, event: Event, body: bytes) -> _Attempt:
        timeout_s = self._timeout_s
        if self._end_s is not None:
            timeout_s = min(timeout_s, self._end_s - time.monotonic())
            if timeout_s <= 0:
                return _Attempt("the server ends")
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"scoregate/{__version__}",
            "Connection": "close",
            ID_HEADER: str(event.id),
        }
        if self._secret is not None:
            headers[HEADER] = sign(self._secret, body, int(time.time()))
        try:
            answer = post(self._target, headers, body, timeout_s, self._tls)
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
            return _Attempt(f"{self._target.public}: {reason}")
        return _judge(answer, self._target.public)

    def _pause(self, pause_s: float) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._end_s is not None, pause_s)

    def _is_over(self) -> bool:
        return self._end_s is not None and time.monotonic() >= self._end_s


def _judge(answer: Answer, where: str) -> _Attempt:
    if 200 <= answer.status < 300:
        return _Attempt("")
    trouble = f"{where} answered {answer.status}"
    if answer.status in (TOO_MANY, UNAVAILABLE):
        return _Attempt(trouble, wait_s=retry_after_s(answer.retry_after))
    return _Attempt(trouble, is_final=answer.status < 500)


def retry_after_s(text: str) -> float:
    """Return the seconds that a Retry-After asks for, bounded; 0 where it says nothing usable."""
    seconds = 0.0
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        with suppress(ValueError, TypeError, OverflowError):
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
