"""Keeps the page small, whatever there is to show.

Rules: the page is at most MAX_BYTES with its style and script. Plots of quality go first, from the
last: their figures stand beside them. Then rows do, the longest tables' first. What is left out is
said; the data that the script asks for a moment later leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple

from server.console.tree import Element, Node, element, to_html
from server.console.words import count

MAX_BYTES = 120_000
NOTE_BYTES = 120  # what it costs to say what is left out
PLOTS = "plots"  # class of what holds plots


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
    n_plots = dict.fromkeys(parts, 0)
    excess += NOTE_BYTES * len(parts)
    for name, holder, plots in reversed(list(_plots(copies))):
        if excess <= 0:
            break
        excess -= len(to_html([plots]).encode())
        n_plots[name] += len(plots.children)
        holder.children[:] = [child for child in holder.children if child is not plots]
    # The bodies of all tables, by their size: the largest loses its last row, again and again.
    bodies: list[tuple[int, int, str, Element, list[int]]] = []
    for name, nodes in copies.items():
        for body in _bodies(nodes):
            rows = [len(to_html([row]).encode()) for row in body.children]
            bodies.append((-sum(rows), len(bodies), name, body, rows))
    heapify(bodies)
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
        counted = ((n_plots[name], "plot"), (n_cut[name], "row"))
        left = " and ".join(count(n, what) for n, what in counted if n)
        if left:
            said = f"{left} left out: this page stays small."
            nodes = [*nodes, element("p", said, class_="note raised")]
        fitted[name] = Fitted(to_html(nodes), not left)
    return fitted


def _copy(node: Element) -> Element:
    children = [child if isinstance(child, str) else _copy(child) for child in node.children]
    return Element(node.tag, node.attributes, children)


def _plots(parts: Mapping[str, list[Element]]) -> Iterator[tuple[str, Element, Element]]:
    """Yield part, what holds the plots of a block, and what holds these."""
    for name, nodes in parts.items():
        waiting = list(reversed(nodes))
        while waiting:
            node = waiting.pop()
            for child in node.children:
                if isinstance(child, Element) and child.attributes.get("class") == PLOTS:
                    yield name, node, child
                elif isinstance(child, Element) and child.tag in ("article", "div"):
                    waiting.append(child)


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
