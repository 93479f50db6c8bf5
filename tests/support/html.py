"""A page as its reader sees it: texts by element, and what it would fetch."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Parses a page; refuses one whose elements are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._texts: list[tuple[str, str]] = []
        self.fetched: list[str] = []  # what is not in the page itself
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "srcset", "data", "action") or (
                name in ("href", "xlink:href") and not (value or "").startswith("#")
            ):
                self.fetched.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")
            if name == "style":
                self.handle_style(value or "")
        if tag in ("script", "link", "iframe", "img", "object"):
            self.fetched.append(tag)
        if tag not in VOID:
            self._open.append(tag)
            self._texts.append((tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.handle_style(data)
        # Text of an element, and of those that stand in it.
        for i in range(len(self._texts) - 1, -1, -1):
            if self._texts[i][0] in self._open:
                self._texts[i] = (self._texts[i][0], self._texts[i][1] + data)
                break

    def handle_style(self, text: str) -> None:
        self.fetched += re.findall(r"url\([^)]*\)|@import[^;]*", text)

    def texts(self, tag: str) -> list[str]:
        """Return the texts of all elements of one name, in the page's order."""
        return [text for name, text in self._texts if name == tag]


def read_page(path: Path) -> Page:
    """Parse a file."""
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> Page:
    """Parse a page."""
    page = Page()
    page.feed(text)
    page.close()
    assert not page._open, f"not closed: {page._open}"
    return page
