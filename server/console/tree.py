"""Elements as values: told as HTML once, as JSON to the script that keeps the page up to date.

Rules: an element is [tag, attributes, children], a text is a string; tags and names of attributes
are ours, everything else may be anybody's. Texts and values are escaped here and nowhere else, and
what a terminal or a reader of right-to-left text would obey (control characters, bidirectional
overrides) is spelled out. No event handlers, no inline style, no links to elsewhere: the content
security policy forbids them, so `element` refuses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import NamedTuple, TypeAlias

from server.cli.lines import plain

# What the page consists of; script.js knows the same.
_HTML = """
a abbr article b caption dd details div dl dt h3 h4 i li ol p small span strong summary table tbody
td th thead time tr ul
"""
_SVG = "svg title desc g rect line path circle text"
_ATTRIBUTES = """
class id role scope title datetime colspan tabindex data-key data-label aria-label aria-hidden
aria-live aria-labelledby viewBox preserveAspectRatio width height x y x1 x2 y1 y2 cx cy r d
"""
TAGS = frozenset([*_HTML.split(), *_SVG.split()])
ATTRIBUTES = frozenset(_ATTRIBUTES.split())


class Element(NamedTuple):
    """One element; msgspec tells it as an array."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str]


Node = Element | str
Child: TypeAlias = "Element | str | Iterable[Child] | None"


def element(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """Return an element.

    Parameters
    ----------
    tag
        Of TAGS.
    children
        Elements, texts, or iterables of them; None is left out.
    attributes
        `class_` is class, `aria_label` is aria-label; None is left out. Numbers are written short.
    """
    if tag not in TAGS:
        raise ValueError(f"{tag}: no element of the console")
    named: dict[str, str] = {}
    for name, value in attributes.items():
        if value is None:
            continue
        name = name.rstrip("_").replace("_", "-")
        if name not in ATTRIBUTES:
            raise ValueError(f"{name}: no attribute of the console")
        named[name] = plain(value) if isinstance(value, str) else short(value)
    return Element(tag, named, list(_flat(children)))


def _flat(children: Iterable[Child]) -> Iterator[Node]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Element):
            yield child
        elif isinstance(child, str):
            yield plain(child)
        else:
            yield from _flat(child)


def short(value: float) -> str:
    """Return a number of a drawing, to the hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def to_html(nodes: Iterable[Node]) -> str:
    """Return nodes as HTML."""
    out: list[str] = []
    for node in nodes:
        _write(node, out)
    return "".join(out)


def _write(node: Node, out: list[str]) -> None:
    if isinstance(node, str):
        out.append(escape(node, quote=False))
        return
    out.append(f"<{node.tag}")
    for name, value in node.attributes.items():
        out.append(f' {name}="{escape(value)}"')
    out.append(">")
    for child in node.children:
        _write(child, out)
    out.append(f"</{node.tag}>")
