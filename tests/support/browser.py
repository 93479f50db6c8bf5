"""A real browser that looks at the console, and forgives nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.serving import Serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Collected by the page itself: what the policy forbade, and what a script would have done.
WATCHED = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective));
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """Start it."""
    with playwright.sync_playwright() as started:
        # In a container there is no user namespace to build its sandbox of.
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@contextmanager
def opened(browser: Any, server: Serving | str, **settings: Any) -> Iterator[Any]:
    """Open the console; at the end nothing was forbidden, said or asked for elsewhere."""
    base = f"http://{server if isinstance(server, str) else server.sidecar}/"
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    context.add_init_script(WATCHED)
    said: list[str] = []
    asked: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(15_000)
    page.goto(base + "console")
    yield page
    if settings.get("java_script_enabled", True):
        assert page.evaluate("violations") == []
    assert said == []
    assert [url for url in asked if not url.startswith((base, "data:"))] == []
    context.close()


def until(page: Any, expression: str, timeout_s: float = 20.0) -> None:
    """Wait for an expression; by ourselves, because the policy forbids the client's own `eval`."""
    end = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"it never came to be: {expression}"
        page.wait_for_timeout(50)
