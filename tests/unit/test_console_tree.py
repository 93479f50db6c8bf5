"""The console's elements: escaped in one place, and nothing but what the page consists of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.console import tree, words
from server.console.tree import element, to_html
from server.console.words import duration, rate, share, text
from tests.support.console import HOSTILE
from tests.support.html import parse


def test_texts_and_values_are_escaped() -> None:
    made = element("td", HOSTILE, title=HOSTILE, data_key='" onmouseover="alert(3)')
    page = to_html([made])
    assert "<script" not in page
    assert "<img" not in page
    assert page.isprintable()
    parsed = parse(page)
    assert parsed.fetched == []
    [shown] = parsed.texts("td")
    assert shown.startswith("</td><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\\x00")
    assert shown.endswith("\\x07\\x1b[31m\\u202eabc\\ud800")
    assert 'data-key="&quot; onmouseover=&quot;alert(3)"' in page


@pytest.mark.parametrize("tag", ["script", "iframe", "img", "style", "form", "foreignObject"])
def test_only_known_elements_are_made(tag: str) -> None:
    with pytest.raises(ValueError, match="no element of the console"):
        element(tag)


@pytest.mark.parametrize("name", ["onclick", "style", "href", "src", "xlink_href"])
def test_only_known_attributes_are_made(name: str) -> None:
    with pytest.raises(ValueError, match="no attribute of the console"):
        element("td", **{name: "x"})


def test_the_script_knows_the_same_elements_and_attributes() -> None:
    script = Path(tree.__file__).with_name("script.js").read_text("utf-8")
    lists = re.findall(r"new Set\(\[(.*?)\]\)", script, re.DOTALL)
    assert {tag for one in lists for tag in re.findall(r'"(\w+)"', one)} == tree.TAGS
    [pattern] = re.findall(r"ATTRIBUTE =\s+/(.*)/;", script)
    assert all(re.search(pattern, name) for name in tree.ATTRIBUTES)
    assert not any(re.search(pattern, name) for name in ("onclick", "style", "href", "src"))
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert sink not in script


def test_foreign_texts_have_a_bounded_length() -> None:
    assert text("a" * 301) == "a" * 299 + "…"
    assert len(text("\x00" * 10_000)) == words.MAX_TEXT
    assert text("a\nb") == "a\\nb"


def test_numbers_have_units_and_no_false_precision() -> None:
    assert [rate(x) for x in (0, 0.04, 0.949, 12.34, 99.96, 2950.4)] == [
        "0/s",
        "0.04/s",
        "0.95/s",
        "12.3/s",
        "100/s",
        "2,950/s",
    ]
    assert [duration(x) for x in (84.2, 999.6, 1234.0, 250_000.0, 1e6)] == [
        "84 µs",
        "1.0 ms",
        "1.2 ms",
        "250 ms",
        "1.0 s",
    ]
    assert [share(x) for x in (0, 0.0001, 0.125, 0.9999, 1)] == [
        "0 %",
        "< 0.1 %",
        "12.5 %",
        "> 99.9 %",
        "100 %",
    ]
    assert {rate(float("nan")), duration(float("nan")), share(float("nan"))} == {"–"}
