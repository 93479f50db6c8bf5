"""The console beside a load: how long its data takes, and how large its page is."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urljoin

from bench.beside import Scraper
from bench.errors import LoadError
from bench.feedback_plan import Plan
from bench.message import Message
from bench.rollout_loads import OPEN_SHAPE, Loads
from bench.targets import Target

PAGE = "/console"
DATA = "/console/data"
PAUSE_S = 0.1  # between two looks


@dataclass(frozen=True)
class Console:
    """What the console cost.

    Attributes
    ----------
    times_ms
        Of each time that its data was read while the load ran.
    data_bytes
        The most that came.
    page_bytes
        With everything that the page loads.
    """

    times_ms: list[float]
    data_bytes: int
    page_bytes: int


def console(loads: Loads, plan: Plan, target: Target, messages: list[Message]) -> Console:
    """Make the load called "console", half of what the server takes, and read the data meanwhile.

    Raises
    ------
    LoadError
        The console is not there, or did not answer.
    """
    assert target.sidecar is not None
    page_bytes = page_size(target.sidecar, PAGE)
    offered = loads.half_of_capacity(target, messages)
    scraper = Scraper(target.sidecar, PAUSE_S, path=DATA, holds=b"{")
    scraper.start()
    try:
        loads.one(
            "console", target, messages, offered, 0, shape=OPEN_SHAPE, duration_s=plan.console_s
        )
    finally:
        scraper.ended.set()
        scraper.join()
    if scraper.failure or not scraper.times_ms:
        raise LoadError(f"{target.sidecar}{DATA}: {scraper.failure or 'none was answered'}")
    return Console(scraper.times_ms, max(scraper.n_bytes), page_bytes)


def page_size(host: str, path: str) -> int:
    """Return the bytes of a page and of what it loads from where it came from.

    Parameters
    ----------
    host : str
        "host:port".
    path : str

    Raises
    ------
    LoadError
        One of them is not there.
    """
    page = _get(host, path)
    text = page.decode()
    named = re.findall(r'<(?:script|img)\b[^>]* src="([^"]+)"', text)
    for link in re.findall(r"<link\b[^>]*>", text):
        if re.search(r'rel="(?:stylesheet|icon)"', link):
            named += re.findall(r' href="([^"]+)"', link)
    # What is in the page itself is counted with it; of another host there is nothing.
    own = {urljoin(path, name) for name in named if ":" not in name}
    return len(page) + sum(len(_get(host, each)) for each in sorted(own))


def _get(host: str, path: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://{host}{path}", timeout=10) as answer:
            found: bytes = answer.read()
            return found
    except (OSError, urllib.error.URLError) as error:
        raise LoadError(f"{host}{path}: {error}") from None
