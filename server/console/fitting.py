"""Keeps the page small, whatever there is to show: rows are left out, the longest tables' first.

Rules: the page is at most MAX_BYTES with its style and script. What it leaves out it says; the data
that the script asks for a moment later leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple

from server.console.tree import Element, Node, element, to_html
from server.console.words import count

MAX_BYTES = 120_000
NOTE_BYTES = 100  # what it costs to say that rows are left out


class Fitted(NamedTuple):
    """A part as HTML."""

    html: str
    is_whole: bool


def fit(parts: Mapping[str, list[Element]], room: int) -> dict[str, Fitted]:
    """Return parts as HTML that takes so many bytes at most.

    Parameters
    ----------
    parts
        Name -> elements; they stay as they are.
    room
        Bytes.
    """
    whole = {name: to_html(nodes) for name, nodes in parts.items()}
    sizes = {name: len(html.encode()) for name, html in whole.items()}
    excess = sum(sizes.values()) - room
    if excess <= 0:
        return {name: Fitted(html, True) for name, html in whole.items()}
    copies = {name: [_copy(node) for node in nodes] for name, nodes in parts.items()}
    n_cut = dict.fromkeys(parts, 0)
    # The bodies of all tables, by their size: the largest loses its last row, again and again.
    bodies: list[tuple[int, int, str, Element, list[int]]] = []
    for name, nodes in copies.items():
        for body in _bodies(nodes):
            rows = [len(to_html([row]).encode()) for row in body.children]
            bodies.append((-sum(rows), len(bodies), name, body, rows))
    heapify(bodies)
    excess += NOTE_BYTES * len(parts)
    while excess > 0 and bodies:
        size, order, name, body, rows = bodies[0]
        if not rows:
            heappop(bodies)
            continue
        body.children.pop()
        last = rows.pop()
        excess -= last
        n_cut[name] += 1
        heapreplace(bodies, (size + last, order, name, body, rows))
    fitted = {}
    for name, nodes in copies.items():
        if n_cut[name]:
            left = f"{count(n_cut[name], 'row')} left out: this page stays small."
            nodes = [*nodes, element("p", left, class_="note raised")]
        fitted[name] = Fitted(to_html(nodes), not n_cut[name])
    return fitted


def _copy(node: Element) -> Element:
    children = [child if isinstance(child, str) else _copy(child) for child in node.children]
    return Element(node.tag, node.attributes, children)


def _bodies(nodes: list[Element]) -> list[Element]:
    found: list[Element] = []
    waiting: list[Node] = list(reversed(nodes))
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            continue
        if node.tag == "tbody":
            found.append(node)
        else:
            waiting.extend(reversed(node.children))
    return found
