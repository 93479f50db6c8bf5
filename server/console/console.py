"""The console's routes: they share one view, taken once a second at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from http import HTTPStatus

from prometheus_client.metrics_core import Metric

from server.console.headers import HEADERS, is_loopback, is_ours
from server.console.page import asset, build, make_page
from server.console.sources import Sources
from server.console.view import Looker, View, to_json
from server.sidecar import TEXT, Answer, Route

FRESH_S = 1.0
MAX_SEEN = 1000  # characters of the header that names what an asker has
SEEN = "Scoregate-Seen"
ELSEWHERE = (
    "this console listens on this machine alone, so it answers for http://localhost and for "
    "addresses, not for other names (a page elsewhere could have such a name lead here)\n"
)


class Console:
    """The console of one server. Safe from any thread.

    Parameters
    ----------
    sources
        What it shows.
    address
        Where the sidecar listens: on loopback alone, foreign host names are refused.
    clock
        Monotonic seconds.
    """

    def __init__(
        self, sources: Sources, address: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._is_local = is_loopback(address)
        self._clock = clock
        self._lock = threading.Lock()
        self._looker = Looker(sources)
        self._view: View | None = None
        self._taken_s = 0.0

    def routes(self) -> dict[str, Route]:
        """Return path -> page, for the sidecar."""
        pages: dict[str, Callable[[Message], Answer]] = {
            "/": lambda _: Answer(HTTPStatus.FOUND, TEXT, b"", (("Location", "/console"),)),
            "/console": lambda _: _ok("text/html", make_page(self._look()).encode()),
            "/console/data": lambda headers: _ok(
                "application/json", to_json(self._look(), _seen(headers), build())
            ),
            "/console/style.css": lambda _: _ok("text/css", asset("style.css")),
            "/console/script.js": lambda _: _ok("text/javascript", asset("script.js")),
        }
        return {path: self._guarded(page) for path, page in pages.items()}

    def families(self) -> Iterator[Metric]:
        """Take a sample, yield nothing: whoever scrapes /metrics lets the five minutes begin."""
        with self._lock:
            self._looker.sample()
        return iter(())

    def _look(self) -> View:
        with self._lock:
            now_s = self._clock()
            if self._view is None or now_s - self._taken_s >= FRESH_S:
                self._view = self._looker.look()
                self._taken_s = now_s
            return self._view

    def _guarded(self, page: Callable[[Message], Answer]) -> Route:
        def answer(headers: Message) -> Answer:
            if self._is_local and not is_ours(headers.get("Host")):
                return Answer(HTTPStatus.MISDIRECTED_REQUEST, TEXT, ELSEWHERE.encode(), HEADERS)
            made = page(headers)
            return made._replace(headers=(*made.headers, *HEADERS))

        return answer


def _ok(content_type: str, body: bytes) -> Answer:
    return Answer(HTTPStatus.OK, f"{content_type}; charset=utf-8", body)


def _seen(headers: Message) -> dict[str, str]:
    """Return part -> digest, as the script wrote them; what cannot be read is not seen."""
    pairs = (one.partition(":") for one in headers.get(SEEN, "")[:MAX_SEEN].split())
    return {name: digest for name, _, digest in pairs}
